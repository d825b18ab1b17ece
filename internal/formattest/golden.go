// Package formattest describes the golden stores: stores of each format version, made
// once by an engine and opened by its tests ever since. It defines what was done to
// them, what they must therefore hold, field by field, and how a store opened on them
// must behave. It is for tests.
package formattest

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// Base is when the golden stores were made, both in store time and in nanoseconds of
// Unix time: 2026-01-02 03:04:05.000000006 UTC.
const Base = engine.Instant(1767323045000000006)

// LostUntil is the time up to which records may have been lost, according to the golden
// stores. The backend of their first opening says so, as that of a restored backup
// would.
const LostUntil = int64(Base) - int64(time.Hour)

const (
	second = engine.Instant(time.Second)
	day    = 24 * time.Hour
)

// Start is Base on the wall clock.
func Start() time.Time { return time.Unix(0, int64(Base)) }

// Options returns the options of the store that made the golden stores.
func Options(c engine.Clock) idem.Options {
	return idem.Options{Lease: 30 * time.Second, Retention: day, MaxResult: 1024, SweepInterval: -1, Clock: c}
}

// Keys whose records each have something special.
const (
	KeyInFlight      = "txn/in-flight"
	KeyTakenOver     = "txn/taken-over"
	KeyExtended      = "txn/extended"
	KeyHoldUnknown   = "txn/hold-unknown"
	KeyReleased      = "txn/released"
	KeyHeld          = "txn/held"
	KeyCompleted     = "txn/completed"
	KeyNil           = "txn/completed-nil"
	KeyEmpty         = "txn/completed-empty"
	KeyBinary        = "txn/completed-binary"
	KeyDropped       = "txn/completed-dropped"
	KeyForever       = "txn/completed-forever"
	KeyFailed        = "txn/failed"
	KeyNUL           = "\x00"
	KeyNotUTF8       = "\xff\xfe/\x80"
	KeyExpired       = "txn/expired"
	KeyForgotten     = "txn/forgotten"
	KeyReason        = "txn/released-reason"
	KeyRetried       = "txn/retried"
	KeyBound         = "txn/bound"
	KeyUndone        = "txn/undone"
	KeyFailDropped   = "txn/failed-dropped"
	KeySecondOpening = "txn/second-opening"
	KeySameCommit    = "txn/same-commit"
)

// KeyLong returns a key of the maximum length.
func KeyLong() string {
	b := make([]byte, idem.MaxKey)
	for i := range b {
		b[i] = byte(i*7 + 3)
	}
	return string(b)
}

// Binary returns the result of KeyBinary: every possible byte.
func Binary() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// Reason returns the reason with which KeyReason, KeyRetried and KeyBound were
// released.
func Reason() []byte { return []byte("the bank is away") }

// Fingerprint returns the fingerprint of the claims of KeyTakenOver, KeyCompleted and
// KeyBound.
func Fingerprint() engine.Fingerprint {
	return engine.Fingerprint{
		0x74, 0xc6, 0x12, 0x6b, 0x71, 0x8c, 0x4d, 0x0b, 0x26, 0x6f, 0x01, 0x99, 0xd4, 0x5e, 0xee, 0x36,
		0x8a, 0x0c, 0x67, 0x0f, 0x2d, 0xbd, 0x9c, 0x1c, 0x15, 0x42, 0x9c, 0xbd, 0x3e, 0x8e, 0x93, 0x77,
	}
}

// Meta returns the golden stores' meta entry, without its secret.
func (m Made) Meta() engine.Meta {
	return engine.Meta{
		Time: Base + 100*second, Wall: int64(Base + 100*second), Fence: m.fence(secondOpening + 1), Epoch: 2,
		LostUntil: LostUntil,
	}
}

