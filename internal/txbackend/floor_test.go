package txbackend

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// Whatever commits and looks do at once, no place that can be read stands before
// the floor.
func TestNothingStandsBeforeTheFloor(t *testing.T) {
	t.Parallel()
	rose := 0
	rapid.Check(t, func(rt *rapid.T) {
		var f floor
		readable := map[engine.Due]bool{}
		var writing []engine.Due
		type reading struct {
			l     *look
			from  engine.Due
			first *engine.Due
			read  bool
		}
		var readings []*reading
		place := func() engine.Due {
			return engine.Due{At: engine.Instant(rapid.IntRange(1, 9).Draw(rt, "at")), Key: rapid.SampledFrom([]string{"a", "b"}).Draw(rt, "key")}
		}
		commit := func() {
			for _, p := range writing {
				readable[p] = true
			}
			writing = nil
			f.committed()
		}
		for range rapid.IntRange(1, 60).Draw(rt, "steps") {
			switch rapid.IntRange(0, 5).Draw(rt, "step") {
			case 0:
				p := place()
				f.set(p)
				writing = append(writing, p)
			case 1:
				commit()
			case 2: // the sweep removes what stands first
				delete(readable, first(readable, engine.Due{}))
			case 3:
				from, l := f.begin(engine.Due{})
				require.NotNil(rt, l, "from the start there is always something to learn")
				readings = append(readings, &reading{l: l, from: from})
			case 4:
				if len(readings) > 0 {
					r := rapid.SampledFrom(readings).Draw(rt, "reads")
					if !r.read {
						p := first(readable, r.from)
						r.first, r.read = &p, true
					}
				}
			case 5:
				if len(readings) > 0 {
					i := rapid.IntRange(0, len(readings)-1).Draw(rt, "ends")
					before := f.at
					f.end(readings[i].l, readings[i].first)
					if before != f.at {
						rose++
					}
					readings = slices.Delete(readings, i, i+1)
				}
			}
			for p := range readable {
				require.GreaterOrEqual(rt, comparePlaces(p, f.at), 0, "%v stands before the floor %v", p, f.at)
			}
		}
		commit()
		for p := range readable {
			require.GreaterOrEqual(rt, comparePlaces(p, f.at), 0)
		}
		require.Len(rt, f.looks, len(readings))
	})
	require.Positive(t, rose)
}

// first is what a reading from a place on finds: the first place, or the end.
func first(readable map[engine.Due]bool, from engine.Due) engine.Due {
	least := engine.Due{At: 100}
	for p := range readable {
		if comparePlaces(p, from) >= 0 && comparePlaces(p, least) < 0 {
			least = p
		}
	}
	return least
}

// The slices of a sweep, each from the start, do not read over those before.
func TestSweepsDoNotReadOverWhatIsGone(t *testing.T) {
	t.Parallel()
	e := newEnv(t, func(o *idem.Options) { o.SweepSlice = 10 })
	const n = 100
	for i := range n {
		e.granted(idem.Request{Key: fmt.Sprint(i), Retention: time.Second})
		e.clock.Advance(time.Millisecond)
	}
	e.clock.Advance(time.Hour)
	var from []string
	e.fake.at(func(p point, key string) error {
		if p == scanning {
			from = append(from, key)
		}
		return nil
	})
	for range n / 10 {
		require.Equal(t, 10, e.sweep(10))
	}
	require.Len(t, from, n/10)
	require.True(t, slices.IsSorted(from))
	require.Len(t, slices.Compact(from), n/10, "each begins where the one before began or later")
	e.fake.at(nil)

	// What is placed before the floor since is found: time went on to the floor.
	e.granted(idem.Request{Key: "late", Retention: time.Nanosecond, Lease: time.Millisecond})
	e.clock.Advance(time.Second)
	require.Equal(t, 1, e.sweep(10))
}

// A look that failed has learned nothing.
func TestFailedLookLeavesTheFloor(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.granted(idem.Request{Key: "k", Retention: time.Second})
	e.clock.Advance(time.Hour)
	e.fake.on(scanning, func() error { return fmt.Errorf("block 7: %w", idem.ErrCorrupt) })
	_, err := e.s.Sweep(ctx, 10)
	require.ErrorIs(t, err, idem.ErrCorrupt)
	e.fake.at(nil)
	require.Equal(t, 1, e.sweep(10))
}
