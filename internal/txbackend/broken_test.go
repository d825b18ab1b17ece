package txbackend

import (
	"context"
	"errors"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/callback"
)

// host binds b to a host that counts what it is told.
type host struct {
	meta engine.Meta

	mu     sync.Mutex
	broken []error
	groups []int
}

func (h *host) bind(t testing.TB, b *Backend) engine.Binding {
	t.Helper()
	binding, err := b.Bind(h.host())
	require.NoError(t, err)
	return binding
}

// bound is a backend of a new fake, bound to a host of its own.
func bound(t testing.TB) (*fake, *host, *Backend) {
	t.Helper()
	f, h := newFake(), &host{}
	b := New(f)
	h.bind(t, b)
	return f, h, b
}

func (h *host) host() engine.Host {
	return engine.Host{
		Meta: func() engine.Meta { return h.meta },
		Broken: func(err error) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.broken = append(h.broken, err)
		},
		Group: func(ops int, _ time.Duration) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.groups = append(h.groups, ops)
		},
	}
}

func (h *host) told() (broken []error, groups []int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.broken), slices.Clone(h.groups)
}

// requireCloses: the engine was closed n times.
func requireCloses(t testing.TB, f *fake, n int, why ...any) {
	t.Helper()
	_, _, closes := f.counts()
	require.Equal(t, n, closes, why...)
}

// requireBroken: everything answers ErrBroken with the cause.
func requireBroken(t testing.TB, b *Backend, cause error) {
	t.Helper()
	is := func(what string, err error) {
		t.Helper()
		require.ErrorIs(t, err, idem.ErrBroken, what)
		if cause != nil {
			require.ErrorIs(t, err, cause, what)
		}
		require.ErrorContains(t, err, "fake.db", what)
	}
	_, err := b.Read(context.Background(), "k")
	is("Read", err)
	is("Apply", b.Apply(ctx, nil))
	is("Update", b.Update(ctx, sameCommit(func(*fakeTx) ([]byte, error) {
		t.Error("a same-commit function was run on a broken engine")
		return nil, nil
	})))
	_, _, err = b.Scan(ctx, "", "")
	is("Scan", err)
	_, err = b.Expiring(ctx, engine.Due{}, engine.Never, 1)
	is("Expiring", err)
	_, err = b.Size()
	is("Size", err)
	_, err = b.Bind(engine.Host{})
	is("Bind", err)
}

func nothing(*fakeTx) ([]byte, error) { return nil, nil }

// A database whose size cannot be told is as good as before.
func TestMeasuringThatFailsBreaksNothing(t *testing.T) {
	t.Parallel()
	f, h, b := bound(t)
	f.on(sizing, func() error { return errDisk })
	_, err := b.Size()
	require.ErrorIs(t, err, errDisk)
	require.ErrorContains(t, err, "measuring fake.db")
	require.NotErrorIs(t, err, idem.ErrBroken)
	f.at(nil)
	require.NoError(t, b.Update(ctx, sameCommit(nothing)))
	n, err := b.Size()
	require.NoError(t, err)
	require.EqualValues(t, 4711, n)
	broken, _ := h.told()
	require.Empty(t, broken)
}

