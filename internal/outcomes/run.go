package outcomes

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
)

// MaxRun and Lease are for doors that have a MaxRun: it is over before the first
// heartbeat.
const (
	Lease  = 30 * time.Second
	MaxRun = time.Second
)

// Door is the way into the store that Run tests.
type Door struct {
	// Column selects the door's fates.
	Column func(Row) Fates
	// Itself: the work has a token, and may settle its own claim.
	Itself bool
	// Result is what the work completes its own claim with; nil: some text.
	Result []byte
	// Call asks for the operation of c once. If the claim is granted, it has its handler
	// call c.Work and end in the Way that Work returns; see Way.Return. It reports
	// whether the caller was told that the operation is done. It may panic or Goexit as
	// the work does.
	Call func(t *testing.T, c *Call) (done bool)
}

// Call is one call of a door.
type Call struct {
	Ctx   context.Context
	Store *idem.Store
	Clock *idemtest.Clock
	Key   string
	// Hold: work that has not said how it ended is not run again.
	Hold bool
	// Way is how the work will end, for doors that must prepare for it.
	Way Way

	leave   func() // makes the caller leave
	itself  idem.State
	result  []byte
	entered chan struct{}
	let     chan struct{}
	ran     bool
	told    bool // that the operation is done
	record  string
}

var errWork = errors.New("the work failed")

// Work is the work. ctx and token are the handler's; same-commit functions have no
// token.
func (c *Call) Work(t *testing.T, ctx context.Context, token idem.Token) Way {
	c.ran, c.record = true, token.Key
	var err error
	switch c.itself {
	case idem.Completed:
		err = c.Store.Complete(ctx, token, c.result)
	case idem.Failed:
		err = c.Store.Fail(ctx, token, []byte("by itself"))
	case idem.Held:
		err = c.Store.Hold(ctx, token, []byte("by itself"))
	case idem.Released:
		err = c.Store.Release(ctx, token, []byte("by itself"))
	}
	assert.NoError(t, err)
	switch c.Way {
	case Left:
		c.leave()
	case Stopped:
		c.leave()
		<-ctx.Done()
	case Hung:
		close(c.entered)
		<-ctx.Done()
		<-c.let
	}
	return c.Way
}

// Return ends the work of a door whose handlers return errors.
func (w Way) Return(ctx context.Context) error {
	switch w {
	case Plain:
		return errWork
	case Permanent:
		return idem.Permanent(errWork)
	case Unknown:
		return idem.Unknown(errWork)
	case Retryable:
		return idem.Retryable(errWork)
	case Panic:
		panic(errWork)
	case Goexit:
		runtime.Goexit()
	case Stopped:
		return ctx.Err()
	}
	return nil
}

// Run tests d: each way, with each policy, for work that has settled its own claim and
// work that has not.
func Run(t *testing.T, s *idem.Store, clock *idemtest.Clock, d Door) {
	require.Len(t, Table, int(ways))
	for _, row := range Table {
		itself := []idem.State{0}
		if d.Itself {
			itself = append(itself, idem.Completed, idem.Failed, idem.Held, idem.Released)
		}
		for n, want := range d.Column(row) {
			for _, by := range itself {
				if want == None {
					continue
				}
				if by != 0 {
					want = Itself[by]
				}
				first := &Call{Store: s, Clock: clock, Hold: n == 1, Way: row.Way, itself: by, result: d.Result}
				first.Key = fmt.Sprint(row.Does, n, by)
				name := fmt.Sprintf("the work %s; HoldUnknown: %v; settled by itself: %v", row.Does, first.Hold, by)
				got := d.both(t, first)
				require.Equal(t, want, got, name)
				if row.Way == Result && by == 0 {
					require.True(t, first.told, name)
				}
				if t.Failed() {
					t.Fatal(name)
				}
			}
		}
	}
}

// both makes the first call, then a second one whose work returns a result. It returns
// what the first call turned out to mean for the second.
func (d Door) both(t *testing.T, first *Call) Fate {
	done := d.start(t, first)
	if first.Way == Hung {
		select {
		case <-first.entered:
		case <-done:
			t.Fatal("the work was not run")
		}
		first.Clock.Advance(MaxRun)
		for first.Clock.Pending() > 0 { // until the heartbeat has ended too
			runtime.Gosched()
		}
		first.Clock.Advance(Lease)
	} else {
		<-done
	}
	require.True(t, first.ran, "the work was not run")
	second := &Call{Store: first.Store, Clock: first.Clock, Key: first.Key, Hold: first.Hold}
	<-d.start(t, second)
	if first.Way == Hung {
		close(first.let)
		<-done
	}
	key := first.record
	if key == "" {
		key = first.Key
	}
	rec, err := first.Store.Get(context.Background(), key)
	require.NoError(t, err)
	if first.told {
		require.Equal(t, idem.Completed, rec.State, "the caller was told that it is done")
	}
	switch {
	case second.ran && rec.Attempt > 1:
		return Again
	case second.ran:
		return Undone
	case second.told:
		return Replay
	case rec.State == idem.Failed:
		return Refuse
	}
	return Hold
}

// start makes a call in its own goroutine, which a Goexit ends.
func (d Door) start(t *testing.T, c *Call) (done <-chan struct{}) {
	ctx, cancel := context.WithCancel(context.Background())
	c.Ctx, c.leave, c.entered, c.let = ctx, cancel, make(chan struct{}), make(chan struct{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		defer func() { _ = recover() }()
		c.told = d.Call(t, c)
	}()
	return ended
}
