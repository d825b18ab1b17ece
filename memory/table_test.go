package memory

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
)

// A table does what a map does, while keys come, change, leave and come back, and
// with hashes that collide in part or whole.
func TestTableIsAMap(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		mask := rapid.SampledFrom([]uint64{^uint64(0), 0xf << lengthBits, 0}).Draw(rt, "mask")
		hash := func(key string) uint64 { return testHash(key) & mask }
		var tab table
		want := map[string]*engine.Entry{}
		keys := rapid.SliceOfNDistinct(rapid.StringN(1, 20, -1), 1, 60, rapid.ID[string]).Draw(rt, "keys")
		for range rapid.IntRange(1, 400).Draw(rt, "steps") {
			key := rapid.SampledFrom(keys).Draw(rt, "key")
			var e *engine.Entry
			if rapid.IntRange(0, 2).Draw(rt, "kind") > 0 {
				e = &engine.Entry{Fence: rapid.Uint64().Draw(rt, "fence")}
			}
			_, there := want[key]
			own := tab.set(hash(key), key, e)
			if e != nil {
				want[key] = e
			} else {
				delete(want, key)
			}
			if there || e != nil {
				require.Equal(rt, key, own)
			}
			require.Same(rt, want[key], tab.get(hash(key), key))
		}
		require.Equal(rt, len(want), tab.live)
		got := map[string]*engine.Entry{}
		for k, e := range tab.all {
			got[k] = e
		}
		require.Equal(rt, want, got)
		for _, key := range keys {
			require.Same(rt, want[key], tab.get(hash(key), key))
		}
		require.Nil(rt, tab.get(hash("absent key of 26 characters"), "absent key of 26 characters"))
	})
}

// The longest key keeps its length beside its hash.
func TestTableLongestKey(t *testing.T) {
	t.Parallel()
	var tab table
	long := strings.Repeat("k", idem.MaxKey)
	for _, key := range []string{long, long[1:], "k"} {
		tab.set(^uint64(0), key, &engine.Entry{Attempt: uint32(len(key))})
	}
	for _, key := range []string{long, long[1:], "k"} {
		require.EqualValues(t, len(key), tab.get(^uint64(0), key).Attempt)
	}
}

// Slots stay in proportion to what lives: keys that come once and leave do not pile
// up, in whichever order.
func TestTableStaysSmall(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	var tab table
	set := func(i int, e *engine.Entry) {
		key := fmt.Sprint("k", i)
		tab.set(testHash(key), key, e)
	}
	renewed := 0
	var before *[]slot
	for i := range 100_000 {
		set(i, &engine.Entry{})
		if i >= 100 {
			set(i-100, nil)
		}
		if now := tab.slots.Load(); now != before {
			before = now
			renewed++
		}
		require.LessOrEqual(t, len(*tab.slots.Load()), 1024)
	}
	require.Less(t, renewed, 100_000/30, "making the slots anew is paid for by many changes")
	for i := 99_900; i < 100_000; i++ {
		set(i, nil)
	}
	require.Zero(t, tab.live)
	require.LessOrEqual(t, tab.used, minSlots, "the keys of those that left are not kept")
}

// Readers without a lock meet, while the table grows, shrinks and is made anew,
// each key's own entries only, and none older than one they saw.
func TestTableReadersNeedNoLock(t *testing.T) {
	t.Parallel()
	const keys, rounds = 200, 300 / race.Share
	names := make([]string, keys)
	for i := range names {
		names[i] = fmt.Sprint("key ", i)
	}
	var tab table
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			var seen [keys]uint64
			for !done.Load() {
				for i, key := range names {
					e := tab.get(testHash(key), key)
					if e == nil {
						continue
					}
					if int(e.Attempt) != i || e.Fence < seen[i] {
						t.Errorf("key %d: read entry %d of key %d after %d", i, e.Fence, e.Attempt, seen[i])
						return
					}
					seen[i] = e.Fence
				}
			}
		}()
	}
	for round := range rounds {
		for i, key := range names {
			tab.set(testHash(key), key, &engine.Entry{Attempt: uint32(i), Fence: uint64(round)})
		}
		for i := round % 3; i < keys; i += 1 + round%3 {
			tab.set(testHash(names[i]), names[i], nil)
		}
	}
	done.Store(true)
	wg.Wait()
}

// A key that stays is found at every moment, while others come and leave and the
// slots are made anew under its readers.
func TestTableReadersFindWhatStays(t *testing.T) {
	t.Parallel()
	var tab table
	stays := &engine.Entry{}
	tab.set(testHash("stays"), "stays", stays)
	var done atomic.Bool
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for !done.Load() {
				if tab.get(testHash("stays"), "stays") != stays {
					t.Error("not found")
					return
				}
			}
		})
	}
	for range 30 / race.Share {
		for i := range 2000 {
			key := fmt.Sprint("k", i)
			tab.set(testHash(key), key, &engine.Entry{})
		}
		for i := range 2000 {
			key := fmt.Sprint("k", i)
			tab.set(testHash(key), key, nil)
		}
	}
	done.Store(true)
	wg.Wait()
}
