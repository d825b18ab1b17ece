package oracle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/fakeclock"
	"github.com/idemkv/idem/internal/race"
)

// skewedLife is a life of a store. Its durations follow each other.
type skewedLife struct {
	walls  Walls // At is from the beginning of the life on
	closed time.Duration
	boots  time.Duration // until the opening reads the clock
	silent bool          // killed before it tells that it has opened, or anything after
	looks  time.Duration // at what is there
	claims []skewedClaim
	rests  time.Duration
	killed bool
}

type skewedClaim struct {
	after time.Duration // the one before
	cut   bool          // nobody hears of it
	takes time.Duration // until it is answered; the commit is at once
}

// moment is when a store told its own time, and how far ahead that may be by then.
type moment struct {
	life        int
	real, store int64
	ahead       int64
}

// skewed is a store in lives with wrong clocks, and what Skew makes of its journal.
type skewed struct {
	t    require.TestingT
	disk Disk
	skew Skew
	now  int64
	n    int
	id   int64

	opened, commits []moment
}

func newSkewed(t require.TestingT) *skewed {
	now := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC).UnixNano()
	return &skewed{t: t, disk: newToyDisk(faults{}, rand.New(rand.NewPCG(1, 1))), now: now}
}

// crash is what is on the disk now.
func (s *skewed) crash() Disk { return s.disk.Crash(rand.New(rand.NewPCG(1, 1))) }

// claim claims a key of its own in a commit, and returns the store time that it saves.
func (s *skewed) claim(store *idem.Store, disk Disk) int64 {
	s.id++
	_, err := store.Claim(context.Background(), idem.Request{Key: fmt.Sprint(s.id)})
	require.NoError(s.t, err)
	toy := disk.(*toyDisk)
	toy.mu.Lock()
	defer toy.mu.Unlock()
	var saved engine.Meta
	meta(&toy.safe, func(m *engine.Meta) { saved = *m })
	require.NotZero(s.t, saved.Time)
	return int64(saved.Time)
}

// live lives l and returns how much Skew moves its times by.
func (s *skewed) live(l skewedLife) int64 {
	s.n++
	pass := func(d time.Duration) { s.now += int64(d) }
	pass(l.closed)
	fake := fakeclock.New(time.Unix(0, s.now))
	clock := WallClock{Clock: fake, Walls: l.walls}
	tick := func() {
		wall, _ := fake.Now()
		fake.Advance(time.Duration(s.now - wall.UnixNano()))
	}
	if l.walls.At != 0 {
		clock.Walls.At += s.now
	}
	var events []*Event
	tell := func(e Event) {
		if e.T = s.now; l.silent && e.Life == nil {
			return
		}
		events = append(events, &e)
	}
	began := s.now
	tell(Event{Life: &Life{N: s.n}})
	pass(l.boots)
	tick()

	// What time an opening has is asked of a copy: here nothing may be saved yet.
	probe := s.crash()
	subject, err := probe.Open(idem.Options{Clock: clock, SweepInterval: -1})
	require.NoError(s.t, err)
	s.opened = append(s.opened, moment{life: s.n, real: s.now, store: s.claim(subject.Store, probe)})
	require.NoError(s.t, subject.Store.Close())

	subject, err = s.disk.Open(idem.Options{Clock: clock, SweepInterval: -1})
	require.NoError(s.t, err)
	pass(l.looks)
	tell(Event{Audit: &Audit{Began: s.now}})
	for _, c := range l.claims {
		pass(c.after)
		tick()
		tell(Event{Call: &Op{ID: s.id + 1, Kind: Claim}})
		s.commits = append(s.commits, moment{life: s.n, real: s.now, store: s.claim(subject.Store, s.disk)})
		if id := s.id; !c.cut {
			pass(c.takes)
			tell(Event{Return: &Answer{ID: id, Err: OK, Record: &Record{}}})
		}
	}
	pass(l.rests)
	tick()
	next := s.crash()
	require.NoError(s.t, subject.Store.Close())
	if !l.killed && !l.silent {
		next = s.crash()
	}
	s.disk = next

	s.skew.Life(clock.Walls, s.now, events)
	moved := events[0].T - began
	for _, of := range [][]moment{s.opened, s.commits} {
		for i := range of {
			if of[i].life == s.n {
				of[i].ahead = moved
			}
		}
	}
	return moved
}

