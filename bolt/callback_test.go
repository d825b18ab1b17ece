package bolt

import (
	"context"
	"errors"
	"math"
	"path/filepath"
	"reflect"
	"runtime"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/selfexec"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
)

// intrusions are functions that write to what is the store's own.
var intrusions = map[string]func(tx *bbolt.Tx) error{
	"empty every bucket": func(tx *bbolt.Tx) error {
		return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, _ []byte) error { return b.Delete(k) })
		})
	},
	"delete every bucket": func(tx *bbolt.Tx) error {
		var names [][]byte
		err := tx.ForEach(func(name []byte, _ *bbolt.Bucket) error { names = append(names, name); return nil })
		for _, name := range names {
			err = errors.Join(err, tx.DeleteBucket(name))
		}
		return err
	},
	"put": func(tx *bbolt.Tx) error {
		return tx.Bucket(buckets[txbackend.Expiry]).Put([]byte("theirs"), nil)
	},
	"put back the same": func(tx *bbolt.Tx) error {
		b := tx.Bucket(buckets[txbackend.Records])
		k, v := b.Cursor().First()
		return b.Put(k, v)
	},
	"delete with a cursor": func(tx *bbolt.Tx) error {
		c := tx.Bucket(buckets[txbackend.Records]).Cursor()
		c.First()
		return c.Delete()
	},
	"make a bucket anew": func(tx *bbolt.Tx) error {
		if err := tx.DeleteBucket(buckets[txbackend.Records]); err != nil {
			return err
		}
		_, err := tx.CreateBucket(buckets[txbackend.Records])
		return err
	},
	"move a bucket away": func(tx *bbolt.Tx) error {
		return tx.MoveBucket(buckets[txbackend.Records], nil, tx.Bucket(own))
	},
	"move a bucket there and back": func(tx *bbolt.Tx) error {
		if err := tx.MoveBucket(buckets[txbackend.Meta], nil, tx.Bucket(own)); err != nil {
			return err
		}
		return tx.MoveBucket(buckets[txbackend.Meta], tx.Bucket(own), nil)
	},
	"move a bucket in": func(tx *bbolt.Tx) error {
		if _, err := tx.CreateBucket([]byte("child")); err != nil {
			return err
		}
		return tx.MoveBucket([]byte("child"), nil, tx.Bucket(buckets[txbackend.Records]))
	},
	"make a bucket inside": func(tx *bbolt.Tx) error {
		_, err := tx.Bucket(buckets[txbackend.Meta]).CreateBucket([]byte("child"))
		return err
	},
	"set a sequence":  func(tx *bbolt.Tx) error { return tx.Bucket(buckets[txbackend.Meta]).SetSequence(7) },
	"take a sequence": func(tx *bbolt.Tx) error { _, err := tx.Bucket(buckets[txbackend.Meta]).NextSequence(); return err },
	"count a sequence up in memory": func(tx *bbolt.Tx) error {
		tx.Bucket(buckets[txbackend.Records]).IncSequence()
		return nil
	},
	"set a root": func(tx *bbolt.Tx) error {
		b := tx.Bucket(buckets[txbackend.Records])
		b.SetRootPage(tx.Bucket(buckets[txbackend.Expiry]).Root() + 1)
		return nil
	},
	"write through a copy": func(tx *bbolt.Tx) error {
		b := *tx.Bucket(buckets[txbackend.Records])
		return b.Put([]byte("theirs"), nil)
	},
	"set how full pages get": func(tx *bbolt.Tx) error {
		tx.Bucket(buckets[txbackend.Records]).FillPercent = math.NaN()
		return nil
	},
	"make a bucket under a reserved name": func(tx *bbolt.Tx) error {
		_, err := tx.CreateBucket([]byte("idem.theirs"))
		return err
	},
	"put a key under a reserved name": func(tx *bbolt.Tx) error {
		return tx.Cursor().Bucket().Put([]byte("idem.theirs"), nil)
	},
}

