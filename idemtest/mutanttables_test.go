package idemtest_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"strings"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// storeMutants get wrong what is stored, and for how long.
var storeMutants = map[string]mutant{
	"no fence check": {fenced, []string{"a stale token changes nothing", "histories", "model"}, inside(func(b *toy) {
		first := map[string]*engine.Entry{}
		b.faults.decide = func(op engine.Op, cur *engine.Entry, err error) (*engine.Entry, bool) {
			next, changed := op.Run(cur, err)
			if old := first[op.Key()]; !changed && old != nil {
				if next, changed = op.Run(old, nil); op.Grants() {
					next, changed = op.Run(cur, err)
				}
			}
			if first[op.Key()] == nil {
				first[op.Key()] = next
			}
			return next, changed
		}
	})},
	"lease a nanosecond short": {exactExpiry, []string{"lease boundary", "model"}, showing(func(e *engine.Entry) { e.LeaseUntil-- })},
	"lease milliseconds long":  {exactExpiry, []string{"lease boundary", "histories", "model"}, showing(func(e *engine.Entry) { e.LeaseUntil += 3e6 })},
	"lease a nanosecond long":  {exactExpiry, []string{"lease boundary", "model"}, showing(func(e *engine.Entry) { e.LeaseUntil++ })},
	"retention a nanosecond long": {exactExpiry, []string{"retention boundary", "model"}, showing(func(e *engine.Entry) {
		if e.ExpiresAt != engine.Never {
			e.ExpiresAt++
		}
	})},
	"Forever overflows":  {exactExpiry, []string{"retention near the largest duration"}, showing(func(e *engine.Entry) { e.ExpiresAt++ })},
	"fingerprint lost":   {sameReplay, []string{"mismatch discloses nothing", "model"}, onOpen(func(e *engine.Entry) { e.Fingerprint = idem.Fingerprint{} })},
	"checkpoint lost":    {sameReplay, []string{"replay is byte-identical", "killed between operations", "model"}, onOpen(func(e *engine.Entry) { e.Checkpoint = nil })},
	"HoldUnknown lost":   {sameReplay, []string{"HoldUnknown", "model"}, onOpen(func(e *engine.Entry) { e.HoldUnknown = false })},
	"ResultDropped lost": {sameReplay, []string{"result over MaxResult", "model"}, onOpen(func(e *engine.Entry) { e.ResultDropped = false })},
	"Bound lost":         {sameReplay, []string{"Unclaim over a takeover keeps the fingerprint in force", "Backend keeps every field", "histories", "model"}, showing(func(e *engine.Entry) { e.Bound = false })},
	"reason lost": {sameReplay, []string{"a release's reason is kept until the record is final", "Backend keeps every field", "model"}, onOpen(func(e *engine.Entry) {
		if !e.State.Final() && e.State != idem.Held {
			e.Result = nil
		}
	})},
	"LostUntil lost": {failClosed, []string{"a request older than what was lost is too late", "Backend keeps Meta"}, inside(func(b *toy) {
		b.faults.save = func(_, now engine.Meta) engine.Meta { now.LostUntil = 0; return now }
	})},
	"backup without a mark": {copies, []string{"a restored backup says what it may have lost", "a backup restored while the clock is not set"}, inside(func(b *toy) {
		b.faults.unrestored = true
	})},
	"backup without records": {copies, []string{"a restored backup says what it may have lost", "a backup holds what was answered before it"}, inside(func(b *toy) {
		b.faults.emptied = true
	})},
	"read-only and does not say so": {onlyLooking, []string{"a store opened read-only answers and changes nothing"}, func(b *toy) engine.Backend {
		return binding{b, func(h engine.Host) (engine.Binding, error) {
			bound, err := b.Bind(h)
			bound.ReadOnly = false
			return bound, err
		}}
	}},
	"read-only and saves": {onlyLooking, []string{"closing a store opened read-only saves nothing"}, inside(func(b *toy) {
		b.faults.saves = b.readOnly
	})},
	"unfinished import forgotten": {failClosed, []string{"an import that was killed starts over", "Backend keeps Meta"}, inside(func(b *toy) {
		b.faults.save = func(_, now engine.Meta) engine.Meta { now.Importing = false; return now }
	})},
	"Secret lost": {observers, []string{"KeyHash is the store's own, and stays", "Backend keeps Meta"}, inside(func(b *toy) {
		b.faults.save = func(_, now engine.Meta) engine.Meta { now.Secret = [16]byte{}; return now }
	})},
	"wall clock goes back": {storeTime, []string{"the wall clock that is saved never goes back", "model"}, inside(func(b *toy) {
		b.faults.save = func(_, now engine.Meta) engine.Meta {
			now.Wall = b.wall()
			return now
		}
	})},
	"Attempt in a byte":   {sameReplay, []string{"Backend keeps every field"}, onOpen(func(e *engine.Entry) { e.Attempt &= 0xff })},
	"seconds on the disk": {sameReplay, []string{"no second grant after reopening"}, onOpen(func(e *engine.Entry) { e.LeaseUntil -= e.LeaseUntil % 1e9 })},
	"Epoch renewed":       {sameReplay, []string{"LapseOnOpen", "histories", "model"}, onOpen(func(e *engine.Entry) { e.Epoch++ })},
	"empty is nil": {sameReplay, []string{"replay is byte-identical", "model"}, onOpen(func(e *engine.Entry) {
		if len(e.Result) == 0 {
			e.Result = nil
		}
	})},
	"nil is empty": {sameReplay, []string{"replay is byte-identical", "model"}, showing(func(e *engine.Entry) {
		if e.Result == nil {
			e.Result = []byte{}
		}
	})},
	"result of another encoding": {sameReplay, []string{"replay is byte-identical"}, onOpen(func(e *engine.Entry) {
		e.Result = []byte(strings.ToValidUTF8(string(e.Result), "?"))
	})},
	"buffer used again": {sameReplay, []string{"replays are not written over"}, inside(func(b *toy) {
		buf := make([]byte, 1<<20)
		b.faults.show = func(e engine.Entry) *engine.Entry {
			if e.Result != nil {
				e.Result = buf[:copy(buf, e.Result)]
			}
			return &e
		}
	})},
	"last write lost": {durableFirst, []string{"no second grant after reopening", "histories", "model"}, func(b *toy) engine.Backend {
		before := maps.Clone(b.disk.records)
		b.faults.early = func(map[string]*engine.Entry, []engine.Op) { before = maps.Clone(b.disk.records) }
		return closing{b, func() error { b.disk.records = before; return b.Close() }}
	}},
	"removal lost": {fenced, []string{"a stale token changes nothing", "histories", "model"}, inside(func(b *toy) {
		removed := map[string][]byte{}
		b.faults.early = func(next map[string]*engine.Entry, _ []engine.Op) {
			maps.Copy(b.disk.records, removed) // those of the commit before are back
			clear(removed)
			for key, e := range next {
				if raw, ok := b.disk.records[key]; ok && e == nil {
					removed[key] = raw
				}
			}
		}
	})},
	"Meta never saved": {fenced, []string{"fences over many lives", "fences never repeat", "Backend keeps Meta", "model"}, inside(func(b *toy) {
		b.faults.save = func(before, _ engine.Meta) engine.Meta { return before }
	})},
	"Meta asked for before Run": {fenced, []string{"Backend keeps Meta"}, inside(func(b *toy) {
		b.faults.save = func(before, now engine.Meta) engine.Meta {
			now.Fence = max(before.Fence, now.Fence-1) // without the last
			return now
		}
	})},
	"time not saved at Close": {storeTime, []string{"wall clock steps across reopening", "boot in 1970", "model"}, func(b *toy) engine.Backend {
		return closing{b, func() error { b.closed = true; return nil }}
	}},
	"wall clock is the time": {storeTime, []string{"wall clock steps across reopening", "killed, then the clock steps", "model"}, inside(func(b *toy) {
		b.faults.save = func(_, now engine.Meta) engine.Meta {
			now.Time = engine.Instant(now.Wall)
			return now
		}
	})},
	"damage is absence": {failClosed, []string{"a damaged record"}, inside(func(b *toy) { clear(b.bad) })},
	"damage stops everything": {failClosed, []string{"a damaged record", "a damaged record does not stop the sweep"}, func(b *toy) engine.Backend {
		return applying{b, func(ctx context.Context, ops []engine.Op) error {
			for _, op := range ops {
				if _, err := b.Read(ctx, op.Key()); err != nil {
					return err
				}
			}
			return b.Apply(ctx, ops)
		}}
	}},
}

