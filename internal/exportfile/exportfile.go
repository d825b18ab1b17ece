// Package exportfile is the format in which the records of a store travel to another
// one, whatever the engines. An export is read once, from the start to the end.
//
// It begins with Magic and the version, one byte. Frames follow: a header, the records,
// and a trailer. A frame is its kind, one byte; the length of its payload, four bytes;
// the payload; and a CRC32C, four bytes. The checksum covers everything since the start
// of the export except the earlier checksums, so frames that are damaged, left out or
// put in another order are noticed. Numbers are little endian. Magic, the version and
// the form of the header's frame stay as they are in every later version.
//
// Times are written as what remains of them when the record was read: nanoseconds from
// then on, negative for the past. What is exported at one time can so be imported at
// another, under another clock.
package exportfile

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"math"
	"time"

	"github.com/idemkv/idem/engine"
)

// Magic begins every export.
const Magic = "idem export\n"

// Version is the format that this package writes, and the only one it reads.
const Version = 1

// Header is what an export says of its store.
type Header struct {
	// Wall is the wall clock when the export began, in Unix nanoseconds.
	Wall int64
	// LostUntil and Secret are those of the store's engine.Meta.
	LostUntil int64
	Secret    [16]byte
	// Fence is the highest fence that was granted when the export began.
	Fence uint64
}

// Trailer ends an export.
type Trailer struct {
	// Records is how many there are.
	Records uint64
	// Fence is the highest fence that was granted when the export ended.
	Fence uint64
	// Stopped: nothing could be changed in the store while it was exported.
	Stopped bool
}

// Record is a record on its way. It has the times as what remained of them.
type Record struct {
	Key string

	entry                             engine.Entry // without times
	claimed, lease, finished, expires int64
}

// The kinds of frame.
const (
	kindHeader  = 'H'
	kindRecord  = 'R'
	kindTrailer = 'T'
)

const (
	frameHead   = 1 + 4
	crcSize     = 4
	headerSize  = 2*8 + 16 + 8
	recordHead  = 1 + 1 + 2 + 4 + 8 + 6*8 + 32 + 2*4
	trailerSize = 2*8 + 1
	// maxHeader bounds the header of any version.
	maxHeader = 64 << 10
	maxKey    = 1024
	// maxValue is the largest that idem.Options.MaxResult may be.
	maxValue = 256 << 20
	// maxFence leaves room above it: a fence never wraps around.
	maxFence = 3 << 62
)

// Flags of a record, and of the trailer.
const (
	flagHoldUnknown = 1 << iota
	flagResultDropped
	flagBound
	flagCheckpoint // there is one, even if empty
	flagResult
	flagsKnown = 1<<iota - 1

	flagStopped = 1
)

// Times that are not a distance.
const (
	notSet = math.MinInt64
	never  = math.MaxInt64
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Expired reports whether nothing remained of the record.
func (r *Record) Expired() bool { return r.expires <= 0 }

// Fence is that of the record's latest claim.
func (r *Record) Fence() uint64 { return r.entry.Fence }

// Size is about what the record takes in memory.
func (r *Record) Size() int {
	return len(r.Key) + len(r.entry.Checkpoint) + len(r.entry.Result) + recordHead
}

// Entry returns the record as it is at now, on another timeline. It has no Epoch and no
// Due. The entry shares the record's slices.
func (r *Record) Entry(now engine.Instant) *engine.Entry {
	e := r.entry
	e.ClaimedAt, e.LeaseUntil = arrive(r.claimed, now), arrive(r.lease, now)
	e.FinishedAt, e.ExpiresAt = arrive(r.finished, now), arrive(r.expires, now)
	return &e
}

// depart returns what remains of t at now.
func depart(t, now engine.Instant) int64 {
	switch t {
	case 0:
		return notSet
	case engine.Never:
		return never
	}
	return int64(t - now)
}

// arrive is the inverse of depart on another timeline. What has been set stays so. A time
// past the end of that timeline never comes: to lapse or expire early is worse.
func arrive(d int64, now engine.Instant) engine.Instant {
	switch {
	case d == notSet:
		return 0
	case d == never:
		return engine.Never
	case d < 0:
		return max(now+engine.Instant(d), 1)
	}
	return now.Add(time.Duration(d))
}

func (h *Header) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, uint64(h.Wall))
	b = le.AppendUint64(b, uint64(h.LostUntil))
	b = append(b, h.Secret[:]...)
	return le.AppendUint64(b, h.Fence)
}

