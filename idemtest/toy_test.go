package idemtest_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
)

// toy is a fourth engine, written from the comments of engine.Backend alone: a map in
// front of a "disk" that outlives it. One commit at a time, each applied to the map
// when the disk has it.
type toy struct {
	disk  *toyDisk
	limit int           // records; zero: no bound
	turn  chan struct{} // held by who commits; a channel, so that waiting for it heeds ctx
	host  engine.Host

	mu      sync.RWMutex
	entries map[string]*engine.Entry
	mine    map[string][]byte // the caller's own data
	bad     map[string]error
	places  []engine.Due // the expiry index, in order
	bound   bool
	closed  bool

	readOnly bool
	broken   error

	// Where the suite and the mutants interfere; nil in ordinary life.
	stall  func() // before a commit becomes durable
	fails  bool   // the next commit
	faults faults
}

// toyDisk is what is left of a toy when its process is gone.
type toyDisk struct {
	open    atomic.Int32
	mu      sync.Mutex
	records map[string][]byte // CRC32C of key and value, then the value
	mine    map[string][]byte
	places  []engine.Due
	meta    engine.Meta
}

func (d *toyDisk) clone() *toyDisk {
	d.mu.Lock()
	defer d.mu.Unlock()
	return &toyDisk{records: maps.Clone(d.records), mine: maps.Clone(d.mine), places: slices.Clone(d.places), meta: d.meta}
}

var (
	_ engine.Scanner = (*toy)(nil)
	_ engine.Expirer = (*toy)(nil)
	_ engine.Checker = (*toy)(nil)

	toyDisks   sync.Map // by folder
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

func openToy(dir string) *toy {
	d, _ := toyDisks.LoadOrStore(dir, &toyDisk{records: map[string][]byte{}})
	b := &toy{disk: d.(*toyDisk), turn: make(chan struct{}, 1), entries: map[string]*engine.Entry{}, bad: map[string]error{}}
	b.disk.open.Add(1)
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	for key, raw := range b.disk.records {
		if e, err := decodeToy(key, raw); err != nil {
			b.bad[key] = err
		} else {
			b.entries[key] = e
		}
	}
	b.mine = maps.Clone(b.disk.mine)
	b.places = slices.Clone(b.disk.places)
	return b
}

func encodeToy(key string, e *engine.Entry) []byte {
	value, err := json.Marshal(e)
	if err != nil {
		panic(err)
	}
	sum := crc32.Checksum(append([]byte(key), value...), castagnoli)
	return append(binary.BigEndian.AppendUint32(nil, sum), value...)
}

func decodeToy(key string, raw []byte) (*engine.Entry, error) {
	if sum := crc32.Checksum(append([]byte(key), raw[4:]...), castagnoli); sum != binary.BigEndian.Uint32(raw) {
		return nil, fmt.Errorf("%w: its checksum is wrong", idem.ErrCorrupt)
	}
	e := new(engine.Entry)
	if err := json.Unmarshal(raw[4:], e); err != nil {
		return nil, fmt.Errorf("%w: %w", idem.ErrCorrupt, err)
	}
	return e, nil
}

func (b *toy) Bind(h engine.Host) (engine.Binding, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch {
	case b.closed:
		return engine.Binding{}, idem.ErrClosed
	case b.bound && !b.faults.bindTwice:
		return engine.Binding{}, fmt.Errorf("%w: this toy is bound", idem.ErrInvalid)
	}
	b.bound, b.host = true, h
	return engine.Binding{Saved: b.disk.meta, ReadOnly: b.readOnly}, nil
}

func (b *toy) Read(ctx context.Context, key string) (*engine.Entry, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.broken != nil {
		return nil, b.broken
	}
	return b.faults.shown(b.entries[key]), b.bad[key]
}

func (b *toy) Apply(ctx context.Context, ops []engine.Op) error {
	select {
	case b.turn <- struct{}{}:
	case <-b.faults.heeded(ctx).Done():
		return ctx.Err()
	}
	err := b.faults.heeded(ctx).Err()
	changed := 0
	if err == nil {
		changed, err = b.commit(ops)
	}
	<-b.turn
	if changed > 0 && err == nil {
		b.host.Group(changed, 0)
	}
	return err
}

// commit has the turn.
func (b *toy) commit(ops []engine.Op) (changed int, err error) {
	b.mu.RLock()
	err, size := b.broken, len(b.entries)+len(b.bad)
	b.mu.RUnlock()
	if err != nil {
		return 0, err
	}
	next := map[string]*engine.Entry{} // nil: removed
	mine := map[string][]byte{}
	maps.Copy(mine, b.mine)
	places := slices.Clone(b.places)
	for _, op := range b.faults.ordered(ops) {
		cur, readErr := b.current(next, op.Key())
		after, change := b.faults.run(op, cur, readErr)
		if x, ok := op.Effect().(*toyEffect); ok {
			after, change = b.effect(op, x, mine)
		}
		if !change {
			continue
		}
		if op.Grants() && b.limit > 0 && cur == nil && size >= b.limit {
			op.Refuse(fmt.Errorf("%w: room for %d records", idem.ErrFull, b.limit))
			continue
		}
		if cur == nil && after != nil {
			size++
		}
		next[op.Key()] = after
		places = movePlaces(places, op, cur, after)
		changed++
	}
	if changed == 0 {
		return 0, nil
	}
	if err := b.save(next, mine, places, ops); err != nil {
		return 0, err
	}
	b.mu.Lock()
	for key, e := range next {
		delete(b.bad, key)
		if b.entries[key] = e; e == nil {
			delete(b.entries, key)
		}
	}
	b.places, b.mine = places, mine
	b.mu.Unlock()
	b.faults.committed(ops)
	return changed, nil
}

// current is the entry of key at this point of a commit.
func (b *toy) current(next map[string]*engine.Entry, key string) (*engine.Entry, error) {
	if e, ok := next[key]; ok {
		return e, nil
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.faults.shown(b.entries[key]), b.bad[key]
}

// movePlaces puts the place of the entry after a change where those before it
// were. It changes places in place.
func movePlaces(places []engine.Due, op engine.Op, before, after *engine.Entry) []engine.Due {
	at := func(t engine.Instant) (int, bool) {
		return slices.BinarySearchFunc(places, engine.Due{At: t, Key: op.Key()}, compareDue)
	}
	drop := func(t engine.Instant) {
		if i, found := at(t); found {
			places = slices.Delete(places, i, i+1)
		}
	}
	drop(op.Due())
	if before != nil {
		drop(before.Due)
	}
	if after != nil && after.Due != 0 {
		if i, found := at(after.Due); !found {
			places = slices.Insert(places, i, engine.Due{At: after.Due, Key: op.Key()})
		}
	}
	return places
}

func compareDue(a, b engine.Due) int {
	return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Key, b.Key))
}