// Whatever goes wrong in the engine, in whichever call, breaks the store:
// that call and all later ones answer ErrBroken with the cause, the host hears of it
// once, and no panic gets out.
func TestEveryFaultBreaks(t *testing.T) {
	t.Parallel()
	update := func(b *Backend) error { return b.Update(ctx, sameCommit(nothing)) }
	get := func(b *Backend) error { _, err := b.Read(context.Background(), "k"); return err }
	for name, c := range map[string]struct {
		at   point
		call func(b *Backend) error
	}{
		"begin":    {beginning, update},
		"commit":   {visible, update},
		"set meta": {setting, update},
		"read":     {reading, get},
		"scan":     {scanning, func(b *Backend) error { _, _, err := b.Scan(ctx, "", ""); return err }},
		"scanned":  {scanned, func(b *Backend) error { _, _, err := b.Scan(ctx, "", ""); return err }},
		"expiring": {scanning, func(b *Backend) error { _, err := b.Expiring(ctx, engine.Due{}, 1, 1); return err }},
		"size":     {sizing, func(b *Backend) error { _, err := b.Size(); return err }},
	} {
		for how, hook := range map[string]func() error{
			"error": func() error { return errDisk },
			"panic": func() error { panic(errDisk) },
		} {
			if name == "size" && how == "error" {
				continue // see TestMeasuringThatFailsBreaksNothing
			}
			t.Run(name+"/"+how, func(t *testing.T) {
				t.Parallel()
				f, h, b := bound(t)
				f.on(c.at, hook)
				err := c.call(b)
				require.ErrorIs(t, err, idem.ErrBroken)
				cause := errDisk
				if how == "panic" {
					require.ErrorContains(t, err, "panic in the engine: "+errDisk.Error())
					cause = nil
				}
				f.at(nil) // it would answer again, and is not asked
				requireBroken(t, b, cause)
				broken, groups := h.told()
				require.Equal(t, []error{err}, broken)
				require.Empty(t, groups)
				require.NoError(t, b.Close())
				requireCloses(t, f, 1)
				require.Empty(t, f.durable(Meta), "closing wrote to an engine that is not to be trusted")
			})
		}
	}
}

// The same through a store, where the fault is met while operations are run.
func TestEveryFaultOfACommitBreaks(t *testing.T) {
	t.Parallel()
	for _, at := range []point{beginning, getting, setting, deleting, visible, rooming} {
		for how, hook := range map[string]func() error{
			"error": func() error { return errDisk },
			"panic": func() error { panic("lost") },
		} {
			if at == rooming && how == "error" {
				continue // an answer, not a fault
			}
			t.Run(string(at)+"/"+how, func(t *testing.T) {
				t.Parallel()
				var told []idem.Event
				e := newEnv(t, func(o *idem.Options) {
					o.Observer = func(_ context.Context, ev idem.Event) {
						if ev.Kind == idem.StoreBroken {
							told = append(told, ev)
						}
					}
				})
				token := e.completed("old", "r")
				e.fake.on(at, hook)
				var err error
				if at == deleting || at == getting { // a claim brings along what it read
					err = e.s.Forget(ctx, idem.Token{Key: "old"})
				} else {
					var c idem.Claim
					c, err = e.s.Claim(ctx, idem.Request{Key: "new"})
					require.Equal(t, idem.Claim{}, c, "granted by a commit that failed")
				}
				require.ErrorIs(t, err, idem.ErrBroken)
				e.fake.at(nil)
				requireBroken(t, e.b, nil)
				_, err = e.s.Get(ctx, "old")
				require.ErrorIs(t, err, idem.ErrBroken)
				_, err = e.s.Claim(ctx, idem.Request{Key: "old"})
				require.ErrorIs(t, err, idem.ErrBroken)
				require.ErrorIs(t, e.s.Complete(ctx, token, nil), idem.ErrBroken)
				require.NoError(t, e.s.Close())
				require.Len(t, told, 1)

				// It is whole when it is opened again.
				e.fake = e.fake.left()
				e.open()
				require.Equal(t, idem.Completed, e.state("old"))
				require.Zero(t, e.state("new"))
			})
		}
	}
}

// A commit that failed stays hidden for good: what the disk has of it is unknown.
func TestGateStaysShutAfterAFailedCommit(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	token := e.claim("k")
	e.fake.on(visible, func() error { return errDisk })
	require.ErrorIs(t, e.s.Complete(ctx, token, []byte("r")), idem.ErrBroken)
	was, held := e.b.gate.look("k")
	require.True(t, held)
	require.Equal(t, idem.InFlight, was.entry.State)
}

