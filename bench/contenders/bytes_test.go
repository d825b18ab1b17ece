package contenders

import (
	"bytes"
	"context"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	cdb "github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/pebble"
)

// What bare engines and the limit write is what idem writes: the same keys, values
// of the same fields, after a claim and after its completion.

// pair is one entry of an engine; space is "records", "expiry" or "meta".
type pair struct{ space, key, value string }

func boltPairs(t *testing.T, db *bbolt.DB) (out []pair) {
	t.Helper()
	require.NoError(t, db.View(func(tx *bbolt.Tx) error {
		return tx.ForEach(func(name []byte, b *bbolt.Bucket) error {
			return b.ForEach(func(k, v []byte) error {
				out = append(out, pair{string(bytes.TrimPrefix(name, []byte("idem."))), string(k), string(v)})
				return nil
			})
		})
	}))
	return out
}

func pebblePairs(t *testing.T, db *cdb.DB) (out []pair) {
	t.Helper()
	it, err := db.NewIter(nil)
	require.NoError(t, err)
	names := map[byte]string{'r': "records", 'x': "expiry", 'm': "meta"}
	const head = len("idem\x00r")
	for it.First(); it.Valid(); it.Next() {
		require.Equal(t, "idem\x00", string(it.Key()[:head-1]))
		out = append(out, pair{names[it.Key()[head-1]], string(it.Key()[head:]), string(it.Value())})
	}
	require.NoError(t, it.Error())
	require.NoError(t, it.Close())
	return out
}

// essence makes of pairs what must be equal: all of it, but for the moments and
// the fences, of which only the distances are fixed. A store counts its openings,
// and a bare engine says that it was opened once.
func essence(t *testing.T, pairs []pair) map[string]any {
	t.Helper()
	out := map[string]any{}
	places := map[string]engine.Instant{}
	for _, p := range pairs {
		switch p.space {
		case "records":
			e, err := codec.DecodeRecord(p.key, []byte(p.value))
			require.NoError(t, err)
			start, finished := e.ClaimedAt, e.FinishedAt
			require.NotZero(t, start)
			require.Greater(t, e.Fence, uint64(1e15), "microseconds since 1970")
			if e.State == idem.Completed {
				require.GreaterOrEqual(t, finished, start)
				e.ExpiresAt -= finished
				e.FinishedAt = 1
			} else {
				e.ExpiresAt -= start
			}
			places[p.key] = e.Due
			e.LeaseUntil -= start
			e.Due -= start
			e.ClaimedAt, e.Fence = 1, 1
			out["record "+p.key] = *e
			out["bytes "+p.key] = len(p.value)
		case "expiry":
			require.Empty(t, p.value)
		case "meta":
			require.Equal(t, codec.MetaKey, p.key)
			m, err := codec.DecodeMeta([]byte(p.value))
			require.NoError(t, err)
			require.NotZero(t, m.Time)
			require.NotZero(t, m.Fence)
			require.Equal(t, uint64(1), m.Epoch)
			out["meta"] = len(p.value)
		default:
			t.Fatalf("an entry in %q", p.space)
		}
	}
	for _, p := range pairs {
		if p.space == "expiry" {
			d, ok := codec.DecodePlace([]byte(p.key))
			require.True(t, ok)
			require.Equal(t, places[d.Key], d.At, "the place is where the record says")
			out["place "+d.Key] = len(p.key)
		}
	}
	return out
}

// withoutMeta is for those that leave the meta entry out.
func withoutMeta(all map[string]any) map[string]any {
	out := map[string]any{}
	for k, v := range all {
		if k != "meta" {
			out[k] = v
		}
	}
	return out
}

// twoCycles runs the two steps for two keys and calls look after each.
func twoCycles(t *testing.T, commit func(*step) error, look func()) {
	t.Helper()
	s := newStamps()
	for n := range uint64(2) {
		var step step
		step.claim(s, Fresh(0, n))
		require.NoError(t, commit(&step))
		look()
		step.complete(cycleWorkload(1).Result())
		require.NoError(t, commit(&step))
		look()
	}
}

