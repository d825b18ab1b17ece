package oracle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/txbackend"
)

// recount is an engine whose store counts the time closed in a way of its own: it opens
// with what count makes of what was saved.
type recount struct {
	*txbackend.Backend
	count func(saved *engine.Meta, now int64)
}

func (c recount) Bind(h engine.Host) (engine.Binding, error) {
	b, err := c.Backend.Bind(h)
	if err == nil && b.Saved.Fence != 0 {
		now, _ := h.Clock.Now()
		c.count(&b.Saved, now.UnixNano())
	}
	return b, err
}

func counting(count func(saved *engine.Meta, now int64)) faults {
	return faults{wraps: func(b *txbackend.Backend) engine.Backend { return recount{b, count} }}
}

// wallLives lives on a toy, with so much time between two lives. It completes keys in the
// life made, and looks for them in those that follow.
func wallLives(t *testing.T, f faults, made int, downtime time.Duration, walls ...Walls) error {
	t.Helper()
	ctx := context.Background()
	var disk Disk = newToyDisk(f, rand.New(rand.NewPCG(1, 1)))
	c, skew := NewChecker(), &Skew{}
	c.Loosen()
	for i, w := range walls {
		clock := NewClockAhead(0, time.Duration(i)*downtime)
		j := NewJournal(clock)
		j.Begin(Life{N: i + 1})
		s, err := disk.Open(idem.Options{Clock: WallClock{Clock: clock, Walls: w}, SweepInterval: -1})
		require.NoError(t, err)
		_, err = j.Audit(ctx, s)
		require.NoError(t, err)
		l := &load{s: s, j: j, tokens: map[string][]uint64{}}
		l.id.Store(int64(i+1) * idsPerLife)
		k := &script{worker: &worker{load: l}, ctx: ctx}
		const days = int64(24 * time.Hour)
		if i == made {
			k.settle(Complete, k.claim(&Op{Key: "long", Retention: 10 * days}), nil)
			k.settle(Complete, k.claim(&Op{Key: "short", Retention: 5 * days}), nil)
		}
		k.claim(&Op{Key: fmt.Sprint("in life ", i)})
		require.NoError(t, s.Store.Close())
		events := j.Events()
		skew.Life(w, clock.Nanos(), events)
		c.Load(events)
		disk = disk.Crash(rand.New(rand.NewPCG(1, 1)))
	}
	return c.All()
}

func TestWallClocksThatAreWrong(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	year := int64(365 * day)
	at1970 := Walls{First: 3e9 - time.Now().UnixNano()}
	at1970.Then = at1970.First
	ahead := Walls{First: 10 * year, Then: 10 * year}
	for name, c := range map[string]struct {
		faults   faults
		made     int           // the life in which the keys are completed
		downtime time.Duration // 0: an hour
		lives    []Walls
		broken   bool
	}{
		"right":                        {lives: []Walls{{}, {}, {}}},
		"right, closed for days":       {downtime: 3 * day, lives: []Walls{{}, {}, {}, {}}},
		"1970 in between":              {lives: []Walls{{}, at1970, {}}},
		"1970 in between, for days":    {made: 1, downtime: 4 * day, lives: []Walls{{}, at1970, {}}},
		"made in 1970":                 {lives: []Walls{at1970, {}, {}}},
		"ahead in between":             {lives: []Walls{{}, ahead, {}}},
		"ahead in between, twice":      {lives: []Walls{{}, ahead, {}, ahead}},
		"ahead, and closed for longer": {downtime: 9 * day, lives: []Walls{{}, ahead, {}}},
		"the wall clock that is saved goes back": {
			faults: faults{loses: func(_ *rand.Rand, s *spaces) { meta(s, func(m *engine.Meta) { m.Wall -= year }) }},
			lives:  []Walls{{}, {}, {}}, broken: true,
		},
		"the time is not saved": {
			faults: faults{loses: func(_ *rand.Rand, s *spaces) { meta(s, func(m *engine.Meta) { m.Time += engine.Instant(year) }) }},
			lives:  []Walls{{}, {}, {}}, broken: true,
		},
		"fences begin where they were saved": {
			faults: faults{loses: func(_ *rand.Rand, s *spaces) { meta(s, func(m *engine.Meta) { m.Fence = 1 }) }},
			lives:  []Walls{ahead, {}, {}}, broken: true,
		},
		"downtime counts twice": {
			faults: counting(func(m *engine.Meta, now int64) {
				if m.Wall >= clockSet {
					m.Time += engine.Instant(max(0, min(now-m.Wall, mostCounted)))
				}
			}),
			downtime: 3 * day, lives: []Walls{{}, {}, {}}, broken: true,
		},
		"downtime counts from 1970": {
			faults: counting(func(m *engine.Meta, now int64) {
				if saved := max(m.Wall, -m.Wall); saved < clockSet && now >= clockSet {
					m.Time += engine.Instant(min(now-saved, mostCounted))
				}
			}),
			lives: []Walls{at1970, {}}, broken: true,
		},
		"ten years of downtime count": {
			faults: counting(func(m *engine.Meta, now int64) {
				if m.Wall >= clockSet {
					m.Time += engine.Instant(max(0, now-m.Wall-mostCounted))
				}
			}),
			lives: []Walls{{}, ahead}, broken: true,
		},
		"downtime counts from a life that was behind": {
			faults: counting(func(m *engine.Meta, _ int64) { m.Wall = max(m.Wall, -m.Wall) }),
			made:   1, downtime: 4 * day, lives: []Walls{{}, at1970, {}}, broken: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.downtime == 0 {
				c.downtime = time.Hour
			}
			err := wallLives(t, c.faults, c.made, c.downtime, c.lives...)
			if !c.broken {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			t.Logf("%.200v", err)
		})
	}
}
