package operator_test

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

var now = time.Unix(1_800_000_000, 0)

// Each kind of record that waits for someone has its reason and age. The rest do not.
func TestStuckBy(t *testing.T) {
	t.Parallel()
	const most = 3
	for name, c := range map[string]struct {
		rec    idem.Record
		reason operator.Reason
		age    time.Duration
	}{
		"held":                {idem.Record{State: idem.Held, Attempt: most, LeaseUntil: now.Add(time.Hour)}, operator.ReasonHeld, 2 * time.Hour},
		"running":             {idem.Record{State: idem.InFlight, LeaseUntil: now.Add(1)}, "", 0},
		"completed":           {idem.Record{State: idem.Completed, Attempt: most, LeaseUntil: now.Add(-time.Hour)}, "", 0},
		"failed":              {idem.Record{State: idem.Failed, Attempt: most}, "", 0},
		"its process is gone": {idem.Record{State: idem.InFlight, Lapsed: true, LeaseUntil: now.Add(time.Hour)}, operator.ReasonLapsed, 2 * time.Hour},
		"lapsed":              {idem.Record{State: idem.InFlight, Lapsed: true, LeaseUntil: now.Add(-time.Hour), Attempt: most - 1}, operator.ReasonLapsed, time.Hour},
		"lapsed, outcome unknown": {
			idem.Record{State: idem.InFlight, Lapsed: true, HoldUnknown: true, Attempt: most, LeaseUntil: now.Add(-time.Minute)}, operator.ReasonUnknown, time.Minute,
		},
		"lapsed, no attempts left": {
			idem.Record{State: idem.InFlight, Lapsed: true, Attempt: most, LeaseUntil: now.Add(-time.Minute)}, operator.ReasonExhausted, time.Minute,
		},
		"released":                   {idem.Record{State: idem.Released, Attempt: 1}, operator.ReasonReleased, 2 * time.Hour},
		"released, no attempts left": {idem.Record{State: idem.Released, Attempt: most + 1}, operator.ReasonExhausted, 2 * time.Hour},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c.rec.ClaimedAt = now.Add(-2 * time.Hour)
			s, ok := operator.StuckBy(c.rec, most, now)
			require.Equal(t, c.reason != "", ok)
			assert.Equal(t, c.reason, s.Reason)
			assert.Equal(t, c.age, s.Age())
			if ok {
				assert.NotEmpty(t, s.Why)
				assert.NotEmpty(t, s.Settles)
			}
		})
	}
}

// Without a bound on attempts nothing is exhausted, and a clock that stepped back makes no
// negative age.
func TestStuckByBounds(t *testing.T) {
	t.Parallel()
	s, ok := operator.StuckBy(idem.Record{State: idem.Released, Attempt: 1 << 30, ClaimedAt: now.Add(time.Hour)}, 0, now)
	require.True(t, ok)
	assert.Equal(t, operator.ReasonReleased, s.Reason)
	assert.Zero(t, s.Age())
}

// What an operator is offered is what the store accepts.
func TestActionsOn(t *testing.T) {
	t.Parallel()
	for _, state := range operator.States() {
		allowed := operator.ActionsOn(state)
		for _, action := range operator.Actions() {
			s := newStore(t, idem.Options{})
			tok := claimed(t, s, "k", state)
			err := operator.Settle(t.Context(), s, operator.Order{Token: tok, Action: action, Payload: []byte("other")})
			if contains(allowed, action) {
				require.NoError(t, err, "%s on %v", action, state)
			} else {
				require.Error(t, orUnchanged(t, s, tok, state, err), "%s on %v", action, state)
			}
		}
	}
}