// A function that touches the store's own buckets is refused, with what it wrote, and
// no one else is: neither who shares its commit nor the keys that are paid.
func TestWritesToTheStoresBucketsAreRefused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for name, intrude := range intrusions {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), fileName)
			b := mustOpen(t, path, Options{})
			s := storetest.Open(t, b, idem.Options{CacheBytes: -1, SweepInterval: -1})
			storetest.Complete(t, s, "paid", "receipt")
			require.NoError(t, b.Update(ctx, func(tx *bbolt.Tx) error { kv{tx}.Put("before", []byte("1")); return nil }))
			open := storetest.Claim(t, s, "open")

			intruder := func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
				kv{tx}.Put("theirs", []byte("1"))
				return nil, intrude(tx)
			}
			var all sync.WaitGroup
			errs := make([]error, 4)
			all.Go(func() { errs[0] = b.Update(ctx, func(tx *bbolt.Tx) error { _, err := intruder(ctx, tx); return err }) })
			all.Go(func() { _, _, errs[1] = Do(ctx, s, idem.Request{Key: "theirs"}, intruder) })
			all.Go(func() { errs[2] = Complete(ctx, s, open.Token, intruder) })
			all.Go(func() {
				errs[3] = b.Update(ctx, func(tx *bbolt.Tx) error { kv{tx}.Put("good", []byte("1")); return nil })
			})
			all.Wait()
			for _, err := range errs[:3] {
				require.ErrorIs(t, err, idem.ErrInvalid)
				require.ErrorContains(t, err, "idem.")
				require.NotContains(t, err.Error(), "\n")
			}
			require.NoError(t, errs[3])

			check := func() {
				rec, err := s.Claim(ctx, idem.Request{Key: "paid"})
				require.ErrorIs(t, err, idem.ErrCompleted)
				require.Equal(t, "receipt", string(rec.Record.Result))
				storetest.Refused(t, s, "open", idem.ErrInFlight)
				_, err = s.Get(ctx, "theirs")
				require.ErrorIs(t, err, idem.ErrNotFound)
				require.NoError(t, b.DB().View(func(tx *bbolt.Tx) error {
					require.Nil(t, kv{tx}.Get("theirs"), "its writes")
					require.Equal(t, "1", string(kv{tx}.Get("before")))
					require.Equal(t, "1", string(kv{tx}.Get("good")))
					return nil
				}))
			}
			check()
			require.NoError(t, s.Close())
			b = mustOpen(t, path, Options{})
			s = storetest.Open(t, b, idem.Options{CacheBytes: -1, SweepInterval: -1})
			check()
			require.NoError(t, s.Complete(ctx, open.Token, nil))
		})
	}
}

// Reading the store's buckets, and any use of the caller's own, stays allowed.
func TestWritesToOwnBucketsAreNotRefused(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	_, b := newStore(t, Options{}, idem.Options{})
	for range 3 {
		require.NoError(t, b.Update(ctx, func(tx *bbolt.Tx) error {
			for _, name := range []string{"idea", "idem", "idem-ledger", "idemx", "ledger"} {
				b, err := tx.CreateBucketIfNotExists([]byte(name))
				require.NoError(t, err)
				_, err = b.NextSequence()
				require.NoError(t, err)
			}
			require.NoError(t, tx.DeleteBucket([]byte("ledger")))
			return tx.ForEach(func(_ []byte, b *bbolt.Bucket) error {
				b.Stats()
				return b.ForEach(func(k, v []byte) error { return nil })
			})
		}))
	}
}

