// Package golden is what the golden stores hold: stores of each format version,
// made once by an engine and opened by its tests ever after. It says what was done
// to them, what they must therefore hold, field by field, and how a store that is
// opened on them must behave. It is for tests.
package golden

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"time"

	"github.com/idemkv/idem"
)

// Base is the moment the golden stores of format 1 were made, in store time and in
// nanoseconds of Unix time alike: 2026-01-02 03:04:05.000000006 UTC.
const Base = idem.Instant(1767323045000000006)

// FirstFence is the fence that the first claim got: Base in microseconds, plus one.
const FirstFence = 1767323045000001

const (
	second = idem.Instant(time.Second)
	day    = 24 * time.Hour
)

// Start is Base on the wall clock.
func Start() time.Time { return time.Unix(0, int64(Base)) }

// Options are those of the store that made the golden stores.
func Options(c idem.Clock) idem.Options {
	return idem.Options{Lease: 30 * time.Second, Retention: day, MaxResult: 1024, SweepInterval: -1, Clock: c}
}

// Keys with something of their own.
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
	KeySecondOpening = "txn/second-opening"
	KeySameCommit    = "txn/same-commit"
)

// KeyLong is as long as a key may be.
func KeyLong() string {
	b := make([]byte, idem.MaxKey)
	for i := range b {
		b[i] = byte(i*7 + 3)
	}
	return string(b)
}

// Binary is the result of KeyBinary: every byte there is.
func Binary() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// Fingerprint is the one that KeyTakenOver and KeyCompleted were claimed with.
func Fingerprint() idem.Fingerprint {
	return idem.Fingerprint{
		0x74, 0xc6, 0x12, 0x6b, 0x71, 0x8c, 0x4d, 0x0b, 0x26, 0x6f, 0x01, 0x99, 0xd4, 0x5e, 0xee, 0x36,
		0x8a, 0x0c, 0x67, 0x0f, 0x2d, 0xbd, 0x9c, 0x1c, 0x15, 0x42, 0x9c, 0xbd, 0x3e, 0x8e, 0x93, 0x77,
	}
}

// Meta is the golden stores' meta entry.
func Meta() idem.Meta {
	return idem.Meta{Time: Base + 100*second, Wall: int64(Base + 100*second), Fence: FirstFence + 20, Opening: 2}
}

// Entries are all records of the golden stores, written out: nothing here is
// computed by what is under test.
func Entries() map[string]*idem.Entry {
	at := func(seconds int) idem.Instant { return Base + idem.Instant(seconds)*second }
	const dayLater = 24 * 60 * 60 // in seconds
	entry := func(fence uint64, claimed int, e idem.Entry) *idem.Entry {
		e.Fence, e.Opening, e.ClaimedAt = fence, 1, at(claimed)
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
	// final is claimed and finished at five seconds.
	final := func(fence uint64, s idem.State, result []byte) *idem.Entry {
		return entry(fence, 5, idem.Entry{
			State: s, FinishedAt: at(5), ExpiresAt: at(5 + dayLater), Due: at(5 + dayLater), Result: result,
		})
	}
	dropped := final(FirstFence+11, idem.Completed, nil)
	dropped.ResultDropped = true
	forever := final(FirstFence+12, idem.Completed, []byte("ok"))
	forever.Retention, forever.ExpiresAt, forever.Due = idem.Forever, idem.Never, 0
	expired := final(FirstFence+17, idem.Completed, []byte("gone"))
	expired.Retention, expired.ExpiresAt, expired.Due = time.Second, at(6), at(6)
	second := entry(FirstFence+19, 60, idem.Entry{
		State: idem.InFlight, Lease: 2 * time.Hour, LeaseUntil: at(60 + 2*60*60),
		ExpiresAt: at(60 + 2*60*60 + dayLater), Due: at(60 + dayLater),
	})
	second.Opening = 2
	same := entry(FirstFence+20, 60, idem.Entry{
		State: idem.Completed, FinishedAt: at(60), ExpiresAt: at(60 + dayLater), Due: at(60 + dayLater), Result: []byte("charged"),
	})
	same.Opening = 2
	return map[string]*idem.Entry{
		KeyInFlight: entry(FirstFence, 0, idem.Entry{
			State: idem.InFlight, ExpiresAt: at(30 + dayLater), Due: at(dayLater),
		}),
		KeyTakenOver: entry(FirstFence+3, 2, idem.Entry{
			State: idem.InFlight, Attempt: 2, Fingerprint: Fingerprint(), Checkpoint: []byte("step 1"),
			ExpiresAt: at(32 + dayLater), Due: at(dayLater),
		}),
		KeyExtended: entry(FirstFence+2, 0, idem.Entry{
			State: idem.InFlight, Lease: 10 * time.Second, LeaseUntil: at(2 + 60*60),
			ExpiresAt: at(2 + 60*60 + dayLater), Due: at(dayLater),
		}),
		KeyHoldUnknown: entry(FirstFence+4, 2, idem.Entry{
			State: idem.InFlight, HoldUnknown: true, ExpiresAt: idem.Never,
		}),
		KeyReleased: entry(FirstFence+5, 2, idem.Entry{
			State: idem.Released, Checkpoint: []byte{}, ExpiresAt: at(2 + dayLater), Due: at(2 + dayLater),
		}),
		KeyHeld: entry(FirstFence+6, 2, idem.Entry{
			State: idem.Held, Result: []byte("timeout at the bank"), ExpiresAt: idem.Never,
		}),
		KeyCompleted: entry(FirstFence+7, 2, idem.Entry{
			State: idem.Completed, Fingerprint: Fingerprint(), Result: []byte(`{"charged":100}`),
			FinishedAt: at(5), ExpiresAt: at(5 + dayLater), Due: at(2 + dayLater),
		}),
		KeyNil:           final(FirstFence+8, idem.Completed, nil),
		KeyEmpty:         final(FirstFence+9, idem.Completed, []byte{}),
		KeyBinary:        final(FirstFence+10, idem.Completed, Binary()),
		KeyDropped:       dropped,
		KeyForever:       forever,
		KeyFailed:        final(FirstFence+13, idem.Failed, []byte("card declined")),
		KeyNUL:           final(FirstFence+14, idem.Completed, []byte("NUL")),
		KeyNotUTF8:       final(FirstFence+15, idem.Completed, []byte("not UTF-8")),
		KeyLong():        final(FirstFence+16, idem.Completed, []byte("long")),
		KeyExpired:       expired,
		KeySecondOpening: second,
		KeySameCommit:    same,
	}
}

// Stale are tokens that were good once and are not any more.
func Stale() map[string]idem.Token {
	return map[string]idem.Token{
		"taken over": {Key: KeyTakenOver, Fence: FirstFence + 1},
		"released":   {Key: KeyReleased, Fence: FirstFence + 5},
		"expired":    {Key: KeyExpired, Fence: FirstFence + 17},
		"forgotten":  {Key: KeyForgotten, Fence: FirstFence + 18},
	}
}

// Newer returns value, stored under key, as a version of the format that comes
// after all others would have it: with its version and a checksum that is right.
func Newer(key string, value []byte) []byte {
	b := bytes.Clone(value[:len(value)-4])
	b[0] = 255
	sum := crc32.Checksum(append([]byte(key), b...), crc32.MakeTable(crc32.Castagnoli))
	return binary.LittleEndian.AppendUint32(b, sum)
}
