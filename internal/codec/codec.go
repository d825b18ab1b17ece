// Package codec is the on-disk format: the bytes of records, index places and the meta
// entry, versioned and checksummed. docs/FORMAT.md describes the same bytes. testdata
// holds files of each version, which are never regenerated. The package knows no
// engine.
package codec

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"time"
	"unsafe"

	"github.com/idemkv/idem/engine"
)

// Version is the format this library writes, and the only one it reads: nothing was
// released with an older one.
//
// The following holds in every version, for good. The first byte of a record and of the
// meta entry is its version. The last four are the CRC32C, little endian, of the key
// followed by all bytes before them.
const Version = 2

const (
	crcSize    = 4
	recordHead = 1 + 1 + 1 + 1 + 4 + 9*8 + 32 // up to the lengths of the slices
	recordMin  = recordHead + 2*4 + crcSize
	metaSize   = 1 + 5*8 + 16 + crcSize
	placeHead  = 8
)

// Flags of a record, its third byte. Any bit not listed here belongs to a later
// version.
const (
	flagHoldUnknown = 1 << iota
	flagResultDropped
	flagCheckpoint // there is one, even if empty
	flagResult
	flagBound
	flagsKnown = 1<<iota - 1
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checksum covers the key and the value without its checksum.
func checksum(key string, value []byte) uint32 {
	// Converting the key to bytes would allocate. So would a buffer on the stack,
	// because crc32 lets it escape.
	crc := crc32.Update(0, castagnoli, unsafe.Slice(unsafe.StringData(key), len(key)))
	return crc32.Update(crc, castagnoli, value)
}

// AppendRecord appends the value that stores e under key.
func AppendRecord(dst []byte, key string, e *engine.Entry) []byte {
	start := len(dst)
	var flags byte
	set := func(on bool, flag byte) {
		if on {
			flags |= flag
		}
	}
	set(e.HoldUnknown, flagHoldUnknown)
	set(e.ResultDropped, flagResultDropped)
	set(e.Checkpoint != nil, flagCheckpoint)
	set(e.Result != nil, flagResult)
	set(e.Bound, flagBound)
	dst = append(dst, Version, byte(e.State), flags, 0)
	le := binary.LittleEndian
	dst = le.AppendUint32(dst, e.Attempt)
	for _, v := range [...]uint64{
		e.Fence, e.Epoch, uint64(e.ClaimedAt), uint64(e.LeaseUntil), uint64(e.FinishedAt),
		uint64(e.ExpiresAt), uint64(e.Due), uint64(e.Lease), uint64(e.Retention),
	} {
		dst = le.AppendUint64(dst, v)
	}
	dst = append(dst, e.Fingerprint[:]...)
	for _, b := range [...][]byte{e.Checkpoint, e.Result} {
		dst = le.AppendUint32(dst, uint32(len(b)))
		dst = append(dst, b...)
	}
	return le.AppendUint32(dst, checksum(key, dst[start:]))
}

// check verifies the checksum and the version of a value.
func check(what, key string, value []byte) error {
	n := len(value) - crcSize
	if n < 1 {
		return fmt.Errorf("%w: %s has %d bytes", engine.ErrCorrupt, what, len(value))
	}
	if binary.LittleEndian.Uint32(value[n:]) != checksum(key, value[:n]) {
		return fmt.Errorf("%w: %s fails its checksum", engine.ErrCorrupt, what)
	}
	switch v := value[0]; {
	case v > Version:
		return fmt.Errorf("%w: %s is of format %d, this library reads format %d; use a newer library", engine.ErrVersion, what, v, Version)
	case v < Version && v > 0:
		return fmt.Errorf("%w: %s is of format %d, from before the first release, this library reads format %d; use the library that wrote it, or make a new store",
			engine.ErrVersion, what, v, Version)
	}
	return nil
}

// DecodeRecord decodes the value stored under key. The entry shares no memory with
// value. idem.ErrCorrupt is returned when the value is damaged, idem.ErrVersion when it
// has another version.
func DecodeRecord(key string, value []byte) (*engine.Entry, error) {
	if err := check("record", key, value); err != nil {
		return nil, err
	}
	if value[0] != Version || len(value) < recordMin || value[2]&^flagsKnown != 0 || value[3] != 0 ||
		value[1] < byte(engine.InFlight) || value[1] > byte(engine.Failed) {
		return nil, fmt.Errorf("%w: record is not well formed", engine.ErrCorrupt)
	}
	le := binary.LittleEndian
	flags := value[2]
	e := &engine.Entry{
		State:         engine.State(value[1]),
		HoldUnknown:   flags&flagHoldUnknown != 0,
		ResultDropped: flags&flagResultDropped != 0,
		Bound:         flags&flagBound != 0,
		Attempt:       le.Uint32(value[4:]),
		Fence:         le.Uint64(value[8:]),
		Epoch:         le.Uint64(value[16:]),
		ClaimedAt:     engine.Instant(le.Uint64(value[24:])),
		LeaseUntil:    engine.Instant(le.Uint64(value[32:])),
		FinishedAt:    engine.Instant(le.Uint64(value[40:])),
		ExpiresAt:     engine.Instant(le.Uint64(value[48:])),
		Due:           engine.Instant(le.Uint64(value[56:])),
		Lease:         time.Duration(le.Uint64(value[64:])),
		Retention:     time.Duration(le.Uint64(value[72:])),
		Fingerprint:   engine.Fingerprint(value[80:112]),
	}
	rest := value[recordHead : len(value)-crcSize]
	var ok bool
	if e.Checkpoint, rest, ok = takeBytes(rest, flags&flagCheckpoint != 0); ok {
		e.Result, rest, ok = takeBytes(rest, flags&flagResult != 0)
	}
	if !ok || len(rest) != 0 {
		return nil, fmt.Errorf("%w: record's lengths do not add up", engine.ErrCorrupt)
	}
	return e, nil
}

// takeBytes reads a length and a copy of that many bytes; the copy is nil if not
// present.
func takeBytes(b []byte, present bool) (taken, rest []byte, ok bool) {
	if len(b) < 4 {
		return nil, nil, false
	}
	n := binary.LittleEndian.Uint32(b)
	b = b[4:]
	if uint64(n) > uint64(len(b)) || !present && n != 0 {
		return nil, nil, false
	}
	if present {
		taken = append(make([]byte, 0, n), b[:n]...)
	}
	return taken, b[n:], true
}

// AppendPlace appends the key of a place in the expiry index: the time, big endian to
// make places sort by it, then the record's key. Its value is empty.
func AppendPlace(dst []byte, d engine.Due) []byte {
	return append(binary.BigEndian.AppendUint64(dst, uint64(d.At)), d.Key...)
}

// DecodePlace decodes the key of a place in the expiry index; false if it is not one.
func DecodePlace(b []byte) (engine.Due, bool) {
	if len(b) <= placeHead {
		return engine.Due{}, false
	}
	at := engine.Instant(binary.BigEndian.Uint64(b))
	if at < 0 { // it does not sort by time
		return engine.Due{}, false
	}
	return engine.Due{At: at, Key: string(b[placeHead:])}, true
}

// MetaKey is the key of the meta entry. The entry's checksum covers it.
const MetaKey = "meta"

// AppendMeta appends the value of the meta entry. Importing is the sign of LostUntil, which
// has none of its own: all bits are the other way round.
func AppendMeta(dst []byte, m engine.Meta) []byte {
	start := len(dst)
	le := binary.LittleEndian
	dst = append(dst, Version)
	lost := m.LostUntil
	if lost < 0 {
		lost = 1 // a time before all others, but not "none"
	}
	if m.Importing {
		lost = ^lost
	}
	for _, v := range [...]uint64{uint64(m.Time), uint64(m.Wall), m.Fence, m.Epoch, uint64(lost)} {
		dst = le.AppendUint64(dst, v)
	}
	dst = append(dst, m.Secret[:]...)
	return le.AppendUint32(dst, checksum(MetaKey, dst[start:]))
}

// DecodeMeta decodes the value of the meta entry. Its errors are those of DecodeRecord.
func DecodeMeta(value []byte) (engine.Meta, error) {
	if err := check("meta entry", MetaKey, value); err != nil {
		return engine.Meta{}, err
	}
	if value[0] != Version || len(value) != metaSize {
		return engine.Meta{}, fmt.Errorf("%w: meta entry is not well formed", engine.ErrCorrupt)
	}
	le := binary.LittleEndian
	m := engine.Meta{
		Time:  engine.Instant(le.Uint64(value[1:])),
		Wall:  int64(le.Uint64(value[9:])),
		Fence: le.Uint64(value[17:]),
		Epoch: le.Uint64(value[25:]),

		LostUntil: int64(le.Uint64(value[33:])),
		Secret:    [16]byte(value[41:57]),
	}
	if m.LostUntil < 0 {
		m.LostUntil, m.Importing = ^m.LostUntil, true
	}
	return m, nil
}

// MarkBackup returns the value of the meta entry of a backup, made of that of its store. The
// opening that finds the mark knows that what came later is missing.
func MarkBackup(meta []byte) ([]byte, error) {
	m, err := DecodeMeta(meta)
	if err != nil {
		return nil, err
	}
	m.LostUntil = engine.Restored
	return AppendMeta(nil, m), nil
}
