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
	"no fence check": {2, []string{"a stale token changes nothing", "histories", "model"}, inside(func(b *toy) {
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
	"lease a nanosecond short": {7, []string{"lease boundary", "model"}, showing(func(e *engine.Entry) { e.LeaseUntil-- })},
	"lease milliseconds long":  {7, []string{"lease boundary", "histories", "model"}, showing(func(e *engine.Entry) { e.LeaseUntil += 3e6 })},
	"lease a nanosecond long":  {7, []string{"lease boundary", "model"}, showing(func(e *engine.Entry) { e.LeaseUntil++ })},
	"retention a nanosecond long": {7, []string{"retention boundary", "model"}, showing(func(e *engine.Entry) {
		if e.ExpiresAt != engine.Never {
			e.ExpiresAt++
		}
	})},
	"Forever overflows":  {7, []string{"retention near the largest duration"}, showing(func(e *engine.Entry) { e.ExpiresAt++ })},
	"fingerprint lost":   {9, []string{"mismatch discloses nothing", "model"}, onOpen(func(e *engine.Entry) { e.Fingerprint = idem.Fingerprint{} })},
	"checkpoint lost":    {9, []string{"replay is byte-identical", "killed between operations", "model"}, onOpen(func(e *engine.Entry) { e.Checkpoint = nil })},
	"HoldUnknown lost":   {9, []string{"HoldUnknown", "model"}, onOpen(func(e *engine.Entry) { e.HoldUnknown = false })},
	"ResultDropped lost": {9, []string{"result over MaxResult", "model"}, onOpen(func(e *engine.Entry) { e.ResultDropped = false })},
	"Bound lost":         {14, []string{"Unclaim over a takeover keeps the fingerprint in force", "Backend keeps every field", "histories", "model"}, showing(func(e *engine.Entry) { e.Bound = false })},
	"reason lost": {9, []string{"a release's reason is kept until the record is final", "Backend keeps every field", "model"}, onOpen(func(e *engine.Entry) {
		if !e.State.Final() && e.State != idem.Held {
			e.Result = nil
		}
	})},
	"LostUntil lost": {5, []string{"a request older than what was lost is too late", "Backend keeps Meta"}, inside(func(b *toy) {
		b.faults.save = func(_, now engine.Meta) engine.Meta { now.LostUntil = 0; return now }
	})},
	"Secret lost": {13, []string{"KeyHash is the store's own, and stays", "Backend keeps Meta"}, inside(func(b *toy) {
		b.faults.save = func(_, now engine.Meta) engine.Meta { now.Secret = [16]byte{}; return now }
	})},
	"wall clock goes back": {10, []string{"the wall clock that is saved never goes back", "model"}, inside(func(b *toy) {
		b.faults.save = func(_, now engine.Meta) engine.Meta {
			now.Wall = b.wall()
			return now
		}
	})},
	"Attempt in a byte":   {9, []string{"Backend keeps every field"}, onOpen(func(e *engine.Entry) { e.Attempt &= 0xff })},
	"seconds on the disk": {9, []string{"no second grant after reopening"}, onOpen(func(e *engine.Entry) { e.LeaseUntil -= e.LeaseUntil % 1e9 })},
	"Opening renewed":     {9, []string{"LapseOnOpen", "histories", "model"}, onOpen(func(e *engine.Entry) { e.Epoch++ })},
	"empty is nil": {9, []string{"replay is byte-identical", "model"}, onOpen(func(e *engine.Entry) {
		if len(e.Result) == 0 {
			e.Result = nil
		}
	})},
	"nil is empty": {9, []string{"replay is byte-identical", "model"}, showing(func(e *engine.Entry) {
		if e.Result == nil {
			e.Result = []byte{}
		}
	})},
	"result of another encoding": {9, []string{"replay is byte-identical"}, onOpen(func(e *engine.Entry) {
		e.Result = []byte(strings.ToValidUTF8(string(e.Result), "?"))
	})},
	"buffer used again": {9, []string{"replays are not written over"}, inside(func(b *toy) {
		buf := make([]byte, 1<<20)
		b.faults.show = func(e engine.Entry) *engine.Entry {
			if e.Result != nil {
				e.Result = buf[:copy(buf, e.Result)]
			}
			return &e
		}
	})},
	"last write lost": {3, []string{"no second grant after reopening", "histories", "model"}, func(b *toy) engine.Backend {
		before := maps.Clone(b.disk.records)
		b.faults.early = func(map[string]*engine.Entry, []engine.Op) { before = maps.Clone(b.disk.records) }
		return closing{b, func() error { b.disk.records = before; return b.Close() }}
	}},
	"removal lost": {2, []string{"a stale token changes nothing", "histories", "model"}, inside(func(b *toy) {
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
	"Meta never saved": {2, []string{"fences over many lives", "fences never repeat", "Backend keeps Meta", "model"}, inside(func(b *toy) {
		b.faults.save = func(before, _ engine.Meta) engine.Meta { return before }
	})},
	"Meta asked for before Run": {2, []string{"Backend keeps Meta"}, inside(func(b *toy) {
		b.faults.save = func(before, now engine.Meta) engine.Meta {
			now.Fence = max(before.Fence, now.Fence-1) // without the last
			return now
		}
	})},
	"time not saved at Close": {10, []string{"wall clock steps across reopening", "boot in 1970", "model"}, func(b *toy) engine.Backend {
		return closing{b, func() error { b.closed = true; return nil }}
	}},
	"wall clock is the time": {10, []string{"wall clock steps across reopening", "killed, then the clock steps", "model"}, inside(func(b *toy) {
		b.faults.save = func(_, now engine.Meta) engine.Meta {
			now.Time = engine.Instant(now.Wall)
			return now
		}
	})},
	"damage is absence": {5, []string{"a damaged record"}, inside(func(b *toy) { clear(b.bad) })},
	"damage stops everything": {5, []string{"a damaged record", "a damaged record does not stop the sweep"}, func(b *toy) engine.Backend {
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
	"visible before durable": {3, []string{"rule 3 a completion under way is not seen", "rule 3 a removal under way is not seen"}, inside(func(b *toy) {
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
	"told before durable": {3, []string{"rule 3 a completion under way is not seen"}, inside(func(b *toy) {
		b.faults.early = func(_ map[string]*engine.Entry, ops []engine.Op) {
			for _, op := range ops {
				op.Committed()
			}
		}
	})},
	"answered before durable": {3, []string{"rule 3 a claim under way is not seen"}, func(b *toy) engine.Backend {
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
	"readers wait for commits": {3, []string{"rule 3 a claim under way is not seen"}, func(b *toy) engine.Backend { return slowReader{b} }},
	"read one commit late": {3, []string{"release, then claim", "histories", "model"}, func(b *toy) engine.Backend {
		late := &lateReader{toy: b, before: maps.Clone(b.entries)}
		b.faults.early = func(map[string]*engine.Entry, []engine.Op) {
			b.mu.Lock()
			defer b.mu.Unlock()
			late.before = maps.Clone(b.entries)
		}
		return late
	}},
	"grants twice at once": {1, []string{"one owner", "histories"}, func(b *toy) engine.Backend {
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
	"ops do not see each other": {1, []string{"ClaimMany", "Backend runs ops of a commit in order", "model"}, inside(func(b *toy) {
		b.faults.decide = func(op engine.Op, _ *engine.Entry, err error) (*engine.Entry, bool) {
			cur, _ := b.Read(context.Background(), op.Key())
			return op.Run(cur, err)
		}
	})},
	"ops in another order": {1, []string{"ClaimMany", "Backend runs ops of a commit in order"}, inside(func(b *toy) { b.faults.reversed = true })},
	"a batch in many commits": {12, []string{"Backend tells of each commit"}, func(b *toy) engine.Backend {
		return applying{b, func(ctx context.Context, ops []engine.Op) error {
			for i := range ops {
				if err := b.Apply(ctx, ops[i:i+1]); err != nil {
					return err
				}
			}
			return nil
		}}
	}},
	"a commit half on the disk": {3, []string{"killed in mid-commit"}, inside(func(b *toy) {
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
	"Committed forgotten": {3, []string{"Wait until settled"}, inside(func(b *toy) { b.faults.mute = true })},
	"deaf to ctx":         {11, []string{"rule 11 cancelled while queued", "Backend heeds a ctx that ended"}, inside(func(b *toy) { b.faults.deaf = true })},
	"ctx denies what is done": {11, []string{"rule 11 cancelled after joining a commit", "histories"}, func(b *toy) engine.Backend {
		return applying{b, func(ctx context.Context, ops []engine.Op) error {
			return errors.Join(b.Apply(ctx, ops), ctx.Err())
		}}
	}},
	"goes on after a failed commit": {4, []string{"rule 4 a failed commit breaks the store", "rule 4 a commit fails in traffic"}, func(b *toy) engine.Backend {
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
	"a failed commit is nil": {4, []string{"rule 4 a failed commit breaks the store", "a broken store wakes Wait"}, func(b *toy) engine.Backend {
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
	"does not tell that it is broken": {4, []string{"a broken store wakes Wait"}, func(b *toy) engine.Backend {
		return binding{b, func(h engine.Host) (engine.Binding, error) {
			h.Broken = func(error) {}
			return b.Bind(h)
		}}
	}},
	"does not tell of commits": {12, []string{"Backend tells of each commit"}, func(b *toy) engine.Backend {
		return binding{b, func(h engine.Host) (engine.Binding, error) {
			h.Group = func(int, time.Duration) {}
			return b.Bind(h)
		}}
	}},
	"tells of commits under a lock": {13, []string{"rule 13 observers run under no lock"}, func(b *toy) engine.Backend {
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
	"no lock":     {1, []string{"Open locks"}, inside(func(b *toy) { b.disk.open.Add(-1) })},
	"kept locked": {1, []string{"Open locks"}, inside(func(b *toy) { b.disk.open.Add(1) })},
	"bound twice": {1, []string{"Backend is bound once"}, inside(func(b *toy) { b.faults.bindTwice = true })},
	"Close hangs": {12, []string{"everything after Close"}, func(b *toy) engine.Backend { return closing{b, func() error { select {} }} }},
	"Close hangs broken": {4, []string{"rule 4 a failed commit breaks the store"}, func(b *toy) engine.Backend {
		return closing{b, func() error {
			if b.broken != nil {
				select {}
			}
			return b.Close()
		}}
	}},
	"a goroutine stays": {12, []string{"everything after Close", "completing twice"}, inside(func(*toy) { go func() { select {} }() })},
	"usable when closed": {12, []string{"everything after Close"}, func(b *toy) engine.Backend {
		return closing{b, func() error { err := b.Close(); b.closed, b.bound = false, false; return err }}
	}},
}

// effectMutants get same-commit functions wrong.
var effectMutants = map[string]mutant{
	"keeps what a failed function wrote": {3, []string{"a failure counts where attempts are limited", "a permanent failure comes before anything else of its key"}, inside(func(b *toy) {
		b.faults.dirty = true
	})},
	"forgets that a function failed": {14, []string{"a failure counts where attempts are limited", "a permanent error is final"}, inside(func(b *toy) {
		b.faults.forgetful = true
	})},
	"lets a function call its store": {12, []string{"a function's context"}, inside(func(b *toy) { b.faults.unmarked = true })},
	"runs a function until it works": {12, []string{"a function runs three times at most"}, inside(func(b *toy) { b.faults.stubborn = true })},
}

// listingMutants get capacity, listing and the expiry index wrong.
var listingMutants = map[string]mutant{
	"evicts": {8, []string{"rule 8 nothing is evicted"}, inside(func(b *toy) {
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
	"token operations refused when full": {6, []string{"a full store refuses new claims only"}, inside(func(b *toy) {
		b.faults.decide = func(op engine.Op, cur *engine.Entry, err error) (*engine.Entry, bool) {
			next, changed := op.Run(cur, err)
			if changed && next != nil && b.limit > 0 && len(b.entries) >= b.limit && !op.Grants() {
				op.Refuse(fmt.Errorf("%w: no more", idem.ErrFull))
				return cur, false
			}
			return next, changed
		}
	})},
	"no bound":                  {12, []string{"a full store refuses new claims only"}, inside(func(b *toy) { b.limit = 0 })},
	"has room when it is full":  {6, []string{"Health of a full store"}, func(b *toy) engine.Backend { return healthy{b} }},
	"expired records keep room": {8, []string{"expired records make room"}, func(b *toy) engine.Backend { return noPlaces{b} }},
	"sweep removes the live": {7, []string{"sweep races the key's own operations", "retention counts from completion", "histories", "model"}, inside(func(b *toy) {
		b.faults.decide = func(op engine.Op, cur *engine.Entry, err error) (*engine.Entry, bool) {
			next, changed := op.Run(cur, err)
			if op.Due() != 0 {
				return nil, true
			}
			return next, changed
		}
	})},
	"sweep removes nothing": {7, []string{"at most limit, in time order", "model"}, inside(func(b *toy) {
		b.faults.decide = func(op engine.Op, cur *engine.Entry, err error) (*engine.Entry, bool) {
			next, changed := op.Run(cur, err)
			return next, changed && op.Due() == 0
		}
	})},
	"index loses what lives on": {7, []string{"sweep races the key's own operations"}, inside(func(b *toy) {
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
	"index lost on reopening": {7, []string{"at most limit, in time order", "killed between operations"}, inside(func(b *toy) { b.places = nil })},
	"index out of order": {7, []string{"Expirer keeps the order of Due", "at most limit, in time order"}, func(b *toy) engine.Backend {
		return byKey{b}
	}},
	"index ignores until":          {7, []string{"Expirer keeps the order of Due"}, func(b *toy) engine.Backend { return allPlaces{b} }},
	"scan returns a record twice":  {8, []string{"Scanner returns each entry once", "each record once during writes"}, func(b *toy) engine.Backend { return scanTwice{b} }},
	"scan goes by position":        {8, []string{"Scanner returns each entry once"}, func(b *toy) engine.Backend { return scanByPosition{b} }},
	"scan holds up writers":        {12, []string{"the loop body may use the store"}, func(b *toy) engine.Backend { return &scanLocked{toy: b} }},
	"scan shows keys that are not": {8, []string{"any key", "model"}, func(b *toy) engine.Backend { return scanText{b} }},
}
