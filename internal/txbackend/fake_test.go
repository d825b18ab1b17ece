package txbackend

import (
	"bytes"
	"context"
	"maps"
	"slices"
	"sync"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/callback"
	"github.com/idemkv/idem/internal/codec"
)

// fake is an Engine in memory. As both databases do, it shows a commit to readers
// before it is durable. A hook can stall, fail or panic at every point of it. batch,
// if set, is shown what a crash may leave where what comes before a same-commit
// function is a batch of its own, as in Pebble.
type fake struct {
	savepoints bool // what a same-commit function wrote can be undone alone
	batch      func(left *fake)

	writer sync.Mutex // held during an Update

	mu      sync.Mutex
	seen    [spaces]map[string]string // what readers see; the last space is the caller's own
	safe    [spaces]map[string]string // what a crash would leave
	hook    func(point, string) error
	commits int // that came to be durable
	rooms   int // times Room was asked
	closes  int // times Close was called
}

// own is the space of the caller's own data.
const (
	own    = Meta + 1
	spaces = own + 1
)

// point is where a hook is called: before, unless it says otherwise. The string
// with it is the key, where there is one.
type point string

const (
	reading   point = "reading"
	read      point = "read" // it has been read and not been returned
	scanning  point = "scanning"
	scanned   point = "scanned" // it has been read and not been returned
	beginning point = "beginning"
	getting   point = "getting"
	setting   point = "setting"
	deleting  point = "deleting"
	visible   point = "visible" // a commit can be seen and is not durable
	rooming   point = "rooming"
	sizing    point = "sizing"
	moving    point = "moving"
	closing   point = "closing"
)

func newFake() *fake {
	f := &fake{}
	for s := range f.seen {
		f.seen[s], f.safe[s] = map[string]string{}, map[string]string{}
	}
	return f
}

// left returns what a crash at this moment leaves.
func (f *fake) left() *fake {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := newFake()
	g.savepoints = f.savepoints
	for s := range f.safe {
		g.seen[s], g.safe[s] = maps.Clone(f.safe[s]), maps.Clone(f.safe[s])
	}
	return g
}

// at sets the hook; nil is none.
func (f *fake) at(hook func(point, string) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.hook = hook
}

// on sets a hook of one point.
func (f *fake) on(p point, hook func() error) {
	f.at(func(at point, _ string) error {
		if at == p {
			return hook()
		}
		return nil
	})
}

// stall makes whoever comes to p first stop there until release is called; reached
// is closed when somebody did.
func (f *fake) stall(p point) (reached <-chan struct{}, release func()) {
	arrived, let := make(chan struct{}), make(chan struct{})
	var once, end sync.Once
	f.on(p, func() error {
		first := false
		once.Do(func() { first = true })
		if first {
			close(arrived)
			<-let
		}
		return nil
	})
	return arrived, func() { end.Do(func() { close(let) }) }
}

func (f *fake) call(p point, key string) error {
	f.mu.Lock()
	hook := f.hook
	f.mu.Unlock()
	if hook == nil {
		return nil
	}
	return hook(p, key)
}

// raw returns a copy of a space as readers see it.
func (f *fake) raw(s Space) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.seen[s])
}

// damage changes a stored value behind the library's back; nil removes it.
func (f *fake) damage(s Space, key string, change func([]byte) []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	value := change([]byte(f.seen[s][key]))
	for _, m := range []map[string]string{f.seen[s], f.safe[s]} {
		if value == nil {
			delete(m, key)
		} else {
			m[key] = string(value)
		}
	}
}

// counts returns how many commits came to be durable, how often Room was asked, and
// how often Close was called.
func (f *fake) counts() (commits, rooms, closes int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.commits, f.rooms, f.closes
}

// durable returns a copy of a space as a crash would leave it.
func (f *fake) durable(s Space) map[string]string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.safe[s])
}

func (f *fake) Name() string { return "fake.db" }

func (f *fake) Read(key string) (*engine.Entry, error) {
	if err := f.call(reading, key); err != nil {
		return nil, err
	}
	f.mu.Lock()
	value, ok := f.seen[Records][key]
	f.mu.Unlock()
	if err := f.call(read, key); err != nil {
		return nil, err
	}
	if !ok {
		return nil, nil
	}
	return codec.DecodeRecord(key, []byte(value))
}

