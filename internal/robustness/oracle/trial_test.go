package oracle

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/progress"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/txbackend"
)

var errDisk = errors.New("the disk failed")

// toyTrial has the k-th commit of a script fail, or that and all after it, or those
// of random traffic, and judges what is left.
func toyTrial(f faults, k int, onward, load, reopens bool, watch func(string, func()) error) (trial *Trial, commits int, err error) {
	disk := newToyDisk(f, rand.New(rand.NewPCG(uint64(k), 3)))
	disk.fails = func() error {
		commits++
		if commits == k || commits > k && onward {
			return errDisk
		}
		return nil
	}
	clock := NewClock(0)
	trial = &Trial{
		Journal: NewJournal(clock), Clock: clock, Open: disk.Open, Lives: 2, Cause: errDisk,
		Script: Script{Large: 1000}, Reopens: reopens, Watch: watch,
	}
	if load {
		trial.Load = &Workload{
			Seed: uint64(k), Keys: 6, Workers: 6, Ops: 200, Lease: 5 * time.Millisecond, Retention: 50 * time.Millisecond, MaxBytes: 1000,
		}
	}
	if err := trial.Run(context.Background()); err != nil {
		return trial, commits, err
	}
	disk.fails = nil
	return trial, commits, Judge(NewChecker(), trial.Journal.Events(), clock.Nanos(), disk.Open)
}

// Every commit of the script, and of some traffic, failed.
func TestTrialOfAHealthyStore(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	_, commits, err := toyTrial(faults{}, 0, false, false, false, nil)
	require.NoError(t, err)
	require.Greater(t, commits, 60)
	for k := 1; k <= commits; k++ {
		trial, _, err := toyTrial(faults{}, k, k%2 == 0, false, k%4 > 1, nil)
		require.NoError(t, err, "commit %d", k)
		require.ErrorIs(t, trial.Broken, errDisk, "commit %d", k)
		_, _, err = toyTrial(faults{}, k, false, true, true, nil)
		require.NoError(t, err, "commit %d, of traffic", k)
	}
}

// deaf is a backend whose store does not hear that it is broken: what the cache has
// is replayed.
type deaf struct{ *txbackend.Backend }

func (d deaf) Bind(h engine.Host) (engine.Binding, error) {
	h.Broken = func(error) {}
	return d.Backend.Bind(h)
}

// vague is one whose store does not hear why.
type vague struct{ *txbackend.Backend }

func (v vague) Bind(h engine.Host) (engine.Binding, error) {
	tell := h.Broken
	h.Broken = func(error) { tell(idem.ErrBroken) }
	return v.Backend.Bind(h)
}

// careless is one that takes an error for a commit that did not happen, and goes on.
type careless struct {
	*txbackend.Backend
	mu   sync.Mutex
	next func() *txbackend.Backend
	host engine.Host
}

func (c *careless) Bind(h engine.Host) (engine.Binding, error) {
	h.Broken = func(error) {}
	c.host = h
	return c.Backend.Bind(h)
}

func (c *careless) Apply(ctx context.Context, ops []engine.Op) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	err := c.Backend.Apply(ctx, ops)
	if errors.Is(err, idem.ErrBroken) {
		c.Backend = c.next()
		_, bindErr := c.Backend.Bind(c.host)
		return errors.Join(err, bindErr)
	}
	return err
}

func (c *careless) Read(ctx context.Context, key string) (*engine.Entry, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.Backend.Read(ctx, key)
}

// stuck is one that does not close when it is broken.
type stuck struct {
	*txbackend.Backend
	free chan struct{}
}

func (s stuck) Close() error {
	if _, err := s.Read(context.Background(), "k"); errors.Is(err, idem.ErrBroken) {
		<-s.free
	}
	return s.Backend.Close()
}

