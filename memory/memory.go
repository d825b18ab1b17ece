// Package memory is the engine that keeps records in memory. It is the reference
// engine, for tests and for work whose records need not outlive the process. When the
// process ends, its records are lost; bolt and pebble keep theirs.
package memory

import (
	"context"
	"fmt"
	"hash/maphash"
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/idemkv/idem/engine"
)

// Options configures a Backend. The zero value is good.
type Options struct {
	// MaxRecords bounds the records held, including expired ones that are not swept yet.
	// New keys past it get idem.ErrFull. Default 1,000,000; negative: no bound.
	MaxRecords int64
	// MaxBytes bounds the bytes held in the same way, overhead included. Token
	// operations are never refused, so the results of claims in flight may overshoot it.
	// Default 512 MiB; negative: no bound.
	MaxBytes int64
}

const (
	defaultMaxRecords = 1_000_000
	defaultMaxBytes   = 512 << 20
	// recordOverhead is the cost of a record besides its key and bytes: the Entry, its
	// share of the map and its place in the expiry index.
	recordOverhead = 256
	shardCount     = 256
)

// Backend is a memory engine. Its methods are for the idem.Store it is given to.
type Backend struct {
	opts    Options
	seed    maphash.Seed
	shards  [shardCount]shard
	records atomic.Int64
	bytes   atomic.Int64

	mu     sync.Mutex
	bound  bool
	closed bool
}

var (
	_ engine.Backend = (*Backend)(nil)
	_ engine.Scanner = (*Backend)(nil)
	_ engine.Expirer = (*Backend)(nil)
	_ engine.Checker = (*Backend)(nil)
	_ engine.Sizer   = (*Backend)(nil)
)

// shard holds the keys of one hash value. Writers hold its lock for one change at a
// time. Scan and Expiring hold it while they copy.
type shard struct {
	entries table
	mu      sync.Mutex
	index   index
}

// New returns an empty engine.
func New(o Options) *Backend {
	if o.MaxRecords == 0 {
		o.MaxRecords = defaultMaxRecords
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	b := &Backend{opts: o, seed: maphash.MakeSeed()}
	for i := range b.shards {
		b.shards[i].index.init()
	}
	return b
}

// Bind implements engine.Backend. Whatever a memory engine held before is lost, so Bind
// tells the store that records up to now may be missing.
func (b *Backend) Bind(host engine.Host) (engine.Binding, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return engine.Binding{}, fmt.Errorf("%w: this memory engine; make another with memory.New", engine.ErrClosed)
	case b.bound:
		return engine.Binding{}, fmt.Errorf("%w: this memory engine is in use by another store", engine.ErrInvalid)
	}
	b.bound = true
	var saved engine.Meta
	wall, _ := host.Clock.Now()
	saved.Lose(wall)
	return engine.Binding{Saved: saved, Direct: true}, nil
}

// Close implements engine.Backend. It frees nothing itself: the records go with the
// Backend.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

func (b *Backend) hash(key string) uint64 { return maphash.String(b.seed, key) }

func (b *Backend) shard(hash uint64) *shard { return &b.shards[hash%shardCount] }

// Read implements engine.Backend.
func (b *Backend) Read(_ context.Context, key string) (*engine.Entry, error) {
	hash := b.hash(key)
	return b.shard(hash).entries.get(hash, key), nil
}

// Apply implements engine.Backend. Nothing here can fail half-way, so each op is its
// own commit.
func (b *Backend) Apply(ctx context.Context, ops []engine.Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, op := range ops {
		b.apply(op)
	}
	return nil
}

func (b *Backend) apply(op engine.Op) {
	hash := b.hash(op.Key())
	s := b.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	cur := s.entries.get(hash, op.Key())
	next, changed := op.Run(cur, nil)
	if !changed {
		return
	}
	if op.Grants() {
		if err := b.reserve(cur == nil); err != nil {
			op.Refuse(err)
			return
		}
	}
	key := s.entries.set(hash, op.Key(), next)
	if next == nil && cur != nil {
		b.records.Add(-1)
	}
	b.bytes.Add(size(key, next) - size(key, cur))
	if next != nil && next.Due != 0 && (cur == nil || cur.Due != next.Due) {
		s.index.push(engine.Due{At: next.Due, Key: key}, &s.entries)
	}
	op.Committed()
}

// reserve returns an error if there is no room for a claim, and counts the claim's
// record if it is new. A claim on an existing record adds no record, but the bytes it
// will bring need room too.
func (b *Backend) reserve(isNew bool) error {
	for {
		n := b.records.Load()
		if err := b.full(n, isNew); err != nil || !isNew {
			return err
		}
		// Never count above the bound, not even briefly: a concurrent claim would be
		// refused because of a record that is not there.
		if b.records.CompareAndSwap(n, n+1) {
			return nil
		}
	}
}

// full returns ErrFull if n records and the bytes held leave no room.
func (b *Backend) full(n int64, isNew bool) error {
	if b.opts.MaxBytes > 0 && b.bytes.Load() >= b.opts.MaxBytes {
		return fmt.Errorf("%w: the memory engine holds %d bytes, Options.MaxBytes; raise it or shorten the retention",
			engine.ErrFull, b.opts.MaxBytes)
	}
	if isNew && b.opts.MaxRecords > 0 && n >= b.opts.MaxRecords {
		return fmt.Errorf("%w: the memory engine holds %d records, Options.MaxRecords; raise it or shorten the retention",
			engine.ErrFull, b.opts.MaxRecords)
	}
	return nil
}

// Check implements engine.Checker.
func (b *Backend) Check(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	return b.full(b.records.Load(), true)
}

func size(key string, e *engine.Entry) int64 {
	if e == nil {
		return 0
	}
	return int64(len(key)+len(e.Result)+len(e.Checkpoint)) + recordOverhead
}

// Scan implements engine.Scanner. A page is a shard. A record never leaves its shard,
// so it is seen once.
func (b *Backend) Scan(ctx context.Context, _, cursor string) ([]engine.Scanned, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	i := 0
	if cursor != "" {
		var err error
		if i, err = strconv.Atoi(cursor); err != nil || i < 0 || i >= shardCount {
			return nil, "", fmt.Errorf("%w: the list does not go on at this place; begin it again", engine.ErrInvalid)
		}
	}
	s := &b.shards[i]
	s.mu.Lock()
	page := make([]engine.Scanned, 0, s.entries.live)
	for k, e := range s.entries.all {
		page = append(page, engine.Scanned{Key: k, Entry: e})
	}
	s.mu.Unlock()
	if i++; i == shardCount {
		return page, "", nil
	}
	return page, strconv.Itoa(i), nil
}

// Size implements engine.Sizer. It estimates from what the records hold.
func (b *Backend) Size() (int64, error) { return b.bytes.Load(), nil }
