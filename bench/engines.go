package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/memory"
	"github.com/idemkv/idem/pebble"
)

// Engine is one kind of engine.Backend to measure. A new engine is one more of these.
type Engine struct {
	// Name stands after backend= in names.
	Name string
	// Durable: it writes to dir, and a cache stands in front of it.
	Durable bool
	// Open opens the backend in dir, which it may have used before.
	Open func(dir string) (engine.Backend, error)
	// Settle, if not nil, brings what was written into the form that it takes in
	// time.
	Settle func(ctx context.Context, b engine.Backend) error
}

// PebbleCacheBytes is the size of Pebble's block cache, of idem's and of every other.
const PebbleCacheBytes = 64 << 20

// Engines returns idem's own engines. Bounds of the memory engine are off, and all
// else is as its zero Options have it.
func Engines() []Engine {
	return []Engine{
		{
			Name: "memory",
			Open: func(string) (engine.Backend, error) {
				return memory.New(memory.Options{MaxRecords: -1, MaxBytes: -1}), nil
			},
		},
		{
			Name:    "bolt",
			Durable: true,
			Open: func(dir string) (engine.Backend, error) {
				return bolt.Open(filepath.Join(dir, "idem.db"), bolt.Options{})
			},
		},
		{
			Name:    "pebble",
			Durable: true,
			Open: func(dir string) (engine.Backend, error) {
				return pebble.Open(filepath.Join(dir, "idem"), pebble.Options{CacheBytes: PebbleCacheBytes})
			},
			Settle: func(ctx context.Context, b engine.Backend) error {
				db := b.(*pebble.Backend).DB()
				if err := db.Flush(); err != nil {
					return err
				}
				return db.Compact(ctx, []byte{0}, []byte{0xff}, false)
			},
		},
	}
}

// fillBatch is how many records a commit of Fill has.
const fillBatch = 20_000

// cacheFor is a cache with room for every record of a workload, whatever its shards
// are handed.
func cacheFor(w Workload) int64 { return 2 * int64(w.Keys.Len()+1000) * int64(1024+w.ResultBytes) }

// OpenStore opens an engine in dir and a store on it.
func OpenStore(e Engine, dir string, o idem.Options) (*idem.Store, error) {
	b, err := e.Open(dir)
	if err != nil {
		return nil, err
	}
	s, err := idem.New(b, o)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return s, nil
}

// Fill stores the keys of w from the from-th to before the to-th as completed, with
// the retention; zero: the store's. Results have the size of w's and are random, each
// another, so that no engine that compresses can make much of them. The store's
// Options.MaxBatch is at least fillBatch.
func Fill(ctx context.Context, s *idem.Store, w Workload, from, to int, retention time.Duration) error {
	random := rand.NewChaCha8([32]byte{'f', 'i', 'l', 'l', byte(from), byte(from >> 8), byte(from >> 16), byte(from >> 24)})
	for ; from < to; from += fillBatch {
		n := min(fillBatch, to-from)
		results := make([]byte, n*w.ResultBytes)
		_, _ = random.Read(results) // never fails
		requests := make([]idem.Request, n)
		for i := range requests {
			requests[i] = idem.Request{Key: w.Keys.Fill(from + i), Retention: retention}
		}
		completions := make([]idem.Completion, n)
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
