package storetest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// LookupsAllocateNothing requires that the answers of s from its cache allocate nothing,
// and, if everything is set, those from a record in flight or from none. A test that calls
// it is not parallel: allocations are counted for the whole process.
func LookupsAllocateNothing(t testing.TB, s *idem.Store, everything bool) {
	t.Helper()
	ctx := context.Background()
	print := idem.FingerprintOf([]byte("request"))
	c, err := s.Claim(ctx, idem.Request{Key: "done", Fingerprint: print})
	require.NoError(t, err)
	require.NoError(t, s.Complete(ctx, c.Token, []byte("result")))
	Claim(t, s, "open")

	refused := func(key string, f idem.Fingerprint, want error) func() {
		return func() {
			if _, err := s.Claim(ctx, idem.Request{Key: key, Fingerprint: f}); err != want {
				t.Fatal(err)
			}
		}
	}
	get := func(key string, want error) func() {
		return func() {
			if _, err := s.Get(ctx, key); err != want {
				t.Fatal(err)
			}
		}
	}
	calls := map[string]func(){
		"Get hit":          get("done", nil),
		"replayed Claim":   refused("done", print, idem.ErrCompleted),
		"mismatched Claim": refused("done", idem.Fingerprint{1}, idem.ErrMismatch),
	}
	if everything {
		calls["Get miss"] = get("absent", idem.ErrNotFound)
		calls["Claim in flight"] = refused("open", idem.Fingerprint{}, idem.ErrInFlight)
	}
	for name, f := range calls {
		require.Zero(t, testing.AllocsPerRun(2000, f), name)
	}
}
