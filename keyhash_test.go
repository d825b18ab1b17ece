package idem_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
)

// The hash of a key is the store's own: nobody can find keys by it without the store,
// and it stays what it is when the store is opened again.
func TestKeyHashIsTheStoresOwn(t *testing.T) {
	t.Parallel()
	b := storetest.NewStub()
	s := open(t, b, idem.Options{SweepInterval: -1})
	hashes := map[string]string{}
	for _, key := range []string{"txn_001", "txn_002", "", "\x00\xff", strings.Repeat("k", idem.MaxKey)} {
		hash := s.KeyHash(key)
		assert.Regexp(t, "^[0-9a-f]{12}$", hash)
		assert.NotContains(t, hashes, hash)
		hashes[hash] = key
	}
	other := open(t, storetest.NewStub(), idem.Options{SweepInterval: -1})
	assert.NotEqual(t, s.KeyHash("txn_001"), other.KeyHash("txn_001"))
	assert.NotEqual(t, "b2b281c8e278", s.KeyHash("txn_001"), "what anybody can compute")
	assert.Equal(t, s.KeyHash("txn_001"), b.Host.KeyHash("txn_001"), "the engine's messages show the same")

	require.NoError(t, s.Close())
	again := open(t, b.Reopen(), idem.Options{SweepInterval: -1})
	for hash, key := range hashes {
		assert.Equal(t, hash, again.KeyHash(key))
	}
}

// Events need a hash each, on the path of every call. It takes one allocation, for its
// text. Under the race detector a sync.Pool forgets a quarter of what it gets, and a state
// of HMAC takes eight.
func TestKeyHashAllocatesLittle(t *testing.T) {
	s := open(t, storetest.NewStub(), idem.Options{SweepInterval: -1})
	key, most := strings.Repeat("k", 100), 1.0
	if race.Enabled {
		most = 6
	}
	assert.LessOrEqual(t, testing.AllocsPerRun(500, func() { s.KeyHash(key) }), most)
}

// Hashes computed at once do not mix, and one of a key that is too long to be stored does
// not stay in memory with the others' buffers.
func TestKeyHashFromManyGoroutines(t *testing.T) {
	t.Parallel()
	s := open(t, storetest.NewStub(), idem.Options{SweepInterval: -1})
	keys, want := []string{"a", "b", strings.Repeat("k", idem.MaxKey), strings.Repeat("l", 10*idem.MaxKey)}, []string{}
	for _, key := range keys {
		want = append(want, s.KeyHash(key))
	}
	var callers sync.WaitGroup
	for i := range 8 {
		callers.Go(func() {
			for j := range 500 {
				n := (i + j) % len(keys)
				assert.Equal(t, want[n], s.KeyHash(keys[n]))
			}
		})
	}
	callers.Wait()
}

func BenchmarkKeyHash(b *testing.B) {
	s := open(b, storetest.NewStub(), idem.Options{SweepInterval: -1})
	b.ReportAllocs()
	for b.Loop() {
		s.KeyHash("payments/2027-01-15/txn_000000000001")
	}
}

func TestFilterByKeyHash(t *testing.T) {
	t.Parallel()
	told := new(recorder)
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1, Observer: told.observe})
	for _, key := range []string{"a", "b", "c"} {
		mustClaim(t, s, idem.Request{Key: key})
	}
	done := get(t, s, "b")
	told.take()
	require.NoError(t, s.Complete(t.Context(), done.Token(), nil))
	events := told.take()
	hash := events[len(events)-1].KeyHash
	require.NotEmpty(t, hash)
	found := func(f idem.Filter) (keys []string) {
		for r, err := range s.Records(t.Context(), f) {
			require.NoError(t, err)
			keys = append(keys, r.Key)
		}
		return keys
	}
	assert.Equal(t, []string{"b"}, found(idem.Filter{KeyHash: hash}), "from the event to the record")
	assert.Equal(t, []string{"b"}, found(idem.Filter{KeyHash: s.KeyHash("b"), State: idem.Completed}))
	assert.Empty(t, found(idem.Filter{KeyHash: hash, State: idem.InFlight}))
	assert.Empty(t, found(idem.Filter{KeyHash: "000000000000"}))

	b.Damage("a", "b")
	for r, err := range s.Records(t.Context(), idem.Filter{KeyHash: hash}) {
		require.ErrorIs(t, err, idem.ErrCorrupt)
		assert.Equal(t, "b", r.Key, "of what cannot be read, only that key")
	}
}

// A token of one life of a store changes nothing in another: of a store restored from a
// copy, or of two that were made at one moment by a clock that was not set.
func TestTokensOfAnotherLifeAreStale(t *testing.T) {
	t.Parallel()
	clock := idemtest.NewClock(time.Unix(5, 0))
	b := storetest.NewStub()
	s := open(t, b, idem.Options{Clock: clock, SweepInterval: -1})
	mustClaim(t, s, idem.Request{Key: "before the copy"})
	lives := []*idem.Store{
		open(t, b.Reopen(), idem.Options{Clock: clock, SweepInterval: -1}),
		open(t, b.Reopen(), idem.Options{Clock: clock, SweepInterval: -1}),
		open(t, storetest.NewStub(), idem.Options{Clock: clock, SweepInterval: -1}),
		open(t, storetest.NewStub(), idem.Options{Clock: clock, SweepInterval: -1}),
	}
	for i, one := range lives {
		for range 20 {
			token := mustClaim(t, one, k).Token
			for j, other := range lives {
				if i == j {
					continue
				}
				theirs, err := other.Claim(t.Context(), idem.Request{Key: "k"})
				require.NoError(t, err)
				require.Equal(t, idem.ErrFenced, other.Complete(t.Context(), token, nil))
				require.NoError(t, other.Unclaim(t.Context(), theirs.Token))
			}
			require.NoError(t, one.Unclaim(t.Context(), token))
		}
	}
}
