package idem_test

import (
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
)

// No goroutine outlives the stores of these tests.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a store on b that is closed with the test.
func open(t testing.TB, b engine.Backend, o idem.Options) *idem.Store {
	t.Helper()
	s, err := idem.New(b, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// bubble runs f in a bubble, where time passes when everybody waits for it.
func bubble(t *testing.T, f func(t *testing.T)) {
	t.Helper()
	t.Parallel()
	synctest.Test(t, f)
}

// newClock returns a clock that stands still in the year 2027.
func newClock() *idemtest.Clock { return idemtest.NewClock(time.Unix(1_800_000_000, 0)) }

// gate stops a hook until it is opened, once it has been shut.
type gate struct{ ch atomic.Pointer[chan struct{}] }

func (g *gate) shut() {
	ch := make(chan struct{})
	g.ch.Store(&ch)
}

func (g *gate) open() { close(*g.ch.Swap(nil)) }

func (g *gate) pass() {
	if ch := g.ch.Load(); ch != nil {
		<-*ch
	}
}
