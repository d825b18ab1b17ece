package memory_test

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/memory"
)

// TestAllocs: what answers from a record that is there allocates nothing. It is not
// parallel, because allocations are counted for the whole process.
func TestAllocs(t *testing.T) {
	s, err := idem.New(memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	ctx := context.Background()
	print := idem.FingerprintOf([]byte("request"))
	claim := func(key string) idem.Token {
		c, err := s.Claim(ctx, idem.Request{Key: key, Fingerprint: print})
		require.NoError(t, err)
		return c.Token
	}
	require.NoError(t, s.Complete(ctx, claim("done"), []byte("result")))
	claim("open")

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
	for name, f := range map[string]func(){
		"Get hit":          get("done", nil),
		"Get miss":         get("absent", idem.ErrNotFound),
		"replayed Claim":   refused("done", print, idem.ErrCompleted),
		"Claim in flight":  refused("open", print, idem.ErrInFlight),
		"mismatched Claim": refused("done", idem.Fingerprint{1}, idem.ErrMismatch),
	} {
		require.Zero(t, testing.AllocsPerRun(200, f), name)
	}
}
