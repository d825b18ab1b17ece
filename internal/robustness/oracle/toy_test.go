package oracle

import (
	"bytes"
	"context"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/txbackend"
)

// toy is an engine in memory on a disk of maps, with the faults of a mutant.
type toy struct {
	disk   *toyDisk
	writer sync.Mutex

	mu   sync.Mutex
	seen spaces // what readers see
	due  spaces // what an early acknowledgement still owes the disk
}

// own is the space of the caller's own data.
const own = txbackend.Meta + 1

type spaces [own + 1]map[string]string

func (s spaces) clone() (c spaces) {
	for i := range s {
		c[i] = maps.Clone(s[i])
		if c[i] == nil {
			c[i] = map[string]string{}
		}
	}
	return c
}

// faults are what a mutant does wrong; the zero value does nothing wrong.
type faults struct {
	acksEarly    bool                                    // the last commit is lost
	showsEarly   bool                                    // readers see commits that can be lost
	loses        func(rng *rand.Rand, s *spaces)         // after a crash
	withholds    []txbackend.Space                       // these spaces are a commit late on the disk
	runsTwice    bool                                    // same-commit functions
	overlooks    int                                     // one in so many records, when claiming
	spoilsCommit func(rng *rand.Rand, writes []write)    // now and then
	writesLater  bool                                    // than it answers, once somebody is told of writes
	swallows     bool                                    // errors of the disk
	tears        bool                                    // a commit that fails leaves half of itself
	wraps        func(*txbackend.Backend) engine.Backend // as the store sees it; nil: as it is
}

// toyDisk outlives the toys on it.
type toyDisk struct {
	faults faults
	rng    *rand.Rand // of the faults; under mu

	mu    sync.Mutex
	safe  spaces
	hook  func()
	fails func() error // asked at each commit; nil: never
}

func newToyDisk(f faults, rng *rand.Rand) *toyDisk {
	return &toyDisk{faults: f, rng: rand.New(rand.NewPCG(rng.Uint64(), 2)), safe: spaces{}.clone()}
}

func (d *toyDisk) OnWrite(f func()) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.hook = f
}

// watched reports whether somebody is told of writes.
func (d *toyDisk) watched() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.hook != nil
}

func (d *toyDisk) wrote() {
	d.mu.Lock()
	hook := d.hook
	d.mu.Unlock()
	if hook != nil {
		hook()
	}
}

func (d *toyDisk) Crash(rng *rand.Rand) Disk {
	d.mu.Lock()
	defer d.mu.Unlock()
	c := newToyDisk(d.faults, rng)
	c.safe = d.safe.clone()
	if d.faults.loses != nil {
		d.faults.loses(rng, &c.safe)
	}
	return c
}

func (d *toyDisk) Open(o idem.Options) (Subject, error) {
	e := &toy{disk: d}
	d.mu.Lock()
	e.seen = d.safe.clone()
	e.due = d.safe.clone()
	d.mu.Unlock()
	core := txbackend.New(e)
	var b engine.Backend = core
	if d.faults.showsEarly {
		b = early{Backend: core, toy: e}
	}
	if d.faults.wraps != nil {
		b = d.faults.wraps(core)
	}
	store, err := idem.New(b, o)
	return Subject{
		Store: store,
		Do: func(ctx context.Context, r idem.Request, fn Effect) ([]byte, bool, error) {
			return store.DoEffect(ctx, r, fn)
		},
		Complete: func(ctx context.Context, t idem.Token, fn Effect) error { return store.CompleteEffect(ctx, t, fn) },
		Update: func(ctx context.Context, fn func(KV) error) error {
			return core.Update(ctx, Effect(func(kv KV) ([]byte, error) { return nil, fn(kv) }))
		},
		Own: func(yield func(string, []byte)) error {
			e.mu.Lock()
			defer e.mu.Unlock()
			for key, value := range e.seen[own] {
				yield(key, []byte(value))
			}
			return nil
		},
	}, err
}

// early reads past the gate.
type early struct {
	*txbackend.Backend
	toy *toy
}

func (e early) Read(_ context.Context, key string) (*engine.Entry, error) { return e.toy.Read(key) }

func (e *toy) Name() string         { return "toy" }
func (e *toy) Moved() error         { return nil }
func (e *toy) Room() error          { return nil }
func (e *toy) Size() (int64, error) { return 0, nil }

func (e *toy) Close() error {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	e.disk.safe = e.due.clone()
	return nil
}

func (e *toy) get(space txbackend.Space, key string) (string, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	value, ok := e.seen[space][key]
	return value, ok
}

