package oracle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// wallLives completes a key in one life on a toy, and looks for it in the next, a while
// later.
func wallLives(t *testing.T, f faults, downtime time.Duration, walls ...Walls) error {
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
		if i == 0 {
			k.settle(Complete, k.claim(&Op{Key: "long", Retention: 10 * days}), nil)
			k.settle(Complete, k.claim(&Op{Key: "short", Retention: 5 * days}), nil)
		}
		k.claim(&Op{Key: fmt.Sprint("in life ", i)})
		require.NoError(t, s.Store.Close())
		events := j.Events()
		skew.Life(w, events)
		c.Load(events)
		disk = disk.Crash(rand.New(rand.NewPCG(1, 1)))
	}
	return c.All()
}

func TestWallClocksThatAreWrong(t *testing.T) {
	t.Parallel()
	year := int64(365 * 24 * time.Hour)
	at1970 := Walls{First: 3e9 - time.Now().UnixNano()}
	at1970.Then = at1970.First
	ahead := Walls{First: 10 * year, Then: 10 * year}
	for name, c := range map[string]struct {
		faults faults
		lives  []Walls
		broken bool
	}{
		"right":                   {lives: []Walls{{}, {}, {}}},
		"1970 in between":         {lives: []Walls{{}, at1970, {}}},
		"made in 1970":            {lives: []Walls{at1970, {}, {}}},
		"ahead in between, twice": {lives: []Walls{{}, ahead, {}, ahead}},
		"the wall clock that is saved goes back": {
			faults: faults{loses: func(_ *rand.Rand, s *spaces) { meta(s, func(m *idem.Meta) { m.Wall -= year }) }},
			lives:  []Walls{{}, {}, {}}, broken: true,
		},
		"the time is not saved": {
			faults: faults{loses: func(_ *rand.Rand, s *spaces) { meta(s, func(m *idem.Meta) { m.Time += idem.Instant(year) }) }},
			lives:  []Walls{{}, {}, {}}, broken: true,
		},
		"fences begin where they were saved": {
			faults: faults{loses: func(_ *rand.Rand, s *spaces) { meta(s, func(m *idem.Meta) { m.Fence = 1 }) }},
			lives:  []Walls{ahead, {}, {}}, broken: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			err := wallLives(t, c.faults, time.Hour, c.lives...)
			if !c.broken {
				require.NoError(t, err)
				return
			}
			require.Error(t, err)
			t.Logf("%.200v", err)
		})
	}
}
