package oracle

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/progress"
	"github.com/idemkv/idem/internal/race"
)

// hungToy is a Hung on a toy that is locked once it was opened.
func hungToy(early bool) *Hung {
	disk := newToyDisk(faults{}, rand.New(rand.NewPCG(1, 4)))
	reached, free := make(chan struct{}), make(chan struct{})
	var once, end sync.Once
	var opened atomic.Bool
	clock := NewClock(0)
	return &Hung{
		Trial: Trial{
			Journal: NewJournal(clock), Clock: clock,
			Open: func(o idem.Options) (Subject, error) {
				if opened.Swap(true) {
					return Subject{}, idem.ErrLocked
				}
				return disk.Open(o)
			},
			Load:  &Workload{Seed: 1, Keys: 8, Workers: 6, Lease: time.Millisecond, Retention: time.Second, MaxBytes: 100},
			Watch: progress.Watch{Patience: 3 * time.Second}.Run,
		},
		Stall: 100 * time.Millisecond, Early: early,
		Stick: func() {
			disk.OnWrite(func() {
				once.Do(func() { close(reached) })
				<-free
			})
		},
		Reached:   func() { <-reached },
		Release:   func() { end.Do(func() { close(free) }) },
		Elsewhere: func() error { return nil },
	}
}

func TestHungHealthyStore(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	for _, early := range []bool{false, true} {
		h := hungToy(early)
		require.NoError(t, h.Run(context.Background()), "early: %v", early)
		c := NewChecker()
		c.Load(h.Journal.Events())
		require.NoError(t, c.All())
	}
}

func TestHungNoticesMutants(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	for name, c := range map[string]struct {
		change func(h *Hung)
		says   string
	}{
		"waits for ever": {func(h *Hung) { h.Stall = -1 }, "the traffic hangs"},
		"drops its lock": {func(h *Hung) {
			open := h.Open
			h.Open = func(o idem.Options) (Subject, error) {
				s, err := open(o)
				if errors.Is(err, idem.ErrLocked) {
					err = nil
				}
				return s, err
			}
		}, "opening the store again"},
		"lets another process in": {func(h *Hung) { h.Elsewhere = func() error { return errors.New("opened") } }, "opened"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := hungToy(false)
			defer h.Release()
			c.change(h)
			require.ErrorContains(t, h.Run(context.Background()), c.says)
		})
	}
}
