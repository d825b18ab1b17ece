package idem

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/fakeclock"
)

const roomy = 1 << 20

func final(fence uint64) *engine.Entry {
	return &engine.Entry{State: Completed, Fence: fence, ExpiresAt: engine.Never}
}

// trackerOf returns the tracker of a store that was just made, with a cache of so many
// bytes.
func trackerOf(bytes int64) *tracker {
	return newTracker(newTimeline(fakeclock.New(autumn), engine.Meta{}), false, bytes)
}

// lookUp is a look-up of key that finds e in the engine.
func (t *tracker) lookUp(key string, e *engine.Entry) (cached *engine.Entry) {
	snap := t.before(key)
	if cached = t.cached(key, &snap); cached == nil {
		t.fill(key, &snap, e)
	}
	return cached
}

func TestCacheFillsWhatWasMissed(t *testing.T) {
	t.Parallel()
	tr, want := trackerOf(roomy), final(1)
	require.Nil(t, tr.lookUp("k", want))
	assert.Same(t, want, tr.lookUp("k", nil))
	assert.Equal(t, uint64(1), tr.cache.hits.Load())
	assert.Equal(t, uint64(1), tr.cache.misses.Load())
	entries, bytes := tr.cache.size()
	assert.Equal(t, 1, entries)
	assert.Equal(t, entryCost("k", want), bytes)
}

func TestCacheKeepsFinalRecordsOnly(t *testing.T) {
	t.Parallel()
	tr := trackerOf(roomy)
	for _, e := range []*engine.Entry{nil, {State: InFlight}, {State: Released}, {State: Held}} {
		tr.lookUp("k", e)
		require.Nil(t, tr.lookUp("k", e))
	}
	failed := &engine.Entry{State: Failed}
	tr.lookUp("k", failed)
	require.Same(t, failed, tr.lookUp("k", nil))
}

func TestCacheBound(t *testing.T) {
	t.Parallel()
	const max = 64 * 2000 // 2,000 bytes a shard
	tr := trackerOf(max)
	for i := range 10_000 {
		tr.lookUp(fmt.Sprint("key", i), &engine.Entry{State: Completed, Result: make([]byte, i%3000)})
	}
	entries, bytes := tr.cache.size()
	assert.LessOrEqual(t, bytes, int64(max+cacheShards))
	assert.Positive(t, entries)
	checkCache(t, tr.cache)

	big := strings.Repeat("k", 2100)
	tr.lookUp(big, final(1))
	assert.Nil(t, tr.lookUp(big, final(1)), "an entry over a shard's share is not kept")
}

func TestCacheEvictsTheLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	tr := trackerOf(cacheShards * 3 * (cacheOverhead + 4)) // three small entries a shard
	shard := tr.before("k0").hash % cacheShards
	var keys []string
	for i := 0; len(keys) < 4; i++ {
		if k := fmt.Sprintf("k%03d", i); tr.before(k).hash%cacheShards == shard {
			keys = append(keys, k)
		}
	}
	for _, k := range keys[:3] {
		tr.lookUp(k, final(1))
	}
	tr.lookUp(keys[0], nil)
	tr.lookUp(keys[3], final(1))
	for i, want := range []bool{true, false, true, true} {
		assert.Equal(t, want, tr.lookUp(keys[i], nil) != nil, "key %d", i)
	}
	checkCache(t, tr.cache)
}

// checkCache holds the sums of every shard against what is in it.
func checkCache(t require.TestingT, c *cache) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		if s.lru.Len() == 0 && s.bytes == 0 {
			s.mu.Unlock()
			continue
		}
		var sum int64
		for _, k := range s.lru.Keys() {
			e, _ := s.lru.Peek(k)
			sum += entryCost(k, e)
			require.True(t, e.State.Final(), "only final records are cached")
		}
		require.Equal(t, sum, s.bytes)
		require.LessOrEqual(t, s.bytes, s.max)
		s.mu.Unlock()
	}
}