// Entries returns all records of the golden stores, written out by hand: nothing here
// is computed by the code under test.
func (m Made) Entries() map[string]*engine.Entry {
	at := func(seconds int) engine.Instant { return Base + engine.Instant(seconds)*second }
	const dayLater = 24 * 60 * 60 // in seconds
	entry := func(claim, claimed int, e engine.Entry) *engine.Entry {
		e.Fence, e.Epoch, e.ClaimedAt = m.fence(claim), 1, at(claimed)
		if e.Attempt == 0 {
			e.Attempt = 1
		}
		if e.Lease == 0 {
			e.Lease = 30 * time.Second
		}
		if e.LeaseUntil == 0 {
			e.LeaseUntil = at(claimed + 30)
		}
		if e.Retention == 0 {
			e.Retention = day
		}
		return &e
	}
	// final is a record claimed and finished at five seconds.
	final := func(claim int, s engine.State, result []byte) *engine.Entry {
		return entry(claim, 5, engine.Entry{
			State: s, FinishedAt: at(5), ExpiresAt: at(5 + dayLater), Due: at(5 + dayLater), Result: result,
		})
	}
	dropped := final(11, engine.Completed, nil)
	dropped.ResultDropped = true
	forever := final(12, engine.Completed, []byte("ok"))
	forever.Retention, forever.ExpiresAt, forever.Due = idem.Forever, engine.Never, 0
	failDropped := final(25, engine.Failed, nil)
	failDropped.ResultDropped = true
	expired := final(17, engine.Completed, []byte("gone"))
	expired.Retention, expired.ExpiresAt, expired.Due = time.Second, at(6), at(6)
	second := entry(secondOpening, 60, engine.Entry{
		State: engine.InFlight, Lease: 2 * time.Hour, LeaseUntil: at(60 + 2*60*60),
		ExpiresAt: at(60 + 2*60*60 + dayLater), Due: at(60 + dayLater),
	})
	second.Epoch = 2
	same := entry(secondOpening+1, 60, engine.Entry{
		State: engine.Completed, FinishedAt: at(60), ExpiresAt: at(60 + dayLater), Due: at(60 + dayLater), Result: []byte("charged"),
	})
	same.Epoch = 2
	return map[string]*engine.Entry{
		KeyInFlight: entry(0, 0, engine.Entry{
			State: engine.InFlight, ExpiresAt: at(30 + dayLater), Due: at(dayLater),
		}),
		KeyTakenOver: entry(3, 2, engine.Entry{
			State: engine.InFlight, Attempt: 2, Fingerprint: Fingerprint(), Checkpoint: []byte("step 1"),
			ExpiresAt: at(32 + dayLater), Due: at(dayLater),
		}),
		KeyExtended: entry(2, 0, engine.Entry{
			State: engine.InFlight, Lease: 10 * time.Second, LeaseUntil: at(2 + 60*60),
			ExpiresAt: at(2 + 60*60 + dayLater), Due: at(dayLater),
		}),
		KeyHoldUnknown: entry(4, 2, engine.Entry{
			State: engine.InFlight, HoldUnknown: true, ExpiresAt: engine.Never,
		}),
		KeyReleased: entry(5, 2, engine.Entry{
			State: engine.Released, Checkpoint: []byte{}, ExpiresAt: at(2 + dayLater), Due: at(2 + dayLater),
		}),
		KeyHeld: entry(6, 2, engine.Entry{
			State: engine.Held, Result: []byte("timeout at the bank"), ExpiresAt: engine.Never,
		}),
		KeyCompleted: entry(7, 2, engine.Entry{
			State: engine.Completed, Fingerprint: Fingerprint(), Result: []byte(`{"charged":100}`),
			FinishedAt: at(5), ExpiresAt: at(5 + dayLater), Due: at(2 + dayLater),
		}),
		KeyNil:     final(8, engine.Completed, nil),
		KeyEmpty:   final(9, engine.Completed, []byte{}),
		KeyBinary:  final(10, engine.Completed, Binary()),
		KeyDropped: dropped,
		KeyForever: forever,
		KeyFailed:  final(13, engine.Failed, []byte("card declined")),
		KeyNUL:     final(14, engine.Completed, []byte("NUL")),
		KeyNotUTF8: final(15, engine.Completed, []byte("not UTF-8")),
		KeyLong():  final(16, engine.Completed, []byte("long")),
		KeyExpired: expired,
		KeyReason: entry(19, 5, engine.Entry{
			State: engine.Released, Result: Reason(), ExpiresAt: at(5 + dayLater), Due: at(5 + dayLater),
		}),
		KeyRetried: entry(21, 5, engine.Entry{
			State: engine.InFlight, Attempt: 2, Result: Reason(), ExpiresAt: at(35 + dayLater), Due: at(5 + dayLater),
		}),
		KeyBound: entry(23, 5, engine.Entry{
			State: engine.Released, Bound: true, Fingerprint: Fingerprint(), Result: Reason(),
			ExpiresAt: at(5 + dayLater), Due: at(5 + dayLater),
		}),
		KeyFailDropped:   failDropped,
		KeySecondOpening: second,
		KeySameCommit:    same,
	}
}

// stale returns the claims, by number, whose tokens were once good and no longer are.
func stale() map[string]int {
	return map[string]int{
		"taken over": 1, "released": 5, "expired": 17, "forgotten": 18, "released with a reason": 19,
		"claimed again": 20, "claimed again and undone": 22, "undone": 23, "undone, and gone": 24,
	}
}

// Newer returns value, stored under key, as the last possible version of the format
// would have it: with that version and a correct checksum.
func Newer(key string, value []byte) []byte { return as(255, key, value) }

// Older is Newer for the version from before the first release.
func Older(key string, value []byte) []byte { return as(1, key, value) }

func as(version byte, key string, value []byte) []byte {
	b := bytes.Clone(value[:len(value)-4])
	b[0] = version
	sum := crc32.Checksum(append([]byte(key), b...), crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32(b, sum)
}

// Format1Meta returns a meta entry of format 1, from before the first release. Stores
// that hold it are refused.
func Format1Meta() []byte {
	return []byte("\x01\x06\x32\x96\x1c\xf2\xca\x86\x18\x06\x32\x96\x1c\xf2\xca\x86\x18\x40\xf3" +
		"\x4c\xf6\x5e\x47\x06\x00\x01\x00\x00\x00\x00\x00\x00\x00\x87\xc3\x89\xd4")
}
