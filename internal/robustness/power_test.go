package robustness

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/storetest"
)

// What was not synced is lost, all or some of its sectors. A child works
// under strace, and images of the disk are made from the log of its writes and
// syncs. (Pebble's power cuts are in its package.) Make power runs it long.
func TestPower(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	if only := os.Getenv(engineEnv); only != "" && only != "bolt" {
		t.Skip("not the engine asked for")
	}
	images := uint64(200)
	if testing.Short() {
		images = 40
	}
	images = storetest.Setting(t, imagesEnv, images)
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	c := &cutter{how: tracer(t), images: int(images), fast: fastDir(t)}
	for s := seed; c.judged < c.images; s++ {
		c.dir, c.rng, c.stores = keptDir(t), rand.New(rand.NewPCG(s, 0)), c.stores+1
		if err := c.store(); err != nil {
			t.Fatalf("bolt, seed %d: %v\nThe store, its journals and traces are in %s. Try it again:\n\tmake power ENGINE=bolt SEED=%d IMAGES=%d",
				s, err, c.dir, s, images)
		}
		_ = os.RemoveAll(c.dir)
	}
	t.Logf("from seed %d: %d images of %d stores (%d without the file), from %d writes and %d syncs; %d operations",
		seed, c.judged, c.stores, c.absent, c.writes, c.syncs, c.operations)
}

// The oracle would notice syncs that a bolt engine leaves out.
func TestPowerNoticesLostSyncs(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	how := tracer(t)
	for name, ignores := range map[string]func(syncs int) bool{
		"all of them": func(int) bool { return true },
		// A commit syncs its pages, and then its meta page.
		"those of pages": func(syncs int) bool { return syncs%2 == 1 },
		"those of metas": func(syncs int) bool { return syncs%2 == 0 },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := &cutter{how: how, images: 3000, ignores: ignores, fast: fastDir(t)}
			var err error
			for s := uint64(1); c.judged < c.images && err == nil; s++ {
				c.dir, c.rng, c.stores = keptDir(t), rand.New(rand.NewPCG(s, 0)), c.stores+1
				err = c.store()
			}
			require.Error(t, err, "%d images were judged", c.judged)
			t.Logf("noticed in image %d: %.200v", c.judged, err)
			var v *oracle.Violation
			noticed := errors.As(err, &v) || errors.Is(err, oracle.ErrContradiction)
			for _, of := range []error{idem.ErrCorrupt, idem.ErrInvalid} {
				// The next life opens the store in a process of its own, whose error is a text.
				noticed = noticed || errors.Is(err, of) || strings.Contains(err.Error(), of.Error())
			}
			require.True(t, noticed, "%v", err)
		})
	}
}

