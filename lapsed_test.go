package idem_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// Lapsed is what a claim goes by, wherever a record comes from: the boundary is the
// lease's end, and with LapseOnOpen the opening.
func TestRecordLapsed(t *testing.T) {
	t.Parallel()
	for kind := range engines {
		t.Run(kind, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			p := newPlace(t, kind, time.Unix(1_800_000_000, 0), idem.Options{MaxAttempts: 1})
			check := func(key string, lapsed bool, refusal error) {
				t.Helper()
				rec, err := p.Get(ctx, key)
				require.NoError(t, err)
				require.Equal(t, lapsed, rec.Lapsed, "Get")
				require.Equal(t, lapsed, p.all(t)[key].Lapsed, "Records")
				c, err := p.Claim(ctx, idem.Request{Key: key})
				require.ErrorIs(t, err, refusal)
				require.Equal(t, lapsed, c.Record.Lapsed, "Claim")
				require.Equal(t, lapsed, p.ClaimMany(ctx, []idem.Request{{Key: key}})[0].Record.Lapsed, "ClaimMany")
			}
			c := mustClaim(t, p.Store, idem.Request{Key: "unknown", Lease: time.Second, HoldUnknown: true})
			require.False(t, c.Record.Lapsed)
			mustClaim(t, p.Store, idem.Request{Key: "tried", Lease: time.Second})
			p.clock.Advance(time.Second - 1)
			check("unknown", false, idem.ErrInFlight)
			check("tried", false, idem.ErrInFlight)
			p.clock.Advance(1)
			check("unknown", true, idem.ErrHeld)
			check("tried", true, idem.ErrExhausted)
			rec, err := p.Wait(ctx, "unknown")
			require.NoError(t, err)
			require.True(t, rec.Lapsed, "Wait")
			require.NoError(t, p.Extend(ctx, c.Token, time.Hour))
			check("unknown", false, idem.ErrInFlight)

			for key, state := range map[string]idem.State{"held": idem.Held, "released": idem.Released, "completed": idem.Completed} {
				c := mustClaim(t, p.Store, idem.Request{Key: key, Lease: time.Second})
				require.NoError(t, p.End(ctx, idem.Ending{Token: c.Token, State: state}))
			}
			p.clock.Advance(time.Second)
			for _, key := range []string{"held", "released", "completed"} {
				rec, err := p.Get(ctx, key)
				require.NoError(t, err)
				require.False(t, rec.Lapsed, "only what is in flight has a lease")
			}

			if kind == "memory" {
				return
			}
			require.NoError(t, p.Close())
			p.Store = open(t, engines[kind](t, p.dir), idem.Options{Clock: p.clock, SweepInterval: -1, LapseOnOpen: true, MaxAttempts: 1})
			check("unknown", true, idem.ErrHeld)
			c = mustClaim(t, p.Store, idem.Request{Key: "new", Lease: time.Hour})
			require.False(t, c.Record.Lapsed)
			check("new", false, idem.ErrInFlight)
		})
	}
}
