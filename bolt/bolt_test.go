package bolt

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
)

const fileName = "idem.db"

var start = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func harness() idemtest.Harness {
	return idemtest.Harness{
		Open: func(t testing.TB, dir string) engine.Backend {
			return mustOpen(t, filepath.Join(dir, fileName), Options{})
		},
		OpenAgain: func(_ testing.TB, dir string) error {
			b, err := Open(filepath.Join(dir, fileName), Options{LockTimeout: time.Millisecond})
			if err != nil {
				return err
			}
			return b.Close()
		},
		OpenReadOnly: func(t testing.TB, dir string) engine.Backend {
			return mustOpen(t, filepath.Join(dir, fileName), Options{ReadOnly: true})
		},
		Backup: func(t testing.TB, b engine.Backend, _ string) string {
			folder := t.TempDir()
			require.NoError(t, b.(*Backend).Backup(t.Context(), filepath.Join(folder, fileName)))
			return folder
		},
		OpenBounded: func(t testing.TB, dir string, records int) engine.Backend {
			// A record of a few dozen bytes takes some 250 in the file with its place
			// in the index; an empty store takes seven pages.
			return mustOpen(t, filepath.Join(dir, fileName), Options{MaxSize: 7*4096 + int64(records)*250})
		},
		Stall:      stall,
		FailCommit: failCommit,
		Crash: func(t testing.TB, _ engine.Backend, dir string) string {
			// What a killed process leaves is what it has written, and that is what
			// other readers of the file see.
			left := t.TempDir()
			b, err := os.ReadFile(filepath.Join(dir, fileName))
			require.NoError(t, err)
			require.NoError(t, os.WriteFile(filepath.Join(left, fileName), b, 0o600))
			return left
		},
		Damage: damage,
	}
}

func mustOpen(t testing.TB, path string, o Options) *Backend {
	t.Helper()
	b, err := Open(path, o)
	require.NoError(t, err)
	return b
}

// newStore opens a store of its own for the test.
func newStore(t testing.TB, o Options, so idem.Options) (*idem.Store, *Backend) {
	t.Helper()
	b := mustOpen(t, filepath.Join(t.TempDir(), fileName), o)
	return storetest.Open(t, b, so), b
}

// storeAt opens the store at path.
func storeAt(t testing.TB, path string, so idem.Options) *idem.Store {
	t.Helper()
	return storetest.Open(t, mustOpen(t, path, Options{}), so)
}

// stall makes commits wait after bbolt's own commit, which has shown them to every
// reader, and before ours returns.
func stall(t testing.TB, b engine.Backend) (<-chan struct{}, func()) {
	reached, released := make(chan struct{}), make(chan struct{})
	var once, end sync.Once
	hook := func() error {
		once.Do(func() { close(reached) })
		<-released
		return nil
	}
	e := b.(*Backend).engine
	e.afterCommit.Store(&hook)
	release := func() {
		end.Do(func() {
			e.afterCommit.Store(nil)
			close(released)
		})
	}
	t.Cleanup(release)
	return reached, release
}

var errInjected = errors.New("injected: input/output error")

func failCommit(_ testing.TB, b engine.Backend) {
	e := b.(*Backend).engine
	hook := func() error { e.afterCommit.Store(nil); return errInjected }
	e.afterCommit.Store(&hook)
}

func damage(t testing.TB, dir, key string) {
	db, err := bbolt.Open(filepath.Join(dir, fileName), 0o600, nil)
	require.NoError(t, err)
	require.NoError(t, db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(buckets[txbackend.Records])
		value := append([]byte(nil), b.Get([]byte(key))...)
		require.NotEmpty(t, value, "no record of that key")
		value[len(value)/2] ^= 1 << 3
		return b.Put([]byte(key), value)
	}))
	require.NoError(t, db.Close())
}

func TestConformance(t *testing.T) {
	t.Parallel()
	idemtest.Run(t, harness())
}

func TestEffects(t *testing.T) {
	t.Parallel()
	idemtest.RunEffects(t, harness(), idemtest.Effects{
		Do: func(ctx context.Context, s *idem.Store, r idem.Request, fn func(idemtest.KV) ([]byte, error)) ([]byte, bool, error) {
			return Do(ctx, s, r, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) { return fn(kv{tx}) })
		},
		Complete: func(ctx context.Context, s *idem.Store, token idem.Token, fn func(idemtest.KV) ([]byte, error)) error {
			return Complete(ctx, s, token, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) { return fn(kv{tx}) })
		},
		Update: func(ctx context.Context, b engine.Backend, fn func(idemtest.KV) error) error {
			return b.(*Backend).Update(ctx, func(tx *bbolt.Tx) error { return fn(kv{tx}) })
		},
		Get: func(t testing.TB, b engine.Backend, key string) (value []byte) {
			require.NoError(t, b.(*Backend).DB().View(func(tx *bbolt.Tx) error {
				value = append(value, kv{tx}.Get(key)...)
				return nil
			}))
			return value
		},
	})
}

// kv is the caller's own bucket.
type kv struct{ tx *bbolt.Tx }

var own = []byte("own")

func (k kv) Get(key string) []byte {
	b := k.tx.Bucket(own)
	if b == nil {
		return nil
	}
	return b.Get([]byte(key))
}

func (k kv) Put(key string, value []byte) {
	b, err := k.tx.CreateBucketIfNotExists(own)
	if err == nil {
		err = b.Put([]byte(key), value)
	}
	if err != nil {
		panic(err)
	}
}
