package codec

import (
	"encoding/binary"
	"math"
	"testing"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// seal replaces the last four bytes of value by the checksum that is right for it.
func seal(key string, value []byte) []byte {
	n := len(value) - crcSize
	return binary.LittleEndian.AppendUint32(append([]byte(nil), value[:n]...), checksum(key, value[:n]))
}

func drawKey() *rapid.Generator[string] {
	return rapid.Custom(func(t *rapid.T) string {
		return string(rapid.SliceOfN(rapid.Byte(), 1, idem.MaxKey).Draw(t, "key"))
	})
}

func drawInt64() *rapid.Generator[int64] {
	return rapid.OneOf(rapid.SampledFrom([]int64{0, 1, -1, math.MaxInt64 - 1, math.MaxInt64, math.MinInt64}), rapid.Int64())
}

func drawUint64() *rapid.Generator[uint64] {
	return rapid.OneOf(rapid.SampledFrom([]uint64{0, 1, math.MaxInt64, math.MaxUint64}), rapid.Uint64())
}

// drawBytes gives nil, empty and other slices.
func drawBytes() *rapid.Generator[[]byte] {
	return rapid.OneOf(rapid.Just([]byte(nil)), rapid.Just([]byte{}), rapid.SliceOfN(rapid.Byte(), 1, 300))
}

// drawEntry gives any entry the codec must keep, extremes included: also such as
// the state machine never makes.
func drawEntry() *rapid.Generator[*engine.Entry] {
	return rapid.Custom(func(t *rapid.T) *engine.Entry {
		instant := func(what string) engine.Instant { return engine.Instant(drawInt64().Draw(t, what)) }
		return &engine.Entry{
			State:         idem.State(rapid.Uint8Range(uint8(idem.InFlight), uint8(idem.Failed)).Draw(t, "state")),
			HoldUnknown:   rapid.Bool().Draw(t, "hold unknown"),
			ResultDropped: rapid.Bool().Draw(t, "result dropped"),
			Bound:         rapid.Bool().Draw(t, "bound"),
			Attempt:       rapid.OneOf(rapid.SampledFrom([]uint32{0, 1, math.MaxUint32}), rapid.Uint32()).Draw(t, "attempt"),
			Fence:         drawUint64().Draw(t, "fence"),
			Epoch:         drawUint64().Draw(t, "opening"),
			Fingerprint:   idem.Fingerprint(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "fingerprint")),
			ClaimedAt:     instant("claimed at"),
			LeaseUntil:    instant("lease until"),
			FinishedAt:    instant("finished at"),
			ExpiresAt:     instant("expires at"),
			Due:           instant("due"),
			Lease:         time.Duration(drawInt64().Draw(t, "lease")),
			Retention:     time.Duration(drawInt64().Draw(t, "retention")),
			Checkpoint:    drawBytes().Draw(t, "checkpoint"),
			Result:        drawBytes().Draw(t, "result"),
		}
	})
}

func drawMeta() *rapid.Generator[engine.Meta] {
	return rapid.Custom(func(t *rapid.T) engine.Meta {
		return engine.Meta{
			Time: engine.Instant(drawInt64().Draw(t, "time")), Wall: drawInt64().Draw(t, "wall"),
			Fence: drawUint64().Draw(t, "fence"), Epoch: drawUint64().Draw(t, "opening"),
			LostUntil: max(drawInt64().Draw(t, "lost until"), 0), Importing: rapid.Bool().Draw(t, "importing"),
			Secret: [16]byte(rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "secret")),
		}
	})
}