// aged is how much more time the store counts between two moments than there is.
func aged(from, to moment) int64 { return (to.store - from.store) - (to.real - from.real) }

// bounded holds that the store counts no more time than Skew allows for, between any
// commit and any opening after it.
func (s *skewed) bounded() {
	for _, from := range s.commits {
		for _, to := range s.opened {
			if to.life > from.life && aged(from, to) > to.ahead-from.ahead {
				s.t.Errorf("from %+v to %+v a record ages by %v too much, and %v are allowed for", from, to,
					time.Duration(aged(from, to)), time.Duration(to.ahead-from.ahead))
				s.t.FailNow()
			}
		}
	}
}

// Whatever the clocks read, and whatever the journal does not tell, the bound holds.
func TestSkewBoundsEveryStore(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newSkewed(t)
		clocks := drawClocks(t)
		for range rapid.IntRange(2, 7).Draw(t, "lives") {
			s.live(clocks.life(t, false))
		}
		s.bounded()
	})
}

// What the journal does not tell is allowed for. In each of these the last opening counts
// too much of what the last commit made.
func TestSkewAllowsForWhatTheJournalDoesNotTell(t *testing.T) {
	t.Parallel()
	const (
		day   = 24 * time.Hour
		years = 10 * 365 * day
		ms    = time.Millisecond
	)
	reads := func(d time.Duration) Walls { return Walls{First: int64(d), Then: int64(d)} }
	steps := func(from, to, at time.Duration) Walls {
		return Walls{First: int64(from), Then: int64(to), At: int64(at)}
	}
	one := []skewedClaim{{after: ms, takes: ms}}
	for name, lives := range map[string][]skewedLife{
		"a clock stepped on, and nothing was saved of it": {
			{claims: one, killed: true}, {walls: steps(-day, years, ms), rests: day, killed: true}, {walls: reads(years)},
		},
		"a clock stepped on, and a commit saved it that nobody heard of": {
			{claims: one, killed: true},
			{walls: steps(-day, years, 10*ms), claims: []skewedClaim{one[0], {after: day, cut: true}}, killed: true},
			{walls: reads(2 * years)},
		},
		"a clock stepped on between a commit and its answer": {
			{walls: steps(-day, years, 2*ms), claims: []skewedClaim{{after: ms, takes: 5 * ms}}, killed: true}, {walls: reads(years)},
		},
		"a commit was long before its answer": {
			{claims: []skewedClaim{{takes: 1000 * ms}}, killed: true}, {walls: reads(-500 * ms), claims: one, killed: true}, {walls: reads(years)},
		},
		"an opening was long after the life began": {
			{claims: one, killed: true}, {walls: reads(-100 * ms), boots: 150 * ms, looks: 50 * ms, claims: one, killed: true}, {},
		},
		"an opening of which nobody heard was after a step": {
			{claims: one, killed: true}, {walls: steps(0, years, 100*ms), boots: 200 * ms, silent: true},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSkewed(t)
			for _, l := range lives {
				s.live(l)
			}
			require.Positive(t, aged(s.commits[len(s.commits)-1], s.opened[len(s.opened)-1]))
			s.bounded()
		})
	}
}

// Where the journal tells what was saved, the bound is what the store counts too much, to
// the nanosecond.
func TestSkewIsExactWhereTheJournalTells(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		s := newSkewed(t)
		clocks := drawClocks(t)
		before := s.live(clocks.life(t, true))
		for range rapid.IntRange(1, 6).Draw(t, "lives") {
			last := s.commits[len(s.commits)-1]
			ahead := s.live(clocks.life(t, true))
			require.Equal(t, max(0, aged(last, s.opened[len(s.opened)-1])), ahead-before)
			before = ahead
		}
	})
}