// save makes a commit durable.
func (b *toy) save(next map[string]*engine.Entry, mine map[string][]byte, places []engine.Due, ops []engine.Op) error {
	meta := b.host.Meta()
	b.mu.RLock()
	stall, fails := b.stall, b.fails
	b.mu.RUnlock()
	b.faults.unsaved(next, ops)
	if stall != nil {
		stall()
	}
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	for key, e := range next {
		if b.disk.records[key] = encodeToy(key, e); e == nil {
			delete(b.disk.records, key)
		}
	}
	b.disk.places, b.disk.mine, b.disk.meta = places, mine, b.faults.meta(b.disk.meta, meta)
	if !fails {
		return nil
	}
	err := fmt.Errorf("%w: the toy's disk says no", idem.ErrBroken)
	b.mu.Lock()
	b.fails, b.broken = false, err
	b.mu.Unlock()
	b.host.Broken(err)
	return err
}

func (b *toy) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed = true
	b.disk.open.Add(-1)
	if b.bound && b.broken == nil && (!b.readOnly || b.faults.saves) {
		b.disk.mu.Lock()
		defer b.disk.mu.Unlock()
		b.disk.meta = b.faults.meta(b.disk.meta, b.host.Meta())
	}
	return nil
}

func (b *toy) Scan(ctx context.Context, prefix, cursor string) (page []engine.Scanned, next string, err error) {
	const pageSize = 50
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.broken != nil {
		return nil, "", b.broken
	}
	var keys []string
	for _, all := range []map[string]struct{}{keysOf(b.entries), keysOf(b.bad)} {
		for key := range all {
			if key > cursor && strings.HasPrefix(key, prefix) {
				keys = append(keys, key)
			}
		}
	}
	slices.Sort(keys)
	if len(keys) > pageSize {
		keys = keys[:pageSize]
		next = keys[pageSize-1]
	}
	for _, key := range keys {
		page = append(page, engine.Scanned{Key: key, Entry: b.faults.shown(b.entries[key]), Err: b.bad[key]})
	}
	return page, next, nil
}