// commitMutants get commits wrong, and how they end.
var commitMutants = map[string]mutant{
	"visible before durable": {durableFirst, []string{"a completion under way is not seen", "a removal under way is not seen"}, inside(func(b *toy) {
		b.faults.early = func(next map[string]*engine.Entry, _ []engine.Op) {
			b.mu.Lock()
			defer b.mu.Unlock()
			for key, e := range next {
				if b.entries[key] = e; e == nil {
					delete(b.entries, key)
				}
			}
		}
	})},
	"told before durable": {durableFirst, []string{"a completion under way is not seen"}, inside(func(b *toy) {
		b.faults.early = func(_ map[string]*engine.Entry, ops []engine.Op) {
			for _, op := range ops {
				op.Committed()
			}
		}
	})},
	"answered before durable": {durableFirst, []string{"a claim under way is not seen"}, func(b *toy) engine.Backend {
		return applying{b, func(ctx context.Context, ops []engine.Op) error {
			done, over := make(chan error, 1), make(chan struct{})
			b.mu.Lock()
			if stall := b.stall; stall != nil {
				b.stall = func() {
					close(over)
					time.Sleep(50 * time.Millisecond) // the answer comes before the case looks for it
					stall()
				}
			}
			b.mu.Unlock()
			go func() { done <- b.Apply(ctx, ops) }()
			select {
			case err := <-done:
				return err
			case <-over: // Run is over, nothing is durable
				return nil
			}
		}}
	}},
	"readers wait for commits": {durableFirst, []string{"a claim under way is not seen"}, func(b *toy) engine.Backend { return slowReader{b} }},
	"read one commit late": {durableFirst, []string{"release, then claim", "histories", "model"}, func(b *toy) engine.Backend {
		late := &lateReader{toy: b, before: maps.Clone(b.entries)}
		b.faults.early = func(map[string]*engine.Entry, []engine.Op) {
			b.mu.Lock()
			defer b.mu.Unlock()
			late.before = maps.Clone(b.entries)
		}
		return late
	}},
	"grants twice at once": {oneOwner, []string{"one owner", "histories"}, func(b *toy) engine.Backend {
		return applying{b, func(ctx context.Context, ops []engine.Op) error {
			for _, op := range ops {
				cur, err := b.Read(ctx, op.Key())
				runtime.Gosched()
				if next, changed := op.Run(cur, err); changed {
					b.mu.Lock()
					b.entries[op.Key()] = next
					b.mu.Unlock()
				}
			}
			return ctx.Err()
		}}
	}},
	"ops do not see each other": {oneOwner, []string{"ClaimMany", "Backend runs ops of a commit in order", "model"}, inside(func(b *toy) {
		b.faults.decide = func(op engine.Op, _ *engine.Entry, err error) (*engine.Entry, bool) {
			cur, _ := b.Read(context.Background(), op.Key())
			return op.Run(cur, err)
		}
	})},
	"ops in another order": {oneOwner, []string{"ClaimMany", "Backend runs ops of a commit in order"}, inside(func(b *toy) { b.faults.reversed = true })},
	"a batch in many commits": {bounded, []string{"Backend tells of each commit"}, func(b *toy) engine.Backend {
		return applying{b, func(ctx context.Context, ops []engine.Op) error {
			for i := range ops {
				if err := b.Apply(ctx, ops[i:i+1]); err != nil {
					return err
				}
			}
			return nil
		}}
	}},
	"a commit half on the disk": {durableFirst, []string{"killed in mid-commit"}, inside(func(b *toy) {
		b.faults.early = func(next map[string]*engine.Entry, _ []engine.Op) {
			half := len(next) / 2
			b.disk.mu.Lock()
			defer b.disk.mu.Unlock()
			for key, e := range next {
				if half--; half >= 0 && e != nil {
					b.disk.records[key] = encodeToy(key, e)
				}
			}
		}
	})},
	"Committed forgotten": {durableFirst, []string{"Wait until settled"}, inside(func(b *toy) { b.faults.mute = true })},
	"Committed backwards": {durableFirst, []string{"Backend calls Committed in the order of Run"}, inside(func(b *toy) { b.faults.backwards = true })},
	"deaf to ctx":         {cancellation, []string{"cancelled while queued", "Backend heeds a ctx that ended"}, inside(func(b *toy) { b.faults.deaf = true })},
	"ctx denies what is done": {cancellation, []string{"cancelled after joining a commit", "histories"}, func(b *toy) engine.Backend {
		return applying{b, func(ctx context.Context, ops []engine.Op) error {
			return errors.Join(b.Apply(ctx, ops), ctx.Err())
		}}
	}},
	"goes on after a failed commit": {errorUnknown, []string{"a failed commit breaks the store", "a commit fails in traffic"}, func(b *toy) engine.Backend {
		return applying{b, func(ctx context.Context, ops []engine.Op) error {
			b.mu.Lock()
			b.host.Broken = func(error) {}
			b.mu.Unlock()
			err := b.Apply(ctx, ops)
			b.mu.Lock()
			defer b.mu.Unlock()
			b.broken = nil
			return err
		}}
	}},
	"a failed commit is nil": {errorUnknown, []string{"a failed commit breaks the store", "a broken store wakes Wait"}, func(b *toy) engine.Backend {
		return applying{b, func(ctx context.Context, ops []engine.Op) error {
			b.mu.Lock()
			b.host.Broken = func(error) {}
			b.mu.Unlock()
			if err := b.Apply(ctx, ops); !errors.Is(err, idem.ErrBroken) {
				return err
			}
			return nil
		}}
	}},
	"does not tell that it is broken": {errorUnknown, []string{"a broken store wakes Wait"}, func(b *toy) engine.Backend {
		return binding{b, func(h engine.Host) (engine.Binding, error) {
			h.Broken = func(error) {}
			return b.Bind(h)
		}}
	}},
	"does not tell of commits": {bounded, []string{"Backend tells of each commit"}, func(b *toy) engine.Backend {
		return binding{b, func(h engine.Host) (engine.Binding, error) {
			h.Group = func(int, time.Duration) {}
			return b.Bind(h)
		}}
	}},
	"tells of commits under a lock": {observers, []string{"observers run under no lock"}, func(b *toy) engine.Backend {
		return binding{b, func(h engine.Host) (engine.Binding, error) {
			group := h.Group
			h.Group = func(ops int, took time.Duration) {
				b.mu.Lock()
				defer b.mu.Unlock()
				group(ops, took)
			}
			return b.Bind(h)
		}}
	}},
	"no lock":     {oneOwner, []string{"Open locks"}, inside(func(b *toy) { b.disk.open.Add(-1) })},
	"kept locked": {oneOwner, []string{"Open locks"}, inside(func(b *toy) { b.disk.open.Add(1) })},
	"bound twice": {oneOwner, []string{"Backend is bound once"}, inside(func(b *toy) { b.faults.bindTwice = true })},
	"Close hangs": {bounded, []string{"everything after Close"}, func(b *toy) engine.Backend { return closing{b, func() error { select {} }} }},
	"Close hangs broken": {errorUnknown, []string{"a failed commit breaks the store"}, func(b *toy) engine.Backend {
		return closing{b, func() error {
			if b.broken != nil {
				select {}
			}
			return b.Close()
		}}
	}},
	"a goroutine stays": {bounded, []string{"everything after Close", "completing twice"}, inside(func(*toy) { go func() { select {} }() })},
	"usable when closed": {bounded, []string{"everything after Close"}, func(b *toy) engine.Backend {
		return closing{b, func() error { err := b.Close(); b.closed, b.bound = false, false; return err }}
	}},
}