// clocks is how far wall clocks are ahead in the lives of one store, and how long it is
// closed between them. They are few: clocks that agree or not decide what is counted.
type clocks struct{ ahead, closed []time.Duration }

func drawClocks(t *rapid.T) clocks {
	const day = 24 * time.Hour
	few := func(of ...time.Duration) []time.Duration {
		return rapid.SliceOfN(rapid.SampledFrom(of), 2, 4).Draw(t, "durations")
	}
	return clocks{
		ahead:  few(0, -56*365*day, -2*365*day, -day, -time.Hour, 3*day, 10*365*day),
		closed: few(0, time.Second, time.Hour, 2*day, 8*day),
	}
}

// life draws a life. If it tells all, the journal has the times of its opening, and of its
// last commit, at which it ends.
func (c clocks) life(t *rapid.T, tellsAll bool) (l skewedLife) {
	duration := func(most time.Duration) time.Duration {
		return time.Duration(rapid.Int64Range(0, int64(most)).Draw(t, "duration"))
	}
	reading := func() int64 { return int64(rapid.SampledFrom(c.ahead).Draw(t, "ahead")) }
	l.walls.First = reading()
	l.walls.Then = l.walls.First
	if rapid.Bool().Draw(t, "steps") {
		l.walls.Then, l.walls.At = reading(), int64(1+duration(time.Second))
	}
	l.closed = rapid.SampledFrom(c.closed).Draw(t, "closed")
	l.killed = rapid.Bool().Draw(t, "killed")
	claims := rapid.IntRange(0, 3).Draw(t, "claims")
	if tellsAll {
		claims = max(claims, 1)
	}
	for range claims {
		claim := skewedClaim{after: duration(time.Second / 2)}
		if !tellsAll {
			claim.takes, claim.cut = duration(time.Millisecond), rapid.IntRange(0, 2).Draw(t, "cut") == 0
		}
		l.claims = append(l.claims, claim)
	}
	if !tellsAll {
		l.boots, l.looks, l.rests = duration(time.Second/4), duration(time.Second/4), duration(time.Second)
		l.silent = rapid.IntRange(0, 4).Draw(t, "silent") == 0
	}
	return l
}

// A trial met these lives. Only a life in 1970 had committed when the clock of a later one
// was a day behind the true time. That is not behind what was saved, so an opening ten years
// ahead counts a week against what the later life made.
func TestSkewAllowsForWhatWasNotBehind(t *testing.T) {
	t.Parallel()
	const (
		day   = 24 * time.Hour
		years = int64(10 * 365 * day)
		unset = -56 * int64(365*day)
		blink = time.Millisecond
	)
	claim := []skewedClaim{{after: blink, takes: blink}}
	s := newSkewed(t)
	var before int64
	for _, l := range []skewedLife{
		{walls: Walls{First: unset, Then: years, At: int64(time.Second)}, claims: claim, killed: true},
		{walls: Walls{First: -int64(day), Then: 0, At: int64(blink)}, closed: time.Hour, boots: blink, killed: true, silent: true},
		{walls: Walls{First: unset, Then: unset}, closed: time.Hour, claims: claim, killed: true},
		{killed: true, silent: true},
		{walls: Walls{First: -int64(day), Then: -int64(day)}, claims: claim, killed: true},
	} {
		before = s.live(l)
	}
	made := s.commits[len(s.commits)-1]
	after := s.live(skewedLife{walls: Walls{First: years, Then: unset, At: int64(time.Second)}, claims: claim})
	require.Equal(t, mostCounted-int64(blink), aged(made, s.opened[len(s.opened)-1]), "the store")
	require.Equal(t, mostCounted, after-before, "Skew")
	require.Zero(t, before, "no opening before had a clock ahead of what was saved")
}
