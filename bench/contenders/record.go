package contenders

import (
	"sync/atomic"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// The bytes that idem writes. Bare engines and the limit write the same ones, made by
// the same code: a ratio to them is about everything else that idem does. A claim of a
// new key writes its record, one place in the expiry index and, once a commit, the meta
// entry; a completion writes the record and the meta entry.

// The durations of a store that is opened with the zero Options.
const (
	lease     = 30 * time.Second
	retention = 24 * time.Hour
)

// stamps are the fences of a contender.
type stamps struct{ fence atomic.Uint64 }

func newStamps() *stamps {
	s := &stamps{}
	s.fence.Store(uint64(time.Now().UnixMicro()))
	return s
}

// meta is the value of the meta entry of a commit now.
func (s *stamps) meta(dst []byte) []byte {
	now := time.Now().UnixNano()
	return codec.AppendMeta(dst, engine.Meta{Time: engine.Instant(now), Wall: now, Fence: s.fence.Load(), Epoch: 1})
}

// step is what one of the two steps of a cycle writes. A worker has one and uses it
// again: what is given a step must not keep it.
type step struct {
	key   string
	value []byte // of the record
	place []byte // in the expiry index; empty: none
	entry engine.Entry

	_ [64]byte // workers do not share cache lines
}

// claim makes the step the claim of key.
func (t *step) claim(s *stamps, key string) {
	now := engine.Instant(time.Now().UnixNano())
	t.key = key
	t.entry = engine.Entry{
		State: idem.InFlight, Attempt: 1, Fence: s.fence.Add(1), Epoch: 1,
		ClaimedAt: now, LeaseUntil: now + engine.Instant(lease), ExpiresAt: now + engine.Instant(lease+retention),
		Due: now + engine.Instant(retention), Lease: lease, Retention: retention,
	}
	t.value = codec.AppendRecord(t.value[:0], key, &t.entry)
	t.place = codec.AppendPlace(t.place[:0], engine.Due{At: t.entry.Due, Key: key})
}

// complete makes the step the completion of the claim that it was. Its place in the
// index stays: a completion writes none.
func (t *step) complete(result []byte) {
	now := engine.Instant(time.Now().UnixNano())
	t.entry.State, t.entry.Result, t.entry.FinishedAt = idem.Completed, result, now
	t.entry.ExpiresAt = now + engine.Instant(retention)
	t.value = codec.AppendRecord(t.value[:0], t.key, &t.entry)
	t.place = t.place[:0]
}

// cycles is an instance for CycleDurable: each operation makes the claim of a new key
// and its completion durable with commit, one after the other.
func cycles(w Workload, s *stamps, commit func(*step) error, closing func() error) (Instance, error) {
	steps, result := make([]step, w.Callers), w.Result()
	return Instance{
		Op: func(worker int, n uint64) error {
			t := &steps[worker]
			t.claim(s, Fresh(worker, n))
			if err := commit(t); err != nil {
				return err
			}
			t.complete(result)
			return commit(t)
		},
		Close: closing,
	}, nil
}

// Rivals that have no record of their own make a cycle of two calls.
func claimsAndCompletions(w Workload, closing func() error, claim func(key string) error, complete func(key string, result []byte) error) (Instance, error) {
	result := w.Result()
	return Instance{
		Op: func(worker int, n uint64) error {
			key := Fresh(worker, n)
			if err := claim(key); err != nil {
				return err
			}
			return complete(key, result)
		},
		Close: closing,
	}, nil
}