// Everybody who shares a commit that fails hears of it, and nobody is answered from it.
func TestFailedCommitAnswersAll(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		token := e.claim("a")
		var errs [4]error
		e.together(
			func() { errs[0] = e.s.Complete(ctx, token, nil) },
			func() { _, errs[1] = e.s.Claim(ctx, idem.Request{Key: "b"}) },
			func() { _, errs[2] = e.s.Claim(ctx, idem.Request{Key: "b"}) }, // to be refused, by the same commit
			func() { errs[3] = e.b.Update(ctx, sameCommit(nothing)) },
			func() {
				n := 0
				e.fake.on(visible, func() error {
					if n++; n == 2 { // the first is of the commit that gathered them
						return errDisk
					}
					return nil
				})
			},
		)
		for i, err := range errs {
			require.ErrorIs(t, err, idem.ErrBroken, i)
			require.ErrorIs(t, err, errDisk, i)
		}
	})
}

// An engine that breaks in the background, under a commit that comes back without an
// error: the commit is not believed.
func TestBreakDuringCommit(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.fake.on(visible, func() error { _ = e.b.Break(errDisk); return nil })
	_, err := e.s.Claim(ctx, idem.Request{Key: "k"})
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorIs(t, err, errDisk)
	_, held := e.b.gate.look("k")
	require.True(t, held)
}

// The first cause stays, and wakes those who wait.
func TestBreakInTheBackground(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		e.claim("k")
		waited := async(func() error {
			_, err := e.s.Wait(ctx, "k")
			return err
		})
		synctest.Wait()
		first := e.b.Break(errDisk)
		require.ErrorIs(t, first, errDisk)
		require.ErrorIs(t, <-waited, errDisk)
		second := e.b.Break(errors.New("another"))
		require.Equal(t, first, second)
		requireBroken(t, e.b, errDisk)
	})
}

// Before it is bound there is nobody to tell: the store is refused instead, also if
// the engine breaks while it is being bound.
func TestBreakBeforeBind(t *testing.T) {
	t.Parallel()
	for _, at := range []point{scanning, scanned} {
		f := newFake()
		b := New(f)
		f.on(at, func() error { _ = b.Break(errDisk); return nil })
		s, err := idem.New(b, idem.Options{})
		require.ErrorIs(t, err, errDisk, at)
		require.Nil(t, s)
		requireBroken(t, b, errDisk)
		require.NoError(t, b.Close())
	}
	b := New(newFake())
	_ = b.Break(errDisk)
	requireBroken(t, b, errDisk)
	require.NoError(t, b.Close())
}

// A panic while it is being bound breaks it like any other.
func TestPanicInBind(t *testing.T) {
	t.Parallel()
	f := newFake()
	b := New(f)
	f.on(scanning, func() error { panic("lost") })
	_, err := b.Bind((&host{}).host())
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorContains(t, err, "panic in the engine: lost")
	f.at(nil)
	requireBroken(t, b, nil)
	require.NoError(t, b.Close())
}

// A memory fault in a same-commit function is the engine's, not the function's.
func TestFaultInASameCommitFunctionBreaks(t *testing.T) {
	t.Parallel()
	fault := &callback.Fault{Err: errors.New("address 0x1000")}
	faulty := sameCommit(func(*fakeTx) ([]byte, error) { return nil, fault })
	t.Run("Update", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t)
		err := e.b.Update(ctx, faulty)
		require.ErrorIs(t, err, idem.ErrBroken)
		require.ErrorIs(t, err, fault)
	})
	t.Run("Do", func(t *testing.T) {
		t.Parallel()
		e := newEnv(t)
		_, _, err := e.s.DoEffect(ctx, idem.Request{Key: "k"}, faulty)
		require.ErrorIs(t, err, idem.ErrBroken)
		require.ErrorIs(t, err, fault)
	})
}