func (f *fake) Scan(space Space, from, to []byte, limit int) ([]Pair, error) {
	if err := f.call(scanning, string(from)); err != nil {
		return nil, err
	}
	f.mu.Lock()
	var pairs []Pair
	for _, key := range slices.Sorted(maps.Keys(f.seen[space])) {
		if key >= string(from) && (to == nil || key < string(to)) && len(pairs) < limit {
			pairs = append(pairs, Pair{Key: []byte(key), Value: []byte(f.seen[space][key])})
		}
	}
	f.mu.Unlock()
	return pairs, f.call(scanned, string(from))
}

func (f *fake) Update(fn func(Tx) error) error {
	f.writer.Lock()
	defer f.writer.Unlock()
	if err := f.call(beginning, ""); err != nil {
		return err
	}
	tx := &fakeTx{f: f}
	if err := fn(tx); err != nil {
		return err
	}
	f.apply(tx.writes)
	if err := f.call(visible, ""); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for s := range f.seen {
		f.safe[s] = maps.Clone(f.seen[s])
	}
	f.commits++
	return nil
}

// apply lets readers see writes.
func (f *fake) apply(writes []fakeWrite) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, w := range writes {
		if w.value == nil {
			delete(f.seen[w.space], w.key)
		} else {
			f.seen[w.space][w.key] = *w.value
		}
	}
}

func (f *fake) Room() error {
	f.mu.Lock()
	f.rooms++
	f.mu.Unlock()
	return f.call(rooming, "")
}

func (f *fake) Moved() error { return f.call(moving, "") }

func (f *fake) Size() (int64, error) { return 4711, f.call(sizing, "") }

func (f *fake) Close() error {
	f.mu.Lock()
	f.closes++
	f.mu.Unlock()
	return f.call(closing, "")
}

type fakeTx struct {
	f      *fake
	writes []fakeWrite
	gone   bool // given up: nothing may be asked of it
}

type fakeWrite struct {
	space Space
	key   string
	value *string // nil: delete
}

func (t *fakeTx) Get(space Space, key []byte) ([]byte, error) {
	if err := t.f.call(getting, string(key)); err != nil {
		return nil, err
	}
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	value, ok := t.f.seen[space][string(key)]
	if !ok {
		return nil, nil
	}
	return []byte(value), nil
}

func (t *fakeTx) Set(space Space, key, value []byte) error {
	if t.gone {
		panic("a transaction that is spoiled was written to")
	}
	v := string(bytes.Clone(value))
	t.writes = append(t.writes, fakeWrite{space: space, key: string(key), value: &v})
	return t.f.call(setting, string(key))
}

func (t *fakeTx) Delete(space Space, key []byte) error {
	if t.gone {
		panic("a transaction that is spoiled was written to")
	}
	t.writes = append(t.writes, fakeWrite{space: space, key: string(key)})
	return t.f.call(deleting, string(key))
}

// sameCommit is a same-commit function of the fake.
type sameCommit = func(*fakeTx) ([]byte, error)

// withCtx is one that looks at its ctx.
type withCtx = func(context.Context, *fakeTx) ([]byte, error)

func (t *fakeTx) Effect(ctx context.Context, fn any) ([]byte, bool, error) {
	if t.f.batch != nil && len(t.writes) > 0 {
		left := t.f.left()
		left.apply(t.writes)
		t.f.batch(left)
	}
	mark := len(t.writes)
	result, err := callback.Run(func() ([]byte, error) {
		if f, ok := fn.(withCtx); ok {
			return f(ctx, t)
		}
		return fn.(sameCommit)(t)
	})
	if err == nil {
		return result, false, nil
	}
	if t.f.savepoints {
		t.writes = t.writes[:mark]
		return nil, false, err
	}
	t.gone = true
	return nil, true, err
}

// put writes the caller's own data in a same-commit function.
func (t *fakeTx) put(key, value string) {
	_ = t.Set(own, []byte(key), []byte(value))
}

// own reads the caller's own data in a same-commit function, its own writes included.
func (t *fakeTx) own(key string) string {
	for _, w := range slices.Backward(t.writes) {
		if w.space == own && w.key == key {
			return *w.value
		}
	}
	t.f.mu.Lock()
	defer t.f.mu.Unlock()
	return t.f.seen[own][key]
}
