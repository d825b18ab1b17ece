package bolt

import (
	"context"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// bbolt lets the file grow only when no read transaction is open: one that is kept for
// the next look-up, or comes back from one in the middle of a commit, must not be.
func TestIdleReadersDoNotKeepTheFileFromGrowing(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, b := newStore(t, Options{MapSize: 1 << 15}, idem.Options{CacheBytes: -1, SweepInterval: -1})
	before, err := b.Size()
	require.NoError(t, err)
	const callers, each = 4, 30
	var all sync.WaitGroup
	for w := range callers {
		all.Go(func() {
			for i := range each {
				key := fmt.Sprint(w, "/", i)
				c, err := s.Claim(ctx, idem.Request{Key: key})
				if err == nil {
					err = s.Complete(ctx, c.Token, make([]byte, 32<<10))
				}
				if err == nil {
					_, err = s.Get(ctx, key)
				}
				if err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	all.Wait()
	after, err := b.Size()
	require.NoError(t, err)
	require.Greater(t, after, before+callers*each*(32<<10))
	require.Positive(t, b.engine.readers.Idle(), "look-ups leave their readers")
	require.NoError(t, s.Close()) // bbolt waits for readers here too
	require.Zero(t, b.engine.readers.Idle())
}
