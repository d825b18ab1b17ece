package idem

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
)

func TestWaitersLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	var ws waiters
	ws.wake("k", nil, nil) // nobody waits
	a, b, other := ws.add("k"), ws.add("k"), ws.add("other")
	require.Equal(t, int64(3), ws.n.Load())

	flying := &engine.Entry{State: InFlight, Fence: 7}
	ws.wake("k", nil, flying)
	for _, w := range []*waiter{a, b} {
		assert.Len(t, w.woken, 1, "an extension or a takeover: look again")
		_, ended := ws.outcome(w, 7)
		assert.False(t, ended)
	}
	first, second := &engine.Entry{State: Released, Fence: 7}, &engine.Entry{State: Completed, Fence: 8}
	ws.wake("k", flying, first)
	ws.wake("k", &engine.Entry{State: InFlight, Fence: 8}, second)
	e, ended := ws.outcome(a, 7)
	assert.True(t, ended)
	assert.Same(t, second, e, "the last that may be returned")
	assert.Len(t, a.woken, 1, "a waiter that does not run holds nobody up")
	assert.Empty(t, other.woken)

	ws.remove("k", a)
	ws.remove("k", b)
	assert.NotContains(t, ws.by, "k")
	ws.wake("other", flying, nil)
	e, ended = ws.outcome(other, 7)
	assert.True(t, ended)
	assert.Nil(t, e, "gone")
	ws.remove("other", other)
	assert.Empty(t, ws.by)
	assert.Zero(t, ws.n.Load())
}

// One commit ends a claim and grants the next, and can be read before it has
// told the waiters. Who sees the new claim then, and waits for it, does not hear
// of the old one's end.
func TestWaitersAreNotToldOfClaimsBeforeTheOneTheySaw(t *testing.T) {
	t.Parallel()
	old, flying := &engine.Entry{State: InFlight, Fence: 7}, &engine.Entry{State: InFlight, Fence: 8}
	for name, end := range map[string]*engine.Entry{"released": {State: Released, Fence: 7}, "gone": nil} {
		t.Run(name, func(t *testing.T) {
			var ws waiters
			w := ws.add("k")
			ws.wake("k", old, end)
			ws.wake("k", end, flying)
			_, ended := ws.outcome(w, 8)
			assert.False(t, ended)
			e, ended := ws.outcome(w, 7)
			assert.False(t, ended, "it was dropped: %v", e)

			done := &engine.Entry{State: Completed, Fence: 8}
			ws.wake("k", flying, done)
			e, ended = ws.outcome(w, 8)
			assert.True(t, ended)
			assert.Same(t, done, e)
		})
	}
}