// Cancelled while queued, an operation is not run; once its commit has
// begun it has that commit's answer.
func TestContext(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		reached, release := e.fake.stall(beginning)
		under, cancelUnder := context.WithCancel(ctx)
		behind, cancelBehind := context.WithCancel(ctx)
		claim := func(ctx context.Context, key string) <-chan error {
			done := async(func() error {
				_, err := e.s.Claim(ctx, idem.Request{Key: key})
				return err
			})
			return done
		}
		first := claim(under, "under")
		<-reached
		second := claim(behind, "behind")
		synctest.Wait()
		cancelUnder()
		cancelBehind()
		require.Equal(t, context.Canceled, <-second)
		select {
		case err := <-first:
			t.Fatalf("answered %v before its commit", err)
		default:
		}
		release()
		require.NoError(t, <-first)
		require.Equal(t, idem.InFlight, e.state("under"))
		require.Zero(t, e.state("behind"))
	})
}

// A function may use another store, and return the error of one that broke. That is
// the function's own error and says nothing of the engine that runs it.
func TestAnotherStoresFaultBreaksOnlyThat(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, _ bool) {
		other := newEnv(t)
		theirs := other.b.Update(ctx, sameCommit(func(*fakeTx) ([]byte, error) {
			panic(fault{})
		}))
		require.ErrorIs(t, theirs, idem.ErrBroken)
		var f *callback.Fault
		require.ErrorAs(t, theirs, &f)
		fails := sameCommit(func(*fakeTx) ([]byte, error) { return nil, theirs })
		require.Equal(t, theirs, e.b.Update(ctx, fails))
		_, _, err := e.s.DoEffect(ctx, idem.Request{Key: "k"}, fails)
		require.Equal(t, theirs, err)
		e.claim("k")
	})
}

// fault is what a memory fault's panic is known by.
type fault struct{}

func (fault) Error() string { return "fault" }
func (fault) RuntimeError() {}
func (fault) Addr() uintptr { return 0x1000 }

// A store that breaks in the middle of a commit, by what goes wrong in the background,
// begins no function in it: their callers have been answered, and have gone on.
func TestNoFunctionBeginsInABrokenStore(t *testing.T) {
	t.Parallel()
	both(t, func(t *testing.T, e *env, _ bool) {
		var ran atomic.Bool
		var errUpdate, errDo error
		var answered sync.WaitGroup
		answered.Add(2)
		fn := sameCommit(func(*fakeTx) ([]byte, error) { ran.Store(true); return nil, nil })
		e.together(
			func() {
				e.fake.at(func(p point, key string) error {
					if p == setting && key == "first" {
						_ = e.b.Break(errDisk)
						answered.Wait()
					}
					return nil
				})
				_, err := e.s.Claim(ctx, idem.Request{Key: "first"})
				require.ErrorIs(t, err, idem.ErrBroken)
			},
			func() { errUpdate = e.b.Update(ctx, fn); answered.Done() },
			func() { _, _, errDo = e.s.DoEffect(ctx, idem.Request{Key: "k"}, fn); answered.Done() },
		)
		require.ErrorIs(t, errUpdate, idem.ErrBroken)
		require.ErrorIs(t, errDo, idem.ErrBroken)
		synctest.Wait()
		require.False(t, ran.Load(), "a function was begun whose caller had been answered")
	})
}

// A panic is one line in the error, and its stack is there for whoever asks.
func TestStackOfAPanic(t *testing.T) {
	t.Parallel()
	f, _, b := bound(t)
	f.on(visible, func() error { panic("lost\n\tgoroutine 1 [running]") })
	err := b.Update(ctx, sameCommit(nothing))
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorContains(t, err, "panic in the engine: lost goroutine 1 [running]")
	require.NotContains(t, err.Error(), "\n")
	require.Less(t, len(err.Error()), 200)
	var s interface{ Stack() string }
	require.ErrorAs(t, err, &s)
	require.True(t, strings.Contains(s.Stack(), "TestStackOfAPanic"), s.Stack())
	require.NoError(t, b.Close())
}
