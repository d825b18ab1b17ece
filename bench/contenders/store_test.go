package contenders

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// A filled store holds every key, whoever copies it.
func TestFilled(t *testing.T) {
	t.Parallel()
	w := Workload{Keys: NewKeys(300), ResultBytes: 20, Filled: filledFor(t)}
	ctx := context.Background()
	for _, engine := range []string{"bolt", "pebble"} {
		for range 2 {
			dir := t.TempDir()
			require.NoError(t, w.Filled.Into(dir, engine, w))
			s, err := OpenStore(engine, dir, idem.Options{CacheBytes: -1})
			require.NoError(t, err)
			results := map[string]bool{}
			for i := range 300 {
				r, err := s.Get(ctx, w.Keys.Fill(i))
				require.NoError(t, err)
				require.Len(t, r.Result, w.ResultBytes)
				results[string(r.Result)] = true
			}
			require.Len(t, results, 300, "each has another")
			_, err = s.Get(ctx, w.Keys.Miss(0, 0))
			require.Equal(t, idem.ErrNotFound, err)
			require.NoError(t, s.Close())
		}
	}
	require.Len(t, w.Filled.made, 2, "each engine was filled once")
	_, err := OpenStore("oracle", "", idem.Options{})
	require.ErrorContains(t, err, "oracle")
}

// Who waits for the clock looks again after a skip when it is nudged.
func TestJumpClock(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		c := NewJumpClock()
		wall, elapsed := c.Now()
		c.Nudge() // nobody waits
		fired := make(chan struct{}, 1)
		c.AfterFunc(time.Hour, func() { fired <- struct{}{} })
		c.Skip(3 * time.Hour)
		wall2, elapsed2 := c.Now()
		require.Equal(t, 3*time.Hour, wall2.Sub(wall))
		require.Equal(t, 3*time.Hour, elapsed2-elapsed)
		start := time.Now()
		c.Nudge()
		<-fired
		require.Zero(t, time.Since(start))
	})
}
