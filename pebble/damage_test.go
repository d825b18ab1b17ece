package pebble

import (
	"bytes"
	"context"
	"maps"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/internal/txbackend"
)

// A table that is damaged cannot be compacted, and one day Pebble takes no more writes
// for it, without end and without a word. A commit then waits for damagedBound from when
// the damage is known, and the store says that it is broken, and why. Damage alone
// breaks nothing, and neither does a commit that takes long. What Pebble still holds of
// the commit is left to it: the race detector watches.
func TestCommitsThatWaitBesideDamage(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"known before": true, "found meanwhile": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			f := newFaulty()
			s := f.open(t)
			e := engine.Of(s).(*Backend).engine
			require.Equal(t, damagedBound, e.damagedBound)
			e.damagedBound = 50 * time.Millisecond
			tell := e.fatal.listener().BackgroundError
			stick, reached, release := f.sticky(func(op errorfs.Op) bool { return isLog(op) && isSync(op) })
			if known {
				tell(pebble.ErrCorruption)
			}
			storetest.Claim(t, s, "first")
			stick()
			claimed := make(chan error, 1)
			go func() {
				_, err := s.Claim(ctx, idem.Request{Key: "second"})
				claimed <- err
			}()
			<-reached
			if !known {
				for range 1000 {
					runtime.Gosched()
				}
				require.Empty(t, claimed)
				tell(pebble.ErrCorruption)
			}
			var err error
			within(t, "a commit beside damage", func() { err = <-claimed })
			require.ErrorIs(t, err, idem.ErrBroken)
			require.ErrorIs(t, err, idem.ErrCorrupt)
			require.ErrorContains(t, err, "cannot compact a damaged table")
			storetest.Refused(t, s, "first", idem.ErrBroken)
			release()
			within(t, "Close", func() { _ = s.Close() })
		})
	}
}

// Only the records in a damaged block cannot be read, in whatever order they are looked up.
func TestRecordsBehindADamagedBlockAreRead(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	dir, keys := many(t, 3000)
	damageBlock(t, dir, slices.Sorted(maps.Values(keys))[1500])
	b := mustOpen(t, dir, Options{})
	defer func() { require.NoError(t, b.Close()) }()
	var whole []string // in order: a reader then steps from one to the next
	for _, key := range slices.Sorted(maps.Values(keys)) {
		_, closer, err := b.DB().Get(appendKey(nil, txbackend.Records, key))
		if err != nil {
			require.True(t, pebble.IsCorruptionError(err))
			_, err = b.engine.Read(key)
			require.ErrorIs(t, err, idem.ErrCorrupt)
			continue
		}
		require.NoError(t, closer.Close())
		whole = append(whole, key)
	}
	require.Less(t, len(whole), 3000)
	for _, key := range whole {
		_, err := b.engine.Read(key)
		require.NoError(t, err)
	}
	require.NoError(t, b.engine.Update(func(tx txbackend.Tx) error {
		for _, key := range whole {
			value, err := tx.Get(txbackend.Records, []byte(key))
			require.NoError(t, err)
			require.NotNil(t, value)
		}
		return nil
	}))
}

// A store that was killed has its last commits in its log. Damage in the last of them
// cannot be told from a write that a power cut left half done. Damage before it can: a
// later block says up to where the log was synced.
func TestDamageInTheLogOfAKilledStore(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	dir := filepath.Join(t.TempDir(), "store")
	s := storeAt(t, dir, idem.Options{})
	logEnd := func(dir string) (name string, log []byte, end int) {
		names, err := filepath.Glob(filepath.Join(dir, dbName, "*.log"))
		require.NoError(t, err)
		require.NotEmpty(t, names)
		name = slices.Max(names)
		log, err = os.ReadFile(name)
		require.NoError(t, err)
		return name, log, len(bytes.TrimRight(log, "\x00"))
	}
	var begins []int
	result := bytes.Repeat([]byte{1}, 30<<10) // so each begins in a block before the last one
	for _, key := range []string{"a", "b"} {
		c := storetest.Claim(t, s, key)
		_, _, begin := logEnd(dir)
		begins = append(begins, begin)
		require.NoError(t, s.Complete(ctx, c.Token, result))
	}
	flipped := func(at int) (*idem.Store, error) {
		left := killed(t, dir)
		name, log, _ := logEnd(left)
		log[at] ^= 1
		require.NoError(t, os.WriteFile(name, log, 0o600))
		b, err := Open(left, Options{})
		if err != nil {
			return nil, err
		}
		return idem.New(b, idem.Options{})
	}
	_, err := flipped(begins[0] + 100)
	require.ErrorIs(t, err, idem.ErrCorrupt)
	left, err := flipped(begins[1] + 100)
	require.NoError(t, err)
	defer func() { _ = left.Close() }()
	for key, want := range map[string]idem.State{"a": idem.Completed, "b": idem.InFlight} {
		r, err := left.Get(ctx, key)
		require.NoError(t, err)
		require.Equal(t, want, r.State, key)
	}
}