// fastDir returns a folder that is in memory where there is one: thousands of images
// are synced in it.
func fastDir(t *testing.T) string {
	dir, err := os.MkdirTemp("/dev/shm", "idem-robustness-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return dir
}

// cutter makes and judges images of stores on bbolt.
type cutter struct {
	how     []string // to trace
	images  int
	ignores func(syncs int) bool // of the store's file, counted from its opening; nil: none
	fast    string               // a folder for the images

	dir string
	rng *rand.Rand

	judged, absent, stores, writes, syncs, operations int
}

// store is the lives of one store, each on what a power cut has left of the one before.
func (c *cutter) store() error {
	checker := oracle.NewChecker()
	var left []byte
	lives := 1 + c.rng.IntN(3)
	for n := 1; n <= lives; n++ {
		var err error
		if left, err = c.life(checker, n, left, n == lives); err != nil {
			return fmt.Errorf("life %d: %w", n, err)
		}
	}
	return nil
}

// life traces one life on a file that holds before (nil: there is none), judges
// images of it, and returns the one that the next life is on.
func (c *cutter) life(checker *oracle.Checker, n int, before []byte, last bool) (left []byte, err error) {
	p := RandomPlan(c.rng, "bolt", filepath.Join(c.dir, fmt.Sprintf("life-%d", n), "store"), n)
	p.Load.Ops = 100 + c.rng.IntN(200)
	p.Journal = filepath.Join(c.dir, fmt.Sprintf("journal-%d", n))
	if err := os.Mkdir(filepath.Dir(p.Path), 0o700); err != nil {
		return nil, err
	}
	disk := &loggedDisk{path: p.Path, others: map[string]*loggedFile{}}
	if before != nil {
		if err := os.WriteFile(p.Path, before, 0o600); err != nil {
			return nil, err
		}
		disk.file, disk.synced = &loggedFile{durable: before}, true
	}
	calls, err := trace(c.how, p, filepath.Join(c.dir, fmt.Sprintf("trace-%d", n)))
	if err != nil {
		return nil, err
	}
	events, err := eventsOf(calls, p.Journal)
	if err != nil {
		return nil, err
	}
	offset := checker.Len()
	checker.Load(events)
	c.operations += len(events) / 2
	if c.ignores != nil {
		syncs := 0
		disk.ignores = func(call *call) bool {
			if call.path == p.Path {
				syncs++
				return c.ignores(syncs)
			}
			return false
		}
	}

	// An image is of the moment before a call begins. The journal's order there is
	// that of the log: what was answered was so before it was written to be.
	seen, ended := 0, 0
	end := len(calls)
	if !last {
		end = len(calls)/2 + c.rng.IntN(len(calls)/2)
	}
	for _, call := range calls[:end] {
		if call.path == p.Journal {
			seen++
			continue
		}
		if !strings.HasPrefix(call.path, c.dir) {
			continue // what the child says to us
		}
		if call.begun < ended {
			return nil, fmt.Errorf("two calls at once write to the store, in line %d of the trace: which came first cannot be known", call.begun)
		}
		ended = call.ended
		at := oracle.Point{Answers: offset + seen, Calls: offset + seen, T: call.nanos}
		if c.rng.IntN(3) == 0 && c.judged < c.images {
			if err := c.judge(checker, disk, at); err != nil {
				return nil, fmt.Errorf("before line %d of the trace: %w", call.begun, err)
			}
		}
		disk.apply(call)
		switch call.name {
		case "pwrite64":
			c.writes++
		case "fdatasync", "fsync":
			c.syncs++
		}
	}
	if last {
		return nil, checker.All()
	}
	at := oracle.Point{Answers: offset + seen, Calls: offset + seen, T: calls[end].nanos}
	if err := checker.Advance(at.Answers); err != nil {
		return nil, err
	}
	checker.Cut(at)
	return disk.crash(c.rng), nil
}

// eventsOf returns what the calls wrote to the journal.
func eventsOf(calls []*call, journal string) (events []*oracle.Event, err error) {
	for _, call := range calls {
		if call.path != journal {
			continue
		}
		e := &oracle.Event{}
		if err := json.Unmarshal(call.data, e); err != nil {
			return nil, fmt.Errorf("the journal in the trace: %w", err)
		}
		events = append(events, e)
	}
	return events, nil
}

// judge opens a store on what a power cut at this moment may leave.
func (c *cutter) judge(checker *oracle.Checker, disk *loggedDisk, at oracle.Point) error {
	if err := checker.Advance(at.Answers); err != nil {
		return err
	}
	c.judged++
	path := filepath.Join(c.fast, "image")
	b := disk.crash(c.rng)
	if b == nil {
		c.absent++
		_ = os.Remove(path)
	} else if err := os.WriteFile(path, b, 0o600); err != nil {
		return err
	}
	err := oracle.JudgeImage(checker, at, func(o idem.Options) (oracle.Subject, error) {
		return Open("bolt", path, Sizes{Map: 1 << 15}, o)
	})
	if err != nil && b != nil { // to be looked at, as it was
		err = errors.Join(err, os.WriteFile(filepath.Join(c.dir, "image"), b, 0o600))
	}
	return err
}
