package robustness

import (
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/fakeclock"
	"github.com/idemkv/idem/internal/race"
)

// The judge of flipped bits would notice.
func TestFlipsNoticeMutants(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	ctx := context.Background()
	f := &flipper{t: t, engine: "bolt"}
	f.build(fastDir(t))
	b, err := os.ReadFile(f.truth)
	require.NoError(t, err)
	var is truth
	require.NoError(t, json.Unmarshal(b, &is))
	require.Equal(t, flipped{}, is.hold("bolt", f.copy()), "it is as it was")

	changed := func(change func(*idem.Store)) flipped {
		path := f.copy()
		s, err := Open("bolt", path, Sizes{}, idem.Options{Clock: fakeclock.New(time.Unix(0, is.Now)), SweepInterval: -1})
		require.NoError(t, err)
		change(s.Store)
		require.NoError(t, s.Store.Close())
		return is.hold("bolt", path)
	}
	again := func(s *idem.Store, key string) {
		c, err := s.Claim(ctx, idem.Request{Key: key, Fingerprint: idem.FingerprintOf([]byte("one request"))})
		require.NoError(t, err)
		require.NoError(t, s.Complete(ctx, c.Token, []byte("another result")))
	}
	const key = "key 1/002"
	require.Equal(t, idem.Completed, is.Records[key].State)
	found := changed(func(s *idem.Store) {
		require.NoError(t, s.Forget(ctx, idem.Token{Key: key}))
		again(s, key)
	})
	require.Contains(t, found.Violation, "Claim of")
	require.Contains(t, found.Violation, "Get of")
	require.Contains(t, found.Violation, "Records of")
	found = changed(func(s *idem.Store) { require.NoError(t, s.Forget(ctx, idem.Token{Key: key})) })
	require.Empty(t, found.Violation)
	require.Contains(t, strings.Join(found.Lost, "; "), "is granted")
	found = changed(func(s *idem.Store) { again(s, "nobody's") })
	require.Contains(t, found.Violation, "never was")
}

// copy returns a copy of the store.
func (f *flipper) copy() string {
	path := filepath.Join(f.t.TempDir(), "store")
	require.NoError(f.t, copied(f.path, path, flip{File: "none"}))
	return path
}
