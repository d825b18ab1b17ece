package main

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/progress"
	"github.com/idemkv/idem/internal/robustness"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/memory"
)

// open opens the engine's store, which outlives the call in all but the memory
// engine. What is rare in small stores is to happen: maps that grow, flushes,
// compactions.
func (r *run) open() (err error) {
	o := idem.Options{Retention: r.retention, SweepInterval: r.sweep, Clock: r.clock}
	if r.engine == "memory" {
		r.subject, err = onMemory(o)
	} else {
		r.subject, err = robustness.Open(r.engine, filepath.Join(r.dir, "store"), robustness.Sizes{Map: 1 << 20, MemTable: 1 << 20}, o)
	}
	r.store = r.subject.Store
	return err
}

// finish holds what is left to the rules: what was completed replays exactly, the
// effects are as many as were acknowledged, fences rise; all this again after the
// store was opened anew; and a closed store leaves no goroutine, of before many.
func (r *run) finish(before int) error {
	r.checkReplays()
	r.checkEffects()
	r.checkFence()
	if r.engine != "memory" {
		if err := r.store.Close(); err != nil {
			return fmt.Errorf("closing the %s store: %w", r.engine, err)
		}
		if err := r.open(); err != nil {
			return fmt.Errorf("opening the %s store again: %w", r.engine, err)
		}
		r.checkReplays()
		r.checkEffects()
		r.checkFence()
	}
	if err := r.store.Close(); err != nil {
		return fmt.Errorf("closing the %s store: %w", r.engine, err)
	}
	r.checkGoroutines(before)
	return nil
}

// checkReplays claims what was finished: keys that must have been kept for long, and
// recent ones, which may have expired.
func (r *run) checkReplays() {
	ctx := context.Background()
	kept := r.kept.all()
	if len(kept) == 0 {
		r.trouble.add("no key was kept for the end: the run was too short")
	}
	for _, key := range kept {
		c, err := r.store.Claim(ctx, idem.Request{Key: key})
		if err != idem.ErrCompleted {
			r.trouble.add("key %q was completed with a retention of %v, and now gets %v", key, keptRetention, err)
		} else if err := badReplay(key, c.Record); err != nil {
			r.trouble.add("%v", err)
		}
	}
	for _, f := range r.recent.all() {
		key := f.key
		rec, err := r.store.Get(ctx, key)
		if errors.Is(err, idem.ErrNotFound) {
			continue
		}
		if err != nil {
			r.trouble.add("key %q: %v", key, err)
		} else if rec.State.Final() {
			if err := badReplay(key, rec); err != nil {
				r.trouble.add("%v", err)
			}
		}
	}
}

func (r *run) checkEffects() {
	sum := uint64(0)
	err := r.subject.Own(func(key string, value []byte) { sum += binary.BigEndian.Uint64(value) })
	if err != nil || sum != uint64(r.effects.Load()) {
		r.trouble.add("%d effects were acknowledged, the accounts have %d (%v)", r.effects.Load(), sum, err)
	}
}

func (r *run) checkFence() {
	known := r.fence.Load()
	c, err := r.store.Claim(context.Background(), idem.Request{Key: fmt.Sprint("the last claim, above ", known)})
	if err != nil || c.Token.Fence <= known {
		r.trouble.add("a new claim got fence %d, %v, when %d was known already", c.Token.Fence, err, known)
	}
	r.fence.Store(max(known, c.Token.Fence))
}

// checkGoroutines gives goroutines that have nothing left to do time to end.
func (r *run) checkGoroutines(before int) {
	stall := progress.Watch{Patience: 10 * time.Second}.Start()
	defer stall.Stop()
	for ; runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		select {
		default:
		case <-stall.Stalled():
			r.trouble.add("%d goroutines were there before the store, %d after it was closed", before, runtime.NumGoroutine())
			return
		}
	}
}

// ledger is what stands for the caller's own data where the engine has no commits.
type ledger map[string][]byte

func (l ledger) Get(key string) []byte        { return l[key] }
func (l ledger) Put(key string, value []byte) { l[key] = slices.Clone(value) }

func onMemory(o idem.Options) (oracle.Subject, error) {
	store, err := idem.New(memory.New(memory.Options{}), o)
	if err != nil {
		return oracle.Subject{}, err
	}
	var mu sync.Mutex
	own := ledger{}
	return oracle.Subject{
		Store: store,
		Do: func(ctx context.Context, r idem.Request, fn oracle.Effect) ([]byte, bool, error) {
			return idem.Do(ctx, store, r, func(context.Context, idem.Claim) ([]byte, error) {
				mu.Lock()
				defer mu.Unlock()
				return fn(own)
			})
		},
		Own: func(yield func(string, []byte)) error {
			for key, value := range own {
				yield(key, value)
			}
			return nil
		},
	}, nil
}