func (e *toy) Read(key string) (*engine.Entry, error) {
	value, ok := e.get(txbackend.Records, key)
	if !ok {
		return nil, nil
	}
	return codec.DecodeRecord(key, []byte(value))
}

func (e *toy) Scan(space txbackend.Space, from, to []byte, limit int) (pairs []txbackend.Pair, err error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, key := range slices.Sorted(maps.Keys(e.seen[space])) {
		if key >= string(from) && (to == nil || key < string(to)) && len(pairs) < limit {
			pairs = append(pairs, txbackend.Pair{Key: []byte(key), Value: []byte(e.seen[space][key])})
		}
	}
	return pairs, nil
}

func (e *toy) Update(fn func(txbackend.Tx) error) error {
	e.writer.Lock()
	defer e.writer.Unlock()
	tx := &toyTx{e: e}
	if err := fn(tx); err != nil {
		return err
	}
	f := e.disk.faults
	if f.spoilsCommit != nil {
		e.disk.mu.Lock()
		f.spoilsCommit(e.disk.rng, tx.writes)
		e.disk.mu.Unlock()
	}
	e.mu.Lock()
	before := e.due.clone()
	for _, w := range tx.writes {
		w.to(&e.seen)
		w.to(&e.due)
	}
	e.mu.Unlock()
	if f.writesLater && e.disk.watched() {
		go func() { e.disk.wrote(); e.disk.wrote() }()
		return nil
	}
	e.disk.wrote()
	for range 50 { // let readers look
		runtime.Gosched()
	}
	e.disk.wrote()
	if e.disk.fails != nil {
		if err := e.disk.fails(); err != nil {
			return e.failed(err, tx.writes, before)
		}
	}
	safe := e.due.clone()
	if f.acksEarly {
		safe = before
	}
	for _, space := range f.withholds {
		safe[space] = before[space]
	}
	e.disk.mu.Lock()
	e.disk.safe = safe
	e.disk.mu.Unlock()
	e.disk.wrote()
	return nil
}

// failed is a commit that can be seen and that the disk failed: it may have taken
// effect.
func (e *toy) failed(err error, writes []write, before spaces) error {
	e.disk.mu.Lock()
	defer e.disk.mu.Unlock()
	e.mu.Lock()
	defer e.mu.Unlock()
	switch f := e.disk.faults; {
	case f.tears:
		e.due = before
		for _, w := range writes[:len(writes)/2] {
			w.to(&e.due)
		}
	case f.swallows:
		e.due = before
		return nil
	case e.disk.rng.IntN(2) == 0:
		e.due = before
	}
	return err
}

type write struct {
	space txbackend.Space
	key   string
	value *string // nil: delete
}

func (w write) to(s *spaces) {
	if w.value == nil {
		delete(s[w.space], w.key)
	} else {
		s[w.space][w.key] = *w.value
	}
}

type toyTx struct {
	e      *toy
	writes []write
}

func (t *toyTx) Get(space txbackend.Space, key []byte) ([]byte, error) {
	value, ok := t.e.get(space, string(key))
	if n := t.e.disk.faults.overlooks; ok && n > 0 && space == txbackend.Records {
		t.e.disk.mu.Lock()
		ok = t.e.disk.rng.IntN(n) > 0
		t.e.disk.mu.Unlock()
	}
	if !ok {
		return nil, nil
	}
	return []byte(value), nil
}

func (t *toyTx) Set(space txbackend.Space, key, value []byte) error {
	v := string(value)
	t.writes = append(t.writes, write{space: space, key: string(key), value: &v})
	return nil
}

func (t *toyTx) Delete(space txbackend.Space, key []byte) error {
	t.writes = append(t.writes, write{space: space, key: string(key)})
	return nil
}

func (t *toyTx) Effect(_ context.Context, fn any) (result []byte, spoiled bool, err error) {
	kept := len(t.writes)
	if t.e.disk.faults.runsTwice {
		_, _ = fn.(Effect)(toyKV{t})
	}
	result, err = fn.(Effect)(toyKV{t})
	if err != nil {
		t.writes = t.writes[:kept]
	}
	return bytes.Clone(result), false, err
}

// toyKV is the caller's own data in a commit, with what was written in it before.
type toyKV struct{ tx *toyTx }

func (k toyKV) Get(key string) []byte {
	for _, w := range slices.Backward(k.tx.writes) {
		if w.space == own && w.key == key {
			return []byte(*w.value)
		}
	}
	if value, ok := k.tx.e.get(own, key); ok {
		return []byte(value)
	}
	return nil
}

func (k toyKV) Put(key string, value []byte) {
	v := string(value)
	k.tx.writes = append(k.tx.writes, write{space: own, key: key, value: &v})
}