// What runs after a commit runs on the goroutine of the caller who asked for it.
func TestOnCommitHandlersAreTheirCallersOwn(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, _ := newStore(t, Options{}, idem.Options{SweepInterval: -1})
	b := engine.Of(s).(*Backend)
	update := func(handlers ...func()) error {
		return b.Update(ctx, func(tx *bbolt.Tx) error {
			kv{tx}.Put("k", []byte("v"))
			for _, h := range handlers {
				tx.OnCommit(h)
			}
			return nil
		})
	}
	var all sync.WaitGroup
	ran := make(chan string, 100)
	all.Go(func() {
		defer func() {
			if recover() == "boom" {
				ran <- "panicked"
			}
		}()
		_ = update(func() { panic("boom") }, func() { ran <- "after a panic" })
	})
	all.Go(func() {
		defer func() { ran <- "ended" }()
		_ = update(runtime.Goexit)
		ran <- "after Goexit"
	})
	for range 10 {
		all.Go(func() {
			err := update(func() { // a commit of its own: the one it follows is over
				if _, err := s.Claim(ctx, idem.Request{Key: "from a handler"}); err != nil && !errors.Is(err, idem.ErrInFlight) {
					t.Error(err)
				}
			}, func() { ran <- "good" })
			if err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	close(ran)
	count := map[string]int{}
	for what := range ran {
		count[what]++
	}
	require.Equal(t, map[string]int{"panicked": 1, "ended": 1, "good": 10}, count)
	storetest.Claim(t, s, "the store lives")
}

// Handlers run if and only if their function's writes are in a commit.
func TestOnCommitHandlersOfDo(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, _ := newStore(t, Options{}, idem.Options{MaxResult: 10})
	ran := 0
	fn := func(result string, err error) func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
		return func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
			tx.OnCommit(func() { ran++ })
			return []byte(result), err
		}
	}
	cause := errors.New("no funds")
	_, _, err := Do(ctx, s, idem.Request{Key: "k"}, fn("", cause))
	require.ErrorIs(t, err, cause)
	require.Zero(t, ran, "it failed")
	for range 2 {
		_, _, err = Do(ctx, s, idem.Request{Key: "k"}, fn("ok", nil))
		require.NoError(t, err)
		require.Equal(t, 1, ran, "a replay runs nothing")
	}
	_, _, err = Do(ctx, s, idem.Request{Key: "large"}, fn("longer than allowed", nil))
	require.ErrorIs(t, err, idem.ErrTooLarge)
	require.Equal(t, 2, ran, "the writes are committed")
	c := storetest.Claim(t, s, "claimed")
	require.NoError(t, Complete(ctx, s, c.Token, fn("ok", nil)))
	require.Equal(t, 3, ran)
	require.ErrorIs(t, Complete(ctx, s, idem.Token{Key: "none", Fence: 9}, fn("ok", nil)), idem.ErrFenced)
	require.Equal(t, 3, ran)
	failCommit(t, engine.Of(s))
	_, _, err = Do(ctx, s, idem.Request{Key: "unknown"}, fn("ok", nil))
	require.ErrorIs(t, err, idem.ErrBroken)
	require.Equal(t, 3, ran, "nobody knows whether it is committed")
}

// A transaction that the store manages is not the function's to end.
func TestSameCommitFunctionCannotEndTheTransaction(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, Options{}, idem.Options{})
	for _, end := range []func(tx *bbolt.Tx) error{(*bbolt.Tx).Commit, (*bbolt.Tx).Rollback} {
		require.Panics(t, func() {
			_, _, _ = Do(context.Background(), s, idem.Request{Key: "k"}, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) { return nil, end(tx) })
		})
	}
	storetest.Claim(t, s, "k") // the store lives
}

// A write to what a transaction returned faults, because the map is read-only. That is
// a panic of the function, and no sign that the file cannot be read.
func TestWritesToTheMapAreTheirCallersOwn(t *testing.T) {
	t.Parallel()
	selfexec.NeedsFaultAddress(t)
	ctx := context.Background()
	path := newFilled(t, 900)
	b := mustOpen(t, path, Options{})
	s := storetest.Open(t, b, idem.Options{SweepInterval: -1})
	scribble := func(tx *bbolt.Tx) error {
		_, v := tx.Bucket(buckets[txbackend.Records]).Cursor().First()
		v[0]++
		return nil
	}
	for name, call := range map[string]func(){
		"Update": func() { _ = b.Update(ctx, scribble) },
		"View":   func() { _ = b.View(ctx, func(_ context.Context, tx *bbolt.Tx) error { return scribble(tx) }) },
		"Do": func() {
			_, _, _ = Do(ctx, s, idem.Request{Key: "k"}, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) { return nil, scribble(tx) })
		},
	} {
		func() {
			defer func() {
				err, _ := recover().(error)
				require.ErrorIs(t, err, idem.ErrInvalid, name)
				require.ErrorContains(t, err, "must not be changed", name)
			}()
			call()
		}()
	}
	storetest.Claim(t, s, "k") // the store lives
}

