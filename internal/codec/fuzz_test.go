package codec

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// FuzzDecodeRecord: decoding never panics, and what decodes is written again as it
// was. A fuzzer cannot guess checksums, so each input is tried with a right one too.
func FuzzDecodeRecord(f *testing.F) {
	for _, g := range golden(f).Records {
		f.Add([]byte(g.Key), []byte(g.Bytes))
	}
	f.Add([]byte(format1Key), format1(f, format1Record))
	f.Fuzz(func(t *testing.T, key, value []byte) {
		try := func(value []byte) {
			e, err := DecodeRecord(string(key), value)
			if (e == nil) == (err == nil) || err != nil && errors.Is(err, idem.ErrCorrupt) == errors.Is(err, idem.ErrVersion) {
				t.Fatalf("entry %v, error %v", e, err)
			}
			if err == nil && !bytes.Equal(AppendRecord(nil, string(key), e), value) {
				t.Fatalf("%x decodes and is written again as %x", value, AppendRecord(nil, string(key), e))
			}
		}
		try(value)
		if len(value) >= crcSize {
			try(seal(string(key), value))
		}
	})
}

// FuzzDecodeMeta is FuzzDecodeRecord for the meta entry.
func FuzzDecodeMeta(f *testing.F) {
	for _, g := range golden(f).Metas {
		f.Add([]byte(g.Bytes))
	}
	f.Add(format1(f, format1Meta))
	f.Fuzz(func(t *testing.T, value []byte) {
		try := func(value []byte) {
			m, err := DecodeMeta(value)
			if err != nil && errors.Is(err, idem.ErrCorrupt) == errors.Is(err, idem.ErrVersion) {
				t.Fatal(err)
			}
			if err == nil && !bytes.Equal(AppendMeta(nil, m), value) {
				t.Fatalf("%x decodes and is written again as %x", value, AppendMeta(nil, m))
			}
		}
		try(value)
		if len(value) >= crcSize {
			try(seal(MetaKey, value))
		}
	})
}

// FuzzDecodePlace is FuzzDecodeRecord for places of the index.
func FuzzDecodePlace(f *testing.F) {
	for _, g := range golden(f).Places {
		f.Add([]byte(g.Bytes))
	}
	f.Add([]byte{})
	f.Add(make([]byte, 8))
	f.Fuzz(func(t *testing.T, b []byte) {
		if d, ok := DecodePlace(b); ok && !bytes.Equal(AppendPlace(nil, d), b) {
			t.Fatalf("%x decodes and is written again as %x", b, AppendPlace(nil, d))
		}
	})
}

// FuzzRecord: any entry survives being written and read.
func FuzzRecord(f *testing.F) {
	f.Add("txn_001", byte(4), byte(8), uint32(1), uint64(7), uint64(1), int64(1), int64(2), int64(3), int64(4), int64(5),
		int64(time.Second), int64(time.Hour), []byte("fingerprint"), []byte(nil), []byte(`{"charged":100}`))
	f.Add("\x00\xff", byte(3), byte(31), uint32(math.MaxUint32), uint64(math.MaxUint64), uint64(0), int64(math.MaxInt64), int64(-1),
		int64(math.MinInt64), int64(math.MaxInt64), int64(0), int64(0), int64(math.MaxInt64), []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, key string, state, flags byte, attempt uint32, fence, opening uint64,
		claimed, lease, finished, expires, due, leaseFor, retention int64, fingerprint, checkpoint, result []byte,
	) {
		e := &engine.Entry{
			State: 1 + idem.State(state)%idem.Failed, HoldUnknown: flags&flagHoldUnknown != 0, ResultDropped: flags&flagResultDropped != 0,
			Bound: flags&flagBound != 0, Attempt: attempt, Fence: fence, Epoch: opening, ClaimedAt: engine.Instant(claimed), LeaseUntil: engine.Instant(lease),
			FinishedAt: engine.Instant(finished), ExpiresAt: engine.Instant(expires), Due: engine.Instant(due),
			Lease: time.Duration(leaseFor), Retention: time.Duration(retention),
		}
		copy(e.Fingerprint[:], fingerprint)
		if flags&flagCheckpoint != 0 {
			e.Checkpoint = append([]byte{}, checkpoint...)
		}
		if flags&flagResult != 0 {
			e.Result = append([]byte{}, result...)
		}
		value := AppendRecord(nil, key, e)
		got, err := DecodeRecord(key, value)
		if err != nil {
			t.Fatal(err)
		}
		if (got.Checkpoint == nil) != (e.Checkpoint == nil) || (got.Result == nil) != (e.Result == nil) ||
			!bytes.Equal(got.Checkpoint, e.Checkpoint) || !bytes.Equal(got.Result, e.Result) {
			t.Fatalf("wrote %+v, read %+v", e, got)
		}
		a, b := *e, *got
		a.Checkpoint, a.Result, b.Checkpoint, b.Result = nil, nil, nil, nil
		if !reflect.DeepEqual(a, b) {
			t.Fatalf("wrote %+v, read %+v", a, b)
		}
	})
}
