package oracle

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/fakeclock"
)

// Disk is the disk of a store in this process.
type Disk interface {
	// Open opens the store that is there, creating it if necessary.
	Open(o idem.Options) (Subject, error)
	// OnWrite makes every operation that writes or syncs call f, whoever does it. nil
	// ends that.
	OnWrite(f func())
	// Crash returns what a power cut at this moment may leave behind.
	Crash(rng *rand.Rand) Disk
}

// Cuts are lives of stores on Disks that are cut off again and again.
type Cuts struct {
	Fresh func(rng *rand.Rand) Disk // an empty one
	Seed  uint64                    // of the first store; after Run, of the last one
	// Images is about how many images of disks to judge.
	Images int
	// Every is how many writes there are between images, on average.
	Every int
	// Lives is how many lives a store has. Each starts from an image that the one before
	// left.
	Lives int
	// Ops is about how many operations a life has.
	Ops int

	// What was done.
	Judged, Stores, Operations int
}

// image is a disk as it was at some point of the journal.
type image struct {
	disk Disk
	at   Point
}

// Run makes and judges the images. The seed fixes what is asked, not how goroutines
// interleave. It may take several tries to see an error again.
func (c *Cuts) Run() error {
	for ; c.Judged < c.Images; c.Seed++ {
		c.Stores++
		if err := c.store(rand.New(rand.NewPCG(c.Seed, 0))); err != nil {
			return err
		}
	}
	return nil
}

// store runs the lives of one store.
func (c *Cuts) store(rng *rand.Rand) error {
	disk := c.Fresh(rng)
	checker := NewChecker()
	lives := 1 + rng.IntN(c.Lives)
	for n := 1; n <= lives; n++ {
		before := checker.Len()
		images, events, err := c.live(rng, disk, n)
		if err != nil {
			return fmt.Errorf("life %d: %w", n, err)
		}
		checker.Load(events)
		for i := range images {
			images[i].at.Answers += before
			images[i].at.Calls += before
		}
		for _, im := range images {
			if err := checker.Advance(im.at.Answers); err != nil {
				return err
			}
			if err := c.judge(checker, im); err != nil {
				return err
			}
		}
		c.Operations += len(events) / 2
		if n == lives || len(images) == 0 {
			return checker.All()
		}
		last := images[len(images)-1]
		checker.Cut(last.at)
		disk = last.disk
	}
	return nil
}

// live runs a life on disk and returns the images of the disk seen in it.
func (c *Cuts) live(rng *rand.Rand, disk Disk, n int) (images []image, events []*Event, err error) {
	clock := NewClock(0)
	j := NewJournal(clock)
	life := Life{N: n, LapseOnOpen: rng.IntN(3) == 0, MaxAttempts: 4 * rng.IntN(2)}
	j.Begin(life)
	var mu sync.Mutex
	crashes := rand.New(rand.NewPCG(rng.Uint64(), 1))
	next := 1 + crashes.IntN(2*c.Every)
	disk.OnWrite(func() {
		mu.Lock()
		defer mu.Unlock()
		if next--; next > 0 {
			return
		}
		next = 1 + crashes.IntN(2*c.Every)
		im := image{at: Point{Answers: j.Len()}}
		im.disk = disk.Crash(crashes)
		im.at.Calls, im.at.T = j.Len(), clock.Nanos()
		images = append(images, im)
	})
	pick := func(of ...int) int { return of[rng.IntN(len(of))] }
	w := Workload{
		Seed: rng.Uint64(), Life: n, Keys: pick(4, 12), Workers: pick(2, 6), Ops: c.Ops/2 + rng.IntN(c.Ops),
		Lease: time.Duration(pick(2, 20)) * time.Millisecond, Retention: time.Duration(pick(20, 100)) * time.Millisecond,
		MaxBytes: pick(200, 4<<10),
	}
	s, err := disk.Open(idem.Options{
		Clock: clock, LapseOnOpen: life.LapseOnOpen, MaxAttempts: life.MaxAttempts, MaxResult: w.MaxBytes, CacheBytes: int64(pick(0, -1)),
		SweepInterval: time.Millisecond, SweepSlice: 8,
	})
	if err != nil {
		return nil, nil, fmt.Errorf("opening: %w", err)
	}
	ctx := context.Background()
	audit, err := j.Audit(ctx, s)
	if err == nil {
		w.Do(ctx, s, j, audit.Records)
	}
	closeErr := s.Store.Close()
	disk.OnWrite(nil)
	mu.Lock() // nobody is using it any more
	defer mu.Unlock()
	if err == nil {
		err = closeErr
	}
	return images, j.Events(), err
}

// judge opens im and judges its content.
func (c *Cuts) judge(checker *Checker, im image) error {
	c.Judged++
	// Use a copy, because the last image is the disk of the next life.
	disk := im.disk.Crash(rand.New(rand.NewPCG(1, 1)))
	return JudgeImage(checker, im.at, disk.Open)
}

// JudgeImage opens a store on an image of its disk, seen at p, and judges its content.
// checker must have advanced to p.
func JudgeImage(checker *Checker, p Point, open func(idem.Options) (Subject, error)) error {
	where := fmt.Sprintf("an image of the disk at event %d to %d of the journal", p.Answers, p.Calls)
	s, err := open(idem.Options{Clock: fakeclock.New(time.Unix(0, p.T)), SweepInterval: -1})
	if err != nil {
		return fmt.Errorf("%s cannot be opened: %w", where, err)
	}
	ctx := context.Background()
	found, err := Look(ctx, s, p.T)
	if err == nil {
		err = checker.Image(p, found)
	}
	if err == nil {
		err = Probe(ctx, s.Store, found, checker.KnownFence())
	}
	if closeErr := s.Store.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return fmt.Errorf("%s: %w", where, err)
	}
	return nil
}
