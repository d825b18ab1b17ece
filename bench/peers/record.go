package peers

import (
	"sync/atomic"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// The bytes that idem writes: bare engines and the limit write the same ones, made
// by the same code, so that a ratio to them is about everything else that idem
// does. A claim of a new key writes its record, one place in the expiry index and,
// once a commit, the meta entry; a completion writes the record and the meta entry.

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

// granted is the entry of a first claim at now.
func (s *stamps) granted(now engine.Instant) engine.Entry {
	return engine.Entry{
		State:      idem.InFlight,
		Attempt:    1,
		Fence:      s.fence.Add(1),
		Opening:    1,
		ClaimedAt:  now,
		LeaseUntil: now + engine.Instant(lease),
		ExpiresAt:  now + engine.Instant(lease+retention),
		Due:        now + engine.Instant(retention),
		Lease:      lease,
		Retention:  retention,
	}
}

// complete turns e into the entry of its completion at now. Its place in the index
// stays: a completion writes none.
func complete(e *engine.Entry, now engine.Instant, result []byte) {
	e.State, e.Result, e.FinishedAt = idem.Completed, result, now
	e.ExpiresAt = now + engine.Instant(retention)
}

// meta is the value of the meta entry of a commit at now.
func (s *stamps) meta(dst []byte, now engine.Instant) []byte {
	return codec.AppendMeta(dst, engine.Meta{Time: now, Wall: int64(now), Fence: s.fence.Load(), Opening: 1})
}

func instant() engine.Instant { return engine.Instant(time.Now().UnixNano()) }

// step is what one of the two steps of a cycle writes. A worker has one and uses
// it again: what is given a step must not keep it.
type step struct {
	key   string
	value []byte // of the record
	place []byte // in the expiry index; nil: none
	entry engine.Entry

	_ [64]byte // workers do not share cache lines
}

// claim makes the step the claim of key.
func (t *step) claim(s *stamps, key string) {
	t.entry = s.granted(instant())
	t.key = key
	t.value = codec.AppendRecord(t.value[:0], key, &t.entry)
	t.place = codec.AppendPlace(t.place[:0], engine.Due{At: t.entry.Due, Key: key})
}

// complete makes the step the completion of the claim that it was.
func (t *step) complete(result []byte) {
	complete(&t.entry, instant(), result)
	t.value = codec.AppendRecord(t.value[:0], t.key, &t.entry)
	t.place = t.place[:0]
}