// All that is looked for is there in the bbolt that go.mod names: where this fails, a
// new release of it keeps its transactions in another way.
func TestLayoutOfBbolt(t *testing.T) {
	t.Parallel()
	type otherTx struct{ commitHandlers []func(error) }
	type otherBucket struct{ nodes map[int]int }
	_, _ = otherTx{}.commitHandlers, otherBucket{}.nodes
	tx, bucket, db := reflect.TypeFor[bbolt.Tx](), reflect.TypeFor[bbolt.Bucket](), reflect.TypeFor[bbolt.DB]()
	l := layoutOf(tx, bucket, db)
	require.Equal(t, l, layoutOfBbolt())
	require.NotContains(t, []int{l.commitHandlers, l.rootNode, l.nodes, l.mapMutex}, -1)
	require.Equal(t, layout{-1, l.rootNode, l.nodes, l.mapMutex}, layoutOf(reflect.TypeFor[otherTx](), bucket, db))
	require.Equal(t, layout{l.commitHandlers, -1, 0, l.mapMutex}, layoutOf(tx, reflect.TypeFor[otherBucket](), db))
	require.Equal(t, layout{-1, -1, -1, -1}, layoutOf(bucket, tx, tx))
}

// On a bbolt that keeps its transactions in another way the store works: functions
// commit, and bbolt runs their handlers. What can be seen without a look inside is still
// refused.
func TestAnotherLayoutOfBbolt(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	e := mustOpen(t, filepath.Join(t.TempDir(), fileName), Options{})
	e.engine.layout = layout{-1, -1, -1, -1}
	s := storetest.Open(t, e, idem.Options{SweepInterval: -1})
	defer func() { require.NoError(t, s.Close()) }()
	handled := 0
	result, _, err := Do(ctx, s, idem.Request{Key: "k"}, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
		tx.OnCommit(func() { handled++ })
		kv{tx}.Put("k", []byte("v"))
		return []byte("r"), nil
	})
	require.NoError(t, err)
	require.Equal(t, "r", string(result))
	require.Equal(t, 1, handled)
	for name, fn := range map[string]func(tx *bbolt.Tx) error{
		"makes a reserved bucket": func(tx *bbolt.Tx) error { _, err := tx.CreateBucket([]byte("idem.mine")); return err },
		"removes a bucket":        func(tx *bbolt.Tx) error { return tx.DeleteBucket(buckets[txbackend.Expiry]) },
		"sets a sequence":         func(tx *bbolt.Tx) error { return tx.Bucket(buckets[txbackend.Records]).SetSequence(7) },
	} {
		require.ErrorIs(t, e.Update(ctx, fn), idem.ErrInvalid, name)
	}
	_, err = s.Claim(ctx, idem.Request{Key: "k"})
	require.Equal(t, idem.ErrCompleted, err)
}

// What looking for intrusions costs each same-commit function.
func BenchmarkIntrusion(b *testing.B) {
	e := mustOpen(b, filepath.Join(b.TempDir(), fileName), Options{})
	defer func() { _ = e.Close() }()
	err := e.engine.Update(func(dtx txbackend.Tx) error {
		t := dtx.(*tx)
		kv{t.tx}.Put("k", nil) // the names are looked through too
		b.ReportAllocs()
		for b.Loop() {
			if err := t.intrusion(); err != nil {
				b.Fatal(err)
			}
		}
		return errNoBucket
	})
	require.Equal(b, errNoBucket, err)
}