// idemPairs does the same with a store of idem's.
func idemPairs(t *testing.T, b engine.Backend, pairs func() []pair) (want []map[string]any) {
	t.Helper()
	s, err := idem.New(b, idem.Options{})
	require.NoError(t, err)
	ctx := context.Background()
	for n := range uint64(2) {
		c, err := s.Claim(ctx, idem.Request{Key: Fresh(0, n)})
		require.NoError(t, err)
		want = append(want, essence(t, pairs()))
		require.NoError(t, s.Complete(ctx, c.Token, cycleWorkload(1).Result()))
		want = append(want, essence(t, pairs()))
	}
	require.NoError(t, s.Close())
	return want
}

func TestBareBoltWritesWhatIdemWrites(t *testing.T) {
	t.Parallel()
	b, err := bolt.Open(filepath.Join(t.TempDir(), "idem.db"), bolt.Options{})
	require.NoError(t, err)
	want := idemPairs(t, b, func() []pair { return boltPairs(t, b.DB()) })
	require.Len(t, want[3], 7, "two records, their sizes, two places, the meta entry")
	for name, how := range map[string]struct {
		commit func(*bareBolt) func(*step) error
		meta   bool
	}{
		"grouped": {(*bareBolt).grouped, true},
		"two":     {boltTwo, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bare, err := newBareBolt(t.TempDir(), Workload{})
			require.NoError(t, err)
			defer func() { require.NoError(t, bare.db.Close()) }()
			i := 0
			twoCycles(t, how.commit(bare), func() {
				expected := want[i]
				if !how.meta {
					expected = withoutMeta(expected)
				}
				require.Equal(t, expected, essence(t, boltPairs(t, bare.db)))
				i++
			})
		})
	}
}

// Pebble's log says how many bytes were written, beside what is there afterwards.
func TestBarePebbleWritesWhatIdemWrites(t *testing.T) {
	t.Parallel()
	b, err := pebble.Open(t.TempDir(), pebble.Options{})
	require.NoError(t, err)
	var logged []uint64
	want := idemPairs(t, b, func() []pair {
		logged = append(logged, b.DB().Metrics().WAL.BytesIn)
		return pebblePairs(t, b.DB())
	})
	require.Len(t, want[3], 7)
	for name, how := range map[string]struct {
		commit func(*barePebble) func(*step) error
		meta   bool
	}{
		"grouped": {(*barePebble).grouped, true},
		"two":     {(*barePebble).two, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			bare, err := newBarePebble(t.TempDir(), Workload{})
			require.NoError(t, err)
			defer func() { require.NoError(t, bare.db.Close()) }()
			i, last := 0, uint64(0)
			twoCycles(t, how.commit(bare), func() {
				expected := want[i]
				if !how.meta {
					expected = withoutMeta(expected)
				}
				require.Equal(t, expected, essence(t, pebblePairs(t, bare.db)))
				now := bare.db.Metrics().WAL.BytesIn
				if i > 0 && how.meta {
					require.Equal(t, logged[i]-logged[i-1], now-last, "bytes in the log")
				} else if i > 0 {
					require.Less(t, now-last, logged[i]-logged[i-1])
				}
				i, last = i+1, now
			})
		})
	}
}

func TestLimitWritesWhatIdemWrites(t *testing.T) {
	t.Parallel()
	b, err := bolt.Open(filepath.Join(t.TempDir(), "idem.db"), bolt.Options{})
	require.NoError(t, err)
	want := idemPairs(t, b, func() []pair { return boltPairs(t, b.DB()) })
	dir := t.TempDir()
	l, err := openLog(filepath.Join(dir, "log"), logBytes)
	require.NoError(t, err)
	defer func() { require.NoError(t, l.f.Close()) }()
	i := 0
	twoCycles(t, l.group.do, func() {
		latest := map[string]pair{}
		for _, p := range logPairs(t, dir) {
			latest[p.key] = p
		}
		require.Equal(t, want[i], essence(t, slices.Collect(maps.Values(latest))))
		i++
	})
}