// wall is what the store's clock shows.
func (b *toy) wall() int64 {
	wall, _ := b.host.Clock.Now()
	return wall.UnixNano()
}

func (b *toy) Check(context.Context) error {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.broken == nil && b.limit > 0 && len(b.entries)+len(b.bad) >= b.limit {
		return fmt.Errorf("%w: room for %d records", idem.ErrFull, b.limit)
	}
	return b.broken
}

func keysOf[V any](m map[string]V) map[string]struct{} {
	keys := make(map[string]struct{}, len(m))
	for key := range m {
		keys[key] = struct{}{}
	}
	return keys
}

func (b *toy) Expiring(ctx context.Context, from engine.Due, until engine.Instant, limit int) ([]engine.Due, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	b.mu.RLock()
	defer b.mu.RUnlock()
	if b.broken != nil {
		return nil, b.broken
	}
	i, found := slices.BinarySearchFunc(b.places, from, compareDue)
	if found {
		i++
	}
	end := i
	for end < len(b.places) && end-i < limit && b.places[end].At <= until {
		end++
	}
	return slices.Clone(b.places[i:end]), nil
}

// theToy finds the toy in whatever a mutant put around it.
func (b *toy) theToy() *toy { return b }

func toyOf(b engine.Backend) *toy { return b.(interface{ theToy() *toy }).theToy() }

// toyHarness is the harness of the toy; bend makes a mutant of it.
func toyHarness(bend func(*toy) engine.Backend) idemtest.Harness {
	return idemtest.Harness{
		Open: func(_ testing.TB, dir string) engine.Backend { return bend(openToy(dir)) },
		OpenAgain: func(_ testing.TB, dir string) error {
			if d, ok := toyDisks.Load(dir); ok && d.(*toyDisk).open.Load() > 0 {
				return idem.ErrLocked
			}
			return nil
		},
		OpenReadOnly: func(_ testing.TB, dir string) engine.Backend {
			b := openToy(dir)
			b.readOnly = true
			return bend(b)
		},
		Backup: func(t testing.TB, backend engine.Backend, _ string) string {
			b := toyOf(backend)
			folder, c := t.TempDir(), b.disk.clone()
			if c.meta.LostUntil = engine.Restored; b.faults.unrestored {
				c.meta.LostUntil = 0
			}
			if b.faults.emptied {
				c.records = map[string][]byte{}
			}
			toyDisks.Store(folder, c)
			return folder
		},
		OpenBounded: func(_ testing.TB, dir string, records int) engine.Backend {
			b := openToy(dir)
			b.limit = records
			return bend(b)
		},
		Stall: func(_ testing.TB, backend engine.Backend) (<-chan struct{}, func()) {
			b := toyOf(backend)
			reached, released := make(chan struct{}), make(chan struct{})
			var once, first sync.Once
			b.mu.Lock()
			defer b.mu.Unlock()
			b.stall = func() {
				first.Do(func() { close(reached) })
				<-released
			}
			return reached, func() {
				once.Do(func() {
					b.mu.Lock()
					defer b.mu.Unlock()
					b.stall = nil
					close(released)
				})
			}
		},
		FailCommit: func(_ testing.TB, backend engine.Backend) {
			b := toyOf(backend)
			b.mu.Lock()
			defer b.mu.Unlock()
			b.fails = true
		},
		Crash: func(t testing.TB, backend engine.Backend, _ string) string {
			left := t.TempDir()
			toyDisks.Store(left, toyOf(backend).disk.clone())
			return left
		},
		Damage: func(t testing.TB, dir, key string) {
			d, _ := toyDisks.Load(dir)
			raw, ok := d.(*toyDisk).records[key]
			if !ok {
				t.Fatalf("no record of %q to damage", key)
			}
			raw = bytes.Clone(raw)
			raw[len(raw)/2] ^= 0x10
			d.(*toyDisk).records[key] = raw
		},
	}
}