// effectMutants get same-commit functions wrong.
var effectMutants = map[string]mutant{
	"keeps what a failed function wrote": {sameCommit, []string{"a failure counts where attempts are limited", "a permanent failure comes before anything else of its key"}, inside(func(b *toy) {
		b.faults.dirty = true
	})},
	"forgets that a function failed": {sameCommit, []string{"a failure counts where attempts are limited", "a permanent error is final"}, inside(func(b *toy) {
		b.faults.forgetful = true
	})},
	"lets a function call its store": {sameCommit, []string{"a function's context"}, inside(func(b *toy) { b.faults.unmarked = true })},
	"runs a function until it works": {sameCommit, []string{"a function runs three times at most"}, inside(func(b *toy) { b.faults.stubborn = true })},
}

// listingMutants get capacity, listing and the expiry index wrong.
var listingMutants = map[string]mutant{
	"evicts": {nothingEvicted, []string{"nothing is evicted"}, inside(func(b *toy) {
		b.faults.decide = func(op engine.Op, cur *engine.Entry, err error) (*engine.Entry, bool) {
			next, changed := op.Run(cur, err)
			b.mu.Lock()
			defer b.mu.Unlock()
			if op.Grants() && b.limit > 0 && len(b.entries) >= b.limit {
				for key := range b.entries { // to make room for the next
					delete(b.entries, key)
					break
				}
			}
			return next, changed
		}
	})},
	"token operations refused when full": {roomAtClaim, []string{"a full store refuses new claims only"}, inside(func(b *toy) {
		b.faults.decide = func(op engine.Op, cur *engine.Entry, err error) (*engine.Entry, bool) {
			next, changed := op.Run(cur, err)
			if changed && next != nil && b.limit > 0 && len(b.entries) >= b.limit && !op.Grants() {
				op.Refuse(fmt.Errorf("%w: no more", idem.ErrFull))
				return cur, false
			}
			return next, changed
		}
	})},
	"no bound":                  {bounded, []string{"a full store refuses new claims only"}, inside(func(b *toy) { b.limit = 0 })},
	"has room when it is full":  {roomAtClaim, []string{"Health of a full store"}, func(b *toy) engine.Backend { return healthy{b} }},
	"expired records keep room": {nothingEvicted, []string{"expired records make room"}, func(b *toy) engine.Backend { return noPlaces{b} }},
	"sweep removes the live": {exactExpiry, []string{"sweep races the key's own operations", "retention counts from completion", "histories", "model"}, inside(func(b *toy) {
		b.faults.decide = func(op engine.Op, cur *engine.Entry, err error) (*engine.Entry, bool) {
			next, changed := op.Run(cur, err)
			if op.Due() != 0 {
				return nil, true
			}
			return next, changed
		}
	})},
	"sweep removes nothing": {exactExpiry, []string{"at most limit, in time order", "model"}, inside(func(b *toy) {
		b.faults.decide = func(op engine.Op, cur *engine.Entry, err error) (*engine.Entry, bool) {
			next, changed := op.Run(cur, err)
			return next, changed && op.Due() == 0
		}
	})},
	"index loses what lives on": {exactExpiry, []string{"sweep races the key's own operations"}, inside(func(b *toy) {
		b.faults.decide = func(op engine.Op, cur *engine.Entry, err error) (*engine.Entry, bool) {
			next, changed := op.Run(cur, err)
			if op.Due() != 0 && next != nil {
				e := *next
				e.Due = 0
				return &e, true
			}
			return next, changed
		}
	})},
	"index lost on reopening": {exactExpiry, []string{"at most limit, in time order", "killed between operations"}, inside(func(b *toy) { b.places = nil })},
	"index out of order": {exactExpiry, []string{"Expirer keeps the order of Due", "at most limit, in time order"}, func(b *toy) engine.Backend {
		return byKey{b}
	}},
	"index ignores until":          {exactExpiry, []string{"Expirer keeps the order of Due"}, func(b *toy) engine.Backend { return allPlaces{b} }},
	"scan returns a record twice":  {nothingEvicted, []string{"Scanner returns each entry once", "each record once during writes"}, func(b *toy) engine.Backend { return scanTwice{b} }},
	"scan goes by position":        {nothingEvicted, []string{"Scanner returns each entry once"}, func(b *toy) engine.Backend { return scanByPosition{b} }},
	"scan holds up writers":        {bounded, []string{"the loop body may use the store"}, func(b *toy) engine.Backend { return &scanLocked{toy: b} }},
	"scan shows keys that are not": {nothingEvicted, []string{"any key", "model"}, func(b *toy) engine.Backend { return scanText{b} }},
}