// Each store that does the wrong thing about an error of its disk is found out.
func TestTrialNoticesMutants(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	free := make(chan struct{})
	t.Cleanup(func() { close(free) })
	for name, c := range map[string]struct {
		faults faults
		from   int // the first commit to fail
		says   string
	}{
		"swallows the error of a failed commit": {faults{swallows: true}, 1, ""},
		"keeps half of a failed commit":         {faults{tears: true}, 1, ""},
		"replays when it is broken": {
			faults{wraps: func(b *txbackend.Backend) engine.Backend { return deaf{b} }}, 20, "Claim of a completed key answers",
		},
		"does not say why": {
			faults{wraps: func(b *txbackend.Backend) engine.Backend { return vague{b} }}, 1, "does not wrap the cause",
		},
		"goes on": {
			faults{wraps: func(b *txbackend.Backend) engine.Backend {
				return &careless{Backend: b, next: func() *txbackend.Backend {
					return txbackend.New(&toy{disk: newToyDisk(faults{}, rand.New(rand.NewPCG(1, 1)))})
				}}
			}}, 1, "Claim answers",
		},
		"does not close": {
			faults{wraps: func(b *txbackend.Backend) engine.Backend { return stuck{b, free} }}, 1, "Close hangs",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var err error
			k := c.from
			watch := progress.Watch{Patience: time.Second}.Run
			for ; k < 60 && err == nil; k++ {
				_, _, err = toyTrial(c.faults, k, false, false, false, watch)
			}
			require.Error(t, err)
			require.ErrorContains(t, err, c.says)
			t.Logf("found when commit %d failed: %.300v", k-1, err)
		})
	}
}

// What is answered to calls that come after the first ErrBroken is judged, too.
func TestLateAnswersAreJudged(t *testing.T) {
	t.Parallel()
	call := func(id int64, kind Kind) *Event {
		return &Event{T: id * 10, Call: &Op{ID: id, Kind: kind, Key: "k", Lease: 1000, Retention: 1000}}
	}
	ret := func(id int64, code Code) *Event { return &Event{T: id*10 + 5, Return: &Answer{ID: id, Err: code}} }
	begin := &Event{Life: &Life{N: 1}}
	for name, c := range map[string]struct {
		events []*Event
		fine   bool
	}{
		"broken stays broken":        {[]*Event{begin, call(1, Claim), ret(1, Broken), call(2, Get), ret(2, Broken), call(3, Get), ret(3, Closed)}, true},
		"it had been called before":  {[]*Event{begin, call(1, Claim), call(2, Get), ret(1, Broken), ret(2, NotFound)}, true},
		"an answer after it":         {[]*Event{begin, call(1, Claim), ret(1, Broken), call(2, Get), ret(2, NotFound)}, false},
		"a success after it":         {[]*Event{begin, call(1, Claim), ret(1, Broken), call(2, Forget), ret(2, OK)}, false},
		"until it was opened again":  {[]*Event{begin, call(1, Claim), ret(1, Broken), {T: 20, Life: &Life{N: 2}}, call(3, Get), ret(3, NotFound)}, true},
		"a function was run late":    {[]*Event{begin, call(1, Claim), ret(1, Broken), call(2, Do), ret(2, Own)}, false},
		"an answer nothing explains": {[]*Event{begin, call(1, Get), ret(1, Completed)}, false},
	} {
		k := NewChecker()
		k.Load(c.events)
		err := k.All()
		require.Equal(t, c.fine, err == nil, "%s: %v", name, err)
	}
	// A commit that failed may have taken effect, one that was never tried may not.
	for kind, fine := range map[Kind]bool{Update: true, Sweep: true} {
		k := NewChecker()
		k.Load([]*Event{begin, {T: 1, Call: &Op{ID: 1, Kind: kind, Amount: 5}}, {T: 2, Return: &Answer{ID: 1, Err: Broken}}})
		require.Equal(t, fine, k.All() == nil, kind)
	}
	for late, fine := range map[bool]bool{false: true, true: false} {
		k := NewChecker()
		events := []*Event{begin, call(1, Claim), ret(1, Broken)}
		id := int64(2)
		if !late {
			events = []*Event{begin, call(1, Claim)}
		}
		events = append(events, &Event{T: 50, Call: &Op{ID: id, Kind: Update, Amount: 5}}, &Event{T: 60, Return: &Answer{ID: id, Err: Broken}})
		k.Load(events)
		require.NoError(t, k.All())
		found := &Audit{Began: 70, Records: map[string]Record{}, Ledger: map[int64]int64{id: 5}, Balances: map[int64]int64{id % Accounts: 5}}
		err := k.Image(Point{Answers: k.Len(), Calls: k.Len(), T: 70}, found)
		require.Equal(t, fine, err == nil, fmt.Sprint("late: ", late, ", ", err))
	}
}
