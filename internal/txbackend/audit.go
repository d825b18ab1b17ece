package txbackend

import (
	"bytes"
	"errors"
	"fmt"
	"hash/maphash"
	"time"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// Audit checks all pairs of one commit, each by itself and against the others. It keeps
// sums instead of pairs, so a store of any size fits.
type Audit struct {
	hash   func(key string) string
	report func(engine.Damage)
	found  int // damage reported

	meta           *engine.Meta
	metas          int
	fence, epoch   uint64 // the highest of all records
	records, index places
	seed           maphash.Seed
	place          []byte
}

// places is a set of index places, as its size and a sum of hashes. Two sets that differ
// have different ones, but for one chance in 2^64.
type places struct{ n, sum uint64 }

// expiryIndex is what Damage calls the index.
const expiryIndex = "expiry index"

// maxAhead is how far the saved wall clock may be ahead without being reported.
const maxAhead = 24 * time.Hour

// NewAudit returns an Audit that calls report for each damage.
func (b *Backend) NewAudit(report func(engine.Damage)) *Audit {
	return &Audit{hash: b.keyHash, report: report, seed: maphash.MakeSeed()}
}

// keyHash returns the hash of key; "" before Bind.
func (b *Backend) keyHash(key string) string {
	if h := b.host.Load(); h != nil && h.KeyHash != nil {
		return h.KeyHash(key)
	}
	return ""
}

// Damaged reports damage that was not found in a pair.
func (a *Audit) Damaged(what string, err error) { a.tell(engine.Damage{What: what, Err: err}) }

func (a *Audit) tell(d engine.Damage) {
	a.found++
	a.report(d)
}

func (a *Audit) record(key, format string, args ...any) {
	a.tell(engine.Damage{What: "record", KeyHash: a.hash(key), Err: fmt.Errorf("%w: "+format, append([]any{engine.ErrCorrupt}, args...)...)})
}

func (a *Audit) expiry(key, format string, args ...any) {
	hash := ""
	if key != "" {
		hash = a.hash(key)
	}
	a.tell(engine.Damage{What: expiryIndex, KeyHash: hash, Err: fmt.Errorf("%w: "+format, append([]any{engine.ErrCorrupt}, args...)...)})
}

// Pair checks a pair. It keeps neither key nor value.
func (a *Audit) Pair(space Space, key, value []byte) {
	switch space {
	case Records:
		a.pairOfRecords(string(key), value)
	case Expiry:
		d, ok := codec.DecodePlace(key)
		switch {
		case !ok:
			a.expiry("", "an entry of %d bytes is no place of it", len(key))
		case len(value) > 0:
			a.expiry(d.Key, "a place has a value of %d bytes", len(value))
		default:
			a.index.add(maphash.Bytes(a.seed, key))
		}
	case Meta:
		a.metas++
		if string(key) != codec.MetaKey {
			a.Damaged("meta entry", fmt.Errorf("%w: there is another entry beside it, with a key of %d bytes", engine.ErrCorrupt, len(key)))
			return
		}
		m, err := codec.DecodeMeta(value)
		if err != nil {
			a.Damaged("meta entry", err)
			return
		}
		a.meta = &m
	}
}

func (a *Audit) pairOfRecords(key string, value []byte) {
	e, err := codec.DecodeRecord(key, value)
	if err != nil {
		a.tell(engine.Damage{What: "record", KeyHash: a.hash(key), Err: err})
		return
	}
	if (e.Due == 0) != (e.ExpiresAt == engine.Never) || e.Due > e.ExpiresAt {
		a.record(key, "it expires at %d and its place in the expiry index is at %d", e.ExpiresAt, e.Due)
	}
	a.fence, a.epoch = max(a.fence, e.Fence), max(a.epoch, e.Epoch)
	if e.Due != 0 {
		a.place = codec.AppendPlace(a.place[:0], engine.Due{At: e.Due, Key: key})
		a.records.add(maphash.Bytes(a.seed, a.place))
	}
}

func (p *places) add(hash uint64) {
	p.n++
	p.sum += hash
}

// End checks what all pairs together must show. It reports whether the index agrees with
// the records; if not, View.Get can tell where they differ.
func (a *Audit) End(now time.Time) (agree bool) {
	switch m := a.meta; {
	case m == nil && a.metas == 0:
		a.Damaged("meta entry", fmt.Errorf("%w: it is missing", engine.ErrCorrupt))
	case m == nil: // reported
	case a.fence > m.Fence:
		a.Damaged("meta entry", fmt.Errorf("%w: a record has fence %d, and the highest that was drawn is %d: parts are from different times, as of a copy made while the store was open",
			engine.ErrCorrupt, a.fence, m.Fence))
	case a.epoch > m.Epoch:
		a.Damaged("meta entry", fmt.Errorf("%w: a record is of opening %d, and the last one was %d", engine.ErrCorrupt, a.epoch, m.Epoch))
	}
	if m := a.meta; m != nil && m.Fence != 0 {
		if ahead := time.Duration(max(m.Wall, -m.Wall) - now.UnixNano()); ahead > maxAhead {
			a.Damaged("clock", fmt.Errorf("the saved wall clock is %v ahead of this machine's; until that gets there, time spent closed does not count and records expire later",
				ahead.Round(time.Second)))
		}
	}
	return a.records == a.index
}

// compare reports where the index and the records differ, and names the records that
// cannot be reached. It runs as the pairs are walked again.
func (a *Audit) compare(v View, space Space, key, value []byte) {
	switch space {
	case Records:
		e, err := codec.DecodeRecord(string(key), value)
		if err != nil || e.Due == 0 {
			return // reported, or not in the index
		}
		a.place = codec.AppendPlace(a.place[:0], engine.Due{At: e.Due, Key: string(key)})
		if _, found, err := v.Get(Expiry, a.place); err == nil && !found {
			a.record(string(key), "it is not in the expiry index, and would never be removed; forget it once its result is not needed any more")
		}
	case Expiry:
		d, ok := codec.DecodePlace(key)
		if !ok {
			return
		}
		stored, found, err := v.Get(Records, []byte(d.Key))
		switch {
		case err != nil && errors.Is(err, engine.ErrCorrupt):
			a.tell(engine.Damage{What: "record", KeyHash: a.hash(d.Key), Err: err})
		case err != nil: // ctx, or the database is gone: the walk meets it too
		case !found:
			a.expiry(d.Key, "a place belongs to no record: the record was lost, or it could not be read and was forgotten")
		default:
			if e, err := codec.DecodeRecord(d.Key, bytes.Clone(stored)); err == nil && e.Due != d.At {
				a.expiry(d.Key, "a place is at %d, its record's is at %d", d.At, e.Due)
			}
		}
	}
}
