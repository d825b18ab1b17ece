package contenders

import (
	"errors"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
)

// The raw deletes remove every record with its place, a batch at a time, from
// what idem has filled, and say when nothing is left.
func TestDeletes(t *testing.T) {
	t.Parallel()
	const batch = 64
	left := map[string]func(t *testing.T, dir string) []pair{
		"raw-bbolt-deletes": func(t *testing.T, dir string) []pair {
			db, err := openBolt(filepath.Join(dir, "idem.db"))
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			return boltPairs(t, db)
		},
		"raw-pebble-deletes": func(t *testing.T, dir string) []pair {
			db, err := openPebble(filepath.Join(dir, "idem", "db"))
			require.NoError(t, err)
			defer func() { require.NoError(t, db.Close()) }()
			return pebblePairs(t, db)
		},
	}
	w := Workload{Group: SweepUnloaded, Keys: NewKeys(storedKeys), ResultBytes: 64, Procs: 2, Callers: 1, Batch: batch, Filled: filledFor(t)}
	for _, c := range rivals(w.Group) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			for _, batches := range []int{0, 1, 5, -1} {
				dir := t.TempDir()
				in := open(t, c, dir, w)
				gone := min(batches*batch, storedKeys)
				if batches < 0 {
					gone, batches = storedKeys, 0
					for ; ; batches++ {
						if err := in.Op(0, uint64(batches)); err != nil {
							require.Equal(t, ErrDone, err)
							break
						}
					}
					require.Equal(t, (storedKeys+batch-1)/batch, batches)
				} else {
					work(t, w, in, uint64(batches))
				}
				require.NoError(t, in.Close())
				pairs := left[c.Name](t, dir)
				count := map[string]int{}
				for _, p := range pairs {
					count[p.space]++
				}
				want := map[string]int{"records": storedKeys - gone, "expiry": storedKeys - gone, "meta": 1}
				for space, n := range want {
					require.Equal(t, n, count[space], space)
				}
				// The earliest go first, and a record with its place.
				for n, key := 0, ""; n < gone; n++ {
					key = w.Keys.Fill(n)
					for _, p := range pairs {
						require.NotEqual(t, key, p.key)
					}
				}
			}
		})
	}
}

// Every place is removed once, whether or not the batches come out even, and an
// error of the engine is the operation's.
func TestDeletesGoThroughThePlaces(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for _, batch := range []int{1, 7, 8, 1000, 1001} {
		places := make([]engine.Due, 1000)
		for i := range places {
			places[i].At = engine.Instant(i)
		}
		batches := (len(places) + batch - 1) / batch
		var removed []engine.Due
		in, err := deletes(Workload{Batch: batch}, places, nil, func(some []engine.Due) error {
			if removed = append(removed, some...); len(removed) == len(places) {
				return boom
			}
			return nil
		})
		require.NoError(t, err)
		for n := range batches - 1 {
			require.NoError(t, in.Op(0, uint64(n)))
		}
		require.Equal(t, boom, in.Op(0, 0))
		require.Equal(t, ErrDone, in.Op(0, 0))
		require.Equal(t, ErrDone, in.Op(0, 0))
		require.Equal(t, places, removed)
	}
}
