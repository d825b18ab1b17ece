package oracle

import (
	"context"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/progress"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/txbackend"
)

// stickyToy is a Stuck on a toy whose disk does not answer when a commit can be seen
// and is not durable.
func stickyToy(f faults, closes bool, watch func(string, func()) error) *Stuck {
	disk := newToyDisk(f, rand.New(rand.NewPCG(1, 4)))
	reached, free := make(chan struct{}), make(chan struct{})
	var once, end sync.Once
	return &Stuck{
		Open: disk.Open, Clock: NewClock(0), Close: closes, Watch: watch,
		Stick: func() {
			var steps atomic.Int64
			disk.OnWrite(func() {
				if steps.Add(1) == 2 {
					once.Do(func() { close(reached) })
					<-free
				}
			})
		},
		Reached: func() { <-reached },
		Release: func() { end.Do(func() { close(free) }) },
	}
}

func TestStuckHealthyStore(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	for _, closes := range []bool{false, true} {
		require.NoError(t, stickyToy(faults{}, closes, nil).Run(context.Background()), "close: %v", closes)
	}
}

// patient is a backend that does not let go of who waits for a commit.
type patient struct{ *txbackend.Backend }

func (p patient) Apply(ctx context.Context, ops []engine.Op) error {
	return p.Backend.Apply(context.WithoutCancel(ctx), ops)
}

// lockstep is one whose readers wait for commits.
type lockstep struct {
	*txbackend.Backend
	mu sync.Mutex
}

func (l *lockstep) Apply(ctx context.Context, ops []engine.Op) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Backend.Apply(ctx, ops)
}

func (l *lockstep) Read(ctx context.Context, key string) (*engine.Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.Backend.Read(ctx, key)
}

func TestStuckNoticesMutants(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	for name, c := range map[string]struct {
		faults faults
		says   string
	}{
		"shows what is under way":      {faults{showsEarly: true}, "Get of the key under way"},
		"keeps who waits for a place":  {faults{wraps: func(b *txbackend.Backend) engine.Backend { return patient{b} }}, "a queued claim whose context ends during a commit hangs"},
		"makes readers wait":           {faults{wraps: func(b *txbackend.Backend) engine.Backend { return &lockstep{Backend: b} }}, "during a commit hangs"},
		"answers before it is written": {faults{writesLater: true}, "Get of the key under way"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			k := stickyToy(c.faults, false, progress.Watch{Patience: time.Second}.Run)
			if c.faults.writesLater { // it has, once the claim can be seen
				open, reached := k.Open, k.Reached
				var store *idem.Store
				k.Open = func(o idem.Options) (Subject, error) {
					s, err := open(o)
					store = s.Store
					return s, err
				}
				k.Reached = func() {
					reached()
					for {
						if _, err := store.Get(context.Background(), "new"); err == nil {
							return
						}
						runtime.Gosched()
					}
				}
			}
			err := k.Run(context.Background())
			require.ErrorContains(t, err, c.says)
			t.Logf("%.200v", err)
		})
	}
}