func (h *Header) decode(b []byte) bool {
	if len(b) != headerSize {
		return false
	}
	le := binary.LittleEndian
	h.Wall, h.LostUntil = int64(le.Uint64(b)), int64(le.Uint64(b[8:]))
	h.Secret, h.Fence = [16]byte(b[16:]), le.Uint64(b[32:])
	return h.Wall >= 0 && h.LostUntil >= 0 && h.Secret != [16]byte{} && h.Fence <= maxFence
}

func (t *Trailer) append(b []byte) []byte {
	le := binary.LittleEndian
	b = le.AppendUint64(b, t.Records)
	b = le.AppendUint64(b, t.Fence)
	if t.Stopped {
		return append(b, flagStopped)
	}
	return append(b, 0)
}

func (t *Trailer) decode(b []byte) bool {
	if len(b) != trailerSize {
		return false
	}
	le := binary.LittleEndian
	t.Records, t.Fence, t.Stopped = le.Uint64(b), le.Uint64(b[8:]), b[16] == flagStopped
	return b[16]&^flagStopped == 0 && t.Fence <= maxFence
}

// appendRecord appends the fixed part of a record's payload. Key, checkpoint and result
// follow it.
func appendRecord(b []byte, key string, e *engine.Entry, now engine.Instant) []byte {
	var flags byte
	set := func(on bool, flag byte) {
		if on {
			flags |= flag
		}
	}
	set(e.HoldUnknown, flagHoldUnknown)
	set(e.ResultDropped, flagResultDropped)
	set(e.Bound, flagBound)
	set(e.Checkpoint != nil, flagCheckpoint)
	set(e.Result != nil, flagResult)
	le := binary.LittleEndian
	b = append(b, byte(e.State), flags)
	b = le.AppendUint16(b, uint16(len(key)))
	b = le.AppendUint32(b, e.Attempt)
	b = le.AppendUint64(b, e.Fence)
	for _, t := range [...]engine.Instant{e.ClaimedAt, e.LeaseUntil, e.FinishedAt, e.ExpiresAt} {
		b = le.AppendUint64(b, uint64(depart(t, now)))
	}
	b = le.AppendUint64(b, uint64(e.Lease))
	b = le.AppendUint64(b, uint64(e.Retention))
	b = append(b, e.Fingerprint[:]...)
	b = le.AppendUint32(b, uint32(len(e.Checkpoint)))
	return le.AppendUint32(b, uint32(len(e.Result)))
}

// decode reads a payload, whose bytes it keeps.
func (r *Record) decode(b []byte) error {
	bad := func(what string) error { return fmt.Errorf("is not well formed: %s", what) }
	if len(b) < recordHead {
		return bad("it is too short")
	}
	le := binary.LittleEndian
	e := &r.entry
	flags, keySize := b[1], int(le.Uint16(b[2:]))
	*e = engine.Entry{
		State:         engine.State(b[0]),
		HoldUnknown:   flags&flagHoldUnknown != 0,
		ResultDropped: flags&flagResultDropped != 0,
		Bound:         flags&flagBound != 0,
		Attempt:       le.Uint32(b[4:]),
		Fence:         le.Uint64(b[8:]),
		Lease:         time.Duration(le.Uint64(b[48:])),
		Retention:     time.Duration(le.Uint64(b[56:])),
		Fingerprint:   engine.Fingerprint(b[64:96]),
	}
	r.claimed, r.lease = int64(le.Uint64(b[16:])), int64(le.Uint64(b[24:]))
	r.finished, r.expires = int64(le.Uint64(b[32:])), int64(le.Uint64(b[40:]))
	point, result := uint64(le.Uint32(b[96:])), uint64(le.Uint32(b[100:]))
	b = b[recordHead:]
	switch {
	case uint64(keySize)+point+result != uint64(len(b)):
		return bad("its lengths do not add up")
	case keySize == 0 || keySize > maxKey:
		return bad("its key is out of range")
	case point > maxValue || result > maxValue || flags&flagCheckpoint == 0 && point > 0 || flags&flagResult == 0 && result > 0:
		return bad("its values are out of range")
	case flags&^flagsKnown != 0 || e.State < engine.InFlight || e.State > engine.Failed:
		return bad("its state is out of range")
	case e.Fence == 0 || e.Fence > maxFence:
		return bad("its fence is out of range")
	case r.claimed == notSet || r.lease == notSet || r.expires == notSet || e.State.Final() == (r.finished == notSet) || e.Lease < 0 || e.Retention < 0:
		return bad("its times are out of range")
	}
	r.Key = string(b[:keySize])
	b = b[keySize:]
	if flags&flagCheckpoint != 0 {
		e.Checkpoint = bytes.Clone(b[:point:point])
	}
	if flags&flagResult != 0 {
		e.Result = bytes.Clone(b[point:])
	}
	return nil
}
