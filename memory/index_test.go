package memory

import (
	"context"
	"fmt"
	"hash/maphash"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"
	"unsafe"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/race"
)

func testHash(key string) uint64 { return maphash.String(testSeed, key) }

var testSeed = maphash.MakeSeed()

// current is what the index asks of a table.
func current(entries *table) func(engine.Due) bool {
	return func(d engine.Due) bool {
		e := entries.get(testHash(d.Key), d.Key)
		return e != nil && e.Due == d.At
	}
}

// move makes key's entry due at the time given; zero takes it out of the index.
func move(x *index, entries *table, key string, due engine.Instant) {
	key = entries.set(testHash(key), key, &engine.Entry{Due: due})
	if due != 0 {
		x.push(engine.Due{At: due, Key: key}, entries)
	}
}

// TestIndexOrder compares the index with a sorted list, while keys move, leave and
// come back, for all kinds of questions.
func TestIndexOrder(t *testing.T) {
	t.Parallel()
	rng := rand.New(rand.NewPCG(3, 7))
	var x index
	var entries table
	x.init()
	for round := range 300 {
		for range 20 {
			key := fmt.Sprint("k", rng.IntN(60))
			switch rng.IntN(8) {
			case 0:
				entries.set(testHash(key), key, nil)
			case 1:
				move(&x, &entries, key, 0)
			default:
				move(&x, &entries, key, engine.Instant(1+rng.IntN(40))) // many at one instant
			}
		}
		var sorted []engine.Due
		for key, e := range entries.all {
			if e.Due != 0 {
				sorted = append(sorted, engine.Due{At: e.Due, Key: key})
			}
		}
		slices.SortFunc(sorted, compare)
		from := engine.Due{}
		if round%3 > 0 && len(sorted) > 0 {
			from = sorted[rng.IntN(len(sorted))]
		}
		until := engine.Instant(rng.IntN(45))
		limit := 1 + rng.IntN(70)

		var want []engine.Due
		for _, d := range sorted {
			if compare(d, from) > 0 && d.At <= until {
				want = append(want, d)
			}
		}
		found, more := x.first(from, until, limit, current(&entries))
		if len(want) > limit {
			require.True(t, more, "there are %d, %d were asked for", len(want), limit)
			want = want[:limit]
		}
		require.Equal(t, want, found, "round %d", round)
		if more {
			require.Len(t, found, limit, "more only after a full answer")
		}
	}
}

// TestIndexStaysSmall: places that keys have left do not pile up, however often a
// few keys move.
func TestIndexStaysSmall(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	var x index
	var entries table
	x.init()
	for i := range 50_000 {
		move(&x, &entries, fmt.Sprint("k", i%10), engine.Instant(i+1))
		require.LessOrEqual(t, len(x.places.items), 2*entries.live+64+1)
	}
	found, more := x.first(engine.Due{}, engine.Never, 100, current(&entries))
	require.False(t, more)
	require.Len(t, found, 10)
	for i, d := range found {
		require.Equal(t, engine.Instant(50_000-9+i), d.At)
	}
	for i := range 10 { // all stale now: the next look drops them
		entries.set(testHash(fmt.Sprint("k", i)), fmt.Sprint("k", i), nil)
	}
	found, _ = x.first(engine.Due{}, engine.Never, 100, current(&entries))
	require.Empty(t, found)
	require.Empty(t, x.places.items)
}

// TestExpiringMerges: the shards' parts come out as one list in order, a little at
// a time, whatever the limit.
func TestExpiringMerges(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	const n = 5000
	b := New(Options{})
	var want []engine.Due
	for i := range n {
		d := engine.Due{At: engine.Instant(1 + (i*7919)%n/3), Key: fmt.Sprint("k", i)}
		hash := b.hash(d.Key)
		s := b.shard(hash)
		s.entries.set(hash, d.Key, &engine.Entry{Due: d.At})
		s.index.push(d, &s.entries)
		want = append(want, d)
	}
	slices.SortFunc(want, compare)
	for _, limit := range []int{1, 2, 100, 256, n, 10 * n} {
		var got []engine.Due
		calls := 0
		for from := (engine.Due{}); ; calls++ {
			page, err := b.Expiring(context.Background(), from, engine.Never, limit)
			require.NoError(t, err)
			require.LessOrEqual(t, len(page), limit)
			if len(page) == 0 {
				break
			}
			got = append(got, page...)
			from = page[len(page)-1]
			if limit < 100 && calls == 20 {
				break // each look passes over all that came before
			}
		}
		require.Equal(t, want[:len(got)], got)
		require.GreaterOrEqual(t, len(got), min(n, 20))
		require.LessOrEqual(t, calls, max(20, 10+4*n/limit), "pages are not much smaller than asked for")
	}
}

// TestKeysAreCopied: a key that is a piece of a request's body keeps no body alive,
// neither in the records nor in the expiry index.
func TestKeysAreCopied(t *testing.T) {
	t.Parallel()
	b := New(Options{})
	clock := idemtest.NewClock(time.Unix(1e9, 0))
	s, err := idem.New(b, idem.Options{SweepInterval: -1, Clock: clock})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	body := strings.Repeat("key in a large body ", 1000)
	key := body[:3]
	for range 3 { // new, and again over an expired record
		_, err = s.Claim(context.Background(), idem.Request{Key: key, Lease: time.Millisecond, Retention: 1})
		require.NoError(t, err)
		clock.Advance(time.Hour)
	}
	begin := uintptr(unsafe.Pointer(unsafe.StringData(body)))
	inBody := func(s string) bool {
		p := uintptr(unsafe.Pointer(unsafe.StringData(s)))
		return begin <= p && p < begin+uintptr(len(body))
	}
	shard := b.shard(b.hash(key))
	for k := range shard.entries.all {
		require.False(t, inBody(k), "a record's key")
	}
	require.NotEmpty(t, shard.index.places.items)
	for _, d := range shard.index.places.items {
		require.False(t, inBody(d.Key), "a place's key")
	}
}
