// Package memory is the engine that keeps records in memory: the reference engine,
// for tests and for work whose records need not outlive the process. What it holds
// is lost when the process ends; bolt and pebble keep it.
package memory

import (
	"context"
	"fmt"
	"hash/maphash"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/idemkv/idem"
)

// Options configures a Backend. The zero value is good.
type Options struct {
	// MaxRecords bounds the records held, expired ones that are not swept yet
	// included; new keys past it get idem.ErrFull. Default 1,000,000; negative: no
	// bound.
	MaxRecords int64
	// MaxBytes bounds the bytes held in the same way, overhead counted. Token
	// operations are never refused, so that results of claims in flight may
	// overshoot it. Default 512 MiB; negative: no bound.
	MaxBytes int64
}

const (
	defaultMaxRecords = 1_000_000
	defaultMaxBytes   = 512 << 20
	// recordOverhead is what a record costs beside its key and bytes: the Entry,
	// its share of the map and its place in the expiry index.
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
	_ idem.Backend = (*Backend)(nil)
	_ idem.Scanner = (*Backend)(nil)
	_ idem.Expirer = (*Backend)(nil)
	_ idem.Sizer   = (*Backend)(nil)
)

// shard holds the keys of one hash value. Its lock is held for one look-up or one
// change at a time, and for the length of a copy in Scan.
type shard struct {
	mu      sync.RWMutex
	entries map[string]held
	index   index
}

// held is an entry with the engine's own copy of its key. Assigning to a map
// replaces the key too, and the caller's may be a piece of something large that
// would be kept alive.
type held struct {
	key   string
	entry *idem.Entry
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
		b.shards[i].entries = make(map[string]held)
	}
	return b
}

// Bind implements idem.Backend.
func (b *Backend) Bind(idem.Host) (idem.Binding, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return idem.Binding{}, fmt.Errorf("%w: this memory engine; make another with memory.New", idem.ErrClosed)
	case b.bound:
		return idem.Binding{}, fmt.Errorf("%w: this memory engine is in use by another store", idem.ErrInvalid)
	}
	b.bound = true
	return idem.Binding{Direct: true}, nil
}

// Close implements idem.Backend. It frees nothing by itself: the records go with
// the Backend.
func (b *Backend) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	return nil
}

func (b *Backend) shard(key string) *shard {
	return &b.shards[maphash.String(b.seed, key)%shardCount]
}

// Read implements idem.Backend.
func (b *Backend) Read(key string) (*idem.Entry, error) {
	s := b.shard(key)
	s.mu.RLock()
	e := s.entries[key].entry
	s.mu.RUnlock()
	return e, nil
}

// Apply implements idem.Backend. Nothing here can fail half-way, so that each op
// is a commit of its own.
func (b *Backend) Apply(ctx context.Context, ops []*idem.Op) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	for _, op := range ops {
		b.apply(op)
	}
	return nil
}

func (b *Backend) apply(op *idem.Op) {
	s := b.shard(op.Key())
	s.mu.Lock()
	defer s.mu.Unlock()
	was := s.entries[op.Key()]
	key, cur := was.key, was.entry
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
	if next == nil {
		if cur != nil {
			delete(s.entries, key)
			b.records.Add(-1)
		}
	} else {
		if cur == nil {
			key = strings.Clone(op.Key())
		}
		s.entries[key] = held{key, next}
	}
	b.bytes.Add(size(key, next) - size(key, cur))
	if next != nil && next.Due != 0 && (cur == nil || cur.Due != next.Due) {
		s.index.push(idem.Due{At: next.Due, Key: key}, s.entries)
	}
	op.Committed()
}

// reserve says that there is no room for a claim, or counts its record in if it is
// new. A claim on a record that is there already needs no more room by itself, but
// what it will bring does.
func (b *Backend) reserve(isNew bool) error {
	if b.opts.MaxBytes > 0 && b.bytes.Load() >= b.opts.MaxBytes {
		return fmt.Errorf("%w: the memory engine holds %d bytes, Options.MaxBytes; raise it or shorten the retention",
			idem.ErrFull, b.opts.MaxBytes)
	}
	if !isNew {
		return nil
	}
	if n := b.records.Add(1); b.opts.MaxRecords > 0 && n > b.opts.MaxRecords {
		b.records.Add(-1)
		return fmt.Errorf("%w: the memory engine holds %d records, Options.MaxRecords; raise it or shorten the retention",
			idem.ErrFull, b.opts.MaxRecords)
	}
	return nil
}

func size(key string, e *idem.Entry) int64 {
	if e == nil {
		return 0
	}
	return int64(len(key)+len(e.Result)+len(e.Checkpoint)) + recordOverhead
}

// Scan implements idem.Scanner: a page is a shard, so that a record, which never
// leaves its shard, is seen once.
func (b *Backend) Scan(ctx context.Context, _, cursor string) ([]idem.Scanned, string, error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	i := 0
	if cursor != "" {
		i, _ = strconv.Atoi(cursor)
	}
	s := &b.shards[i]
	s.mu.RLock()
	page := make([]idem.Scanned, 0, len(s.entries))
	for k, h := range s.entries {
		page = append(page, idem.Scanned{Key: k, Entry: h.entry})
	}
	s.mu.RUnlock()
	if i++; i == shardCount {
		return page, "", nil
	}
	return page, strconv.Itoa(i), nil
}

// Size implements idem.Sizer: an estimate from what the records hold.
func (b *Backend) Size() (int64, error) { return b.bytes.Load(), nil }
