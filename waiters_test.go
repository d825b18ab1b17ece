package idem

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestWaitersLeaveNothingBehind(t *testing.T) {
	t.Parallel()
	var ws waiters
	ws.wake("k", nil) // nobody waits
	a, b, other := ws.add("k"), ws.add("k"), ws.add("other")
	require.Equal(t, int64(3), ws.n.Load())

	ws.wake("k", &Entry{State: InFlight})
	for _, w := range []*waiter{a, b} {
		assert.Len(t, w.woken, 1, "an extension or a takeover: look again")
		_, ended := ws.outcome(w)
		assert.False(t, ended)
	}
	first, second := &Entry{State: Released}, &Entry{State: Completed}
	ws.wake("k", first)
	ws.wake("k", second)
	e, ended := ws.outcome(a)
	assert.True(t, ended)
	assert.Same(t, first, e, "the first that may be returned")
	assert.Len(t, a.woken, 1, "a waiter that does not run holds nobody up")
	assert.Empty(t, other.woken)

	ws.remove("k", a)
	ws.remove("k", b)
	assert.NotContains(t, ws.by, "k")
	ws.wake("other", nil)
	e, ended = ws.outcome(other)
	assert.True(t, ended)
	assert.Nil(t, e, "gone")
	ws.remove("other", other)
	assert.Empty(t, ws.by)
	assert.Zero(t, ws.n.Load())
}
