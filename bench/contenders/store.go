package contenders

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/memory"
	"github.com/idemkv/idem/pebble"
)

// Engines are the names of idem's engines. All but memory are durable.
var Engines = []string{"memory", "bolt", "pebble"}

// FillBatch is how many records a commit of Fill has. A store that is filled needs an
// Options.MaxBatch as large.
const FillBatch = 20_000

// PebbleCacheBytes is the size of Pebble's block cache, of idem's and of every other.
const PebbleCacheBytes = 64 << 20

// Store is a store of idem's, and its engine.
type Store struct {
	*idem.Store
	Bolt   *bolt.Backend   // nil unless it is the engine
	Pebble *pebble.Backend // nil unless it is the engine
}

// OpenStore opens a store in dir. The memory engine is not bounded, and all else is as
// the zero Options of the engine have it.
func OpenStore(name, dir string, o idem.Options) (s Store, err error) {
	var b engine.Backend
	switch name {
	case "memory":
		b = memory.New(memory.Options{MaxRecords: -1, MaxBytes: -1})
	case "bolt":
		s.Bolt, err = bolt.Open(filepath.Join(dir, "idem.db"), bolt.Options{})
		b = s.Bolt
	case "pebble":
		s.Pebble, err = pebble.Open(filepath.Join(dir, "idem"), pebble.Options{CacheBytes: PebbleCacheBytes})
		b = s.Pebble
	default:
		err = fmt.Errorf("there is no engine %q; take one of %v", name, Engines)
	}
	if err != nil {
		return Store{}, err
	}
	if s.Store, err = idem.New(b, o); err != nil {
		return Store{}, errors.Join(err, b.Close())
	}
	return s, nil
}

// Settle brings what was written into the form that it takes in time.
func (s Store) Settle(ctx context.Context) error {
	if s.Pebble == nil {
		return nil
	}
	db := s.Pebble.DB()
	if err := db.Flush(); err != nil {
		return err
	}
	return db.Compact(ctx, []byte{0}, []byte{0xff}, false)
}

// Fill stores the keys of w from the from-th to before the to-th as completed, each with
// a random result of its own: no engine that compresses can make much of them. Zero
// retention is the store's.
func Fill(ctx context.Context, s *idem.Store, w Workload, from, to int, retention time.Duration) error {
	random := rand.NewChaCha8([32]byte{'f', 'i', 'l', 'l', byte(from), byte(from >> 8), byte(from >> 16), byte(from >> 24)})
	for ; from < to; from += FillBatch {
		n := min(FillBatch, to-from)
		results := make([]byte, n*w.ResultBytes)
		_, _ = random.Read(results) // never fails
		requests, completions := make([]idem.Request, n), make([]idem.Completion, n)
		for i := range requests {
			requests[i] = idem.Request{Key: w.Keys.Fill(from + i), Retention: retention}
		}
		for i, c := range s.ClaimMany(ctx, requests) {
			if c.Err != nil {
				return fmt.Errorf("filling, record %d: %w", from+i, c.Err)
			}
			completions[i] = idem.Completion{Token: c.Token, Result: results[i*w.ResultBytes : (i+1)*w.ResultBytes]}
		}
		for i, err := range s.CompleteMany(ctx, completions) {
			if err != nil {
				return fmt.Errorf("filling, record %d: %w", from+i, err)
			}
		}
	}
	return nil
}

// Filled makes directories that hold all keys of a workload. Each is filled once and
// copied for everybody who wants it.
type Filled struct {
	Dir  string // of the originals
	mu   sync.Mutex
	made map[string]bool
}

// Into puts the files of a closed, settled store of the engine into dir.
func (f *Filled) Into(dir, name string, w Workload) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	original := filepath.Join(f.Dir, fmt.Sprintf("filled-%s-%d-%d", name, w.Keys.Len(), w.ResultBytes))
	if !f.made[original] {
		if err := os.Mkdir(original, 0o700); err != nil {
			return err
		}
		s, err := OpenStore(name, original, idem.Options{MaxBatch: FillBatch, CacheBytes: -1, SweepInterval: -1})
		if err != nil {
			return err
		}
		ctx := context.Background()
		err = Fill(ctx, s.Store, w, 0, w.Keys.Len(), 0)
		if err == nil {
			err = s.Settle(ctx)
		}
		if err := errors.Join(err, s.Close()); err != nil {
			return err
		}
		if f.made == nil {
			f.made = map[string]bool{}
		}
		f.made[original] = true
	}
	return os.CopyFS(dir, os.DirFS(original))
}

// JumpClock is the machine's clock with hours that can be skipped: records with an honest
// retention expire when the bench wants it.
type JumpClock struct {
	idem.Clock
	skipped atomic.Int64               // nanoseconds
	latest  atomic.Pointer[time.Timer] // the sweeper's: nobody else here waits for the clock
}

// NewJumpClock returns a clock that has not skipped anything.
func NewJumpClock() *JumpClock { return &JumpClock{Clock: idem.SystemClock()} }

// Now implements idem.Clock.
func (c *JumpClock) Now() (time.Time, time.Duration) {
	wall, elapsed := c.Clock.Now()
	skipped := time.Duration(c.skipped.Load())
	return wall.Add(skipped), elapsed + skipped
}

// AfterFunc implements idem.Clock.
func (c *JumpClock) AfterFunc(d time.Duration, f func()) func() bool {
	t := time.AfterFunc(d, f)
	c.latest.Store(t)
	return t.Stop
}

// Skip moves the clock by d.
func (c *JumpClock) Skip(d time.Duration) { c.skipped.Add(int64(d)) }

// Nudge has the sweeper look at the clock again. One that has read the time before a
// Skip and waits only then needs another Nudge.
func (c *JumpClock) Nudge() {
	if t := c.latest.Load(); t != nil {
		t.Reset(0)
	}
}
