package idem

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

const roomy = 1 << 20

func final(fence uint64) *Entry { return &Entry{State: Completed, Fence: fence, ExpiresAt: Never} }

func TestCacheFillsWhatWasMissed(t *testing.T) {
	t.Parallel()
	c := newCache(roomy)
	e, version := c.get("k")
	require.Nil(t, e)
	want := final(1)
	c.fill("k", want, version)
	e, _ = c.get("k")
	assert.Same(t, want, e)
	assert.Equal(t, uint64(1), c.hits.Load())
	assert.Equal(t, uint64(1), c.misses.Load())
	entries, bytes := c.size()
	assert.Equal(t, 1, entries)
	assert.Equal(t, entryCost("k", want), bytes)
}

// A reader that missed may have read before the commit or after it. What a commit
// overtook is not taken.
func TestCacheDropsFillsOvertaken(t *testing.T) {
	t.Parallel()
	old := final(1)
	for name, commit := range map[string]func(c *cache){
		"by a commit that decided": func(c *cache) { c.pin("k") },
		"by a commit that is done": func(c *cache) { c.pin("k"); c.unpin("k") },
		"by a commit that removed": func(c *cache) { c.pin("k"); c.unpin("k"); c.pin("k"); c.unpin("k") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := newCache(roomy)
			_, version := c.get("k")
			commit(c)
			c.fill("k", old, version)
			e, _ := c.get("k")
			assert.Nil(t, e)
		})
	}
	t.Run("read while pinned", func(t *testing.T) {
		t.Parallel()
		c := newCache(roomy)
		c.pin("k")
		_, version := c.get("k")
		c.fill("k", old, version)
		e, _ := c.get("k")
		assert.Nil(t, e)
	})
}

func TestCachePins(t *testing.T) {
	t.Parallel()
	c := newCache(roomy)
	fill := func(fence uint64) {
		_, version := c.get("k")
		c.fill("k", final(fence), version)
	}
	fill(1)
	e, _ := c.get("k")
	require.NotNil(t, e)

	c.pin("k")
	e, _ = c.get("k")
	require.Nil(t, e, "a pin drops the entry")
	c.pin("k")
	c.unpin("k")
	fill(2)
	e, _ = c.get("k")
	require.Nil(t, e, "another pin is left")
	c.unpin("k")
	fill(3)
	e, _ = c.get("k")
	require.NotNil(t, e)
	assert.Equal(t, uint64(3), e.Fence)
	for i := range c.shards {
		assert.Empty(t, c.shards[i].pins, "pins that ended leave nothing behind")
	}
}

// Which changes the cache hears of: those of a final record, and Forget of whatever
// there was.
func TestOpsOverWhatIsCached(t *testing.T) {
	t.Parallel()
	for state, want := range map[State]bool{InFlight: false, Released: false, Held: false, Completed: true, Failed: true} {
		for _, kind := range []actionKind{actClaim, actComplete, actSweep} {
			op := &Op{act: action{kind: kind}, prev: &Entry{State: state}}
			assert.Equal(t, want, op.overCached(), "%v over %v", kind, state)
		}
		assert.True(t, (&Op{act: action{kind: actForget}, prev: &Entry{State: state}}).overCached())
	}
	assert.False(t, (&Op{act: action{kind: actClaim}}).overCached(), "of a new key")
	assert.True(t, (&Op{act: action{kind: actForget}}).overCached(), "of a record that cannot be read")
}

func TestCacheBound(t *testing.T) {
	t.Parallel()
	const max = 64 * 2000 // 2,000 bytes a shard
	c := newCache(max)
	for i := range 10_000 {
		k := fmt.Sprint("key", i)
		_, version := c.get(k)
		c.fill(k, &Entry{State: Completed, Result: make([]byte, i%3000)}, version)
	}
	entries, bytes := c.size()
	assert.LessOrEqual(t, bytes, int64(max+cacheShards))
	assert.Positive(t, entries)
	checkCache(t, c)

	big := strings.Repeat("k", 2100)
	_, version := c.get(big)
	c.fill(big, final(1), version)
	e, _ := c.get(big)
	assert.Nil(t, e, "an entry over a shard's share is not kept")
}

func TestCacheEvictsTheLeastRecentlyUsed(t *testing.T) {
	t.Parallel()
	c := newCache(cacheShards * 3 * (cacheOverhead + 4)) // three small entries a shard
	shard := c.shard("k0")
	var keys []string
	for i := 0; len(keys) < 4; i++ {
		if k := fmt.Sprintf("k%03d", i); c.shard(k) == shard {
			keys = append(keys, k)
		}
	}
	for _, k := range keys[:3] {
		c.fill(k, final(1), shard.version)
	}
	c.get(keys[0])
	c.fill(keys[3], final(1), shard.version)
	for i, want := range []bool{true, false, true, true} {
		e, _ := c.get(keys[i])
		assert.Equal(t, want, e != nil, "key %d", i)
	}
	checkCache(t, c)
}

// checkCache holds the sums of every shard against what is in it.
func checkCache(t require.TestingT, c *cache) {
	for i := range c.shards {
		s := &c.shards[i]
		var sum int64
		for _, k := range s.lru.Keys() {
			e, _ := s.lru.Peek(k)
			sum += entryCost(k, e)
			require.True(t, e.State.Final(), "only final records are cached")
			require.Zero(t, s.pins[k], "a pinned key is not cached")
		}
		require.Equal(t, sum, s.bytes)
		require.LessOrEqual(t, s.bytes, s.max)
	}
}

// Readers and commits in any order of their steps, against a map of what can be
// read: the cache answers with that or with nothing.
func TestCacheProperty(t *testing.T) {
	t.Parallel()
	type read struct {
		key     string
		e       *Entry
		version uint64
	}
	type commit struct {
		key   string
		chain []*Entry // one per operation on the key in this commit
		pins  int      // one per operation over a final record
		shown bool
	}
	rapid.Check(t, func(t *rapid.T) {
		c := newCache(rapid.SampledFrom([]int64{roomy, cacheShards * 900}).Draw(t, "bytes"))
		keys := rapid.SampledFrom([]string{"a", "b", "c", "d"})
		stored := map[string]*Entry{}
		var reads []read
		var commits []commit
		busy := func(key string) bool {
			for _, m := range commits {
				if m.key == key {
					return true
				}
			}
			return false
		}
		fence := uint64(0)
		entry := func() *Entry {
			fence++
			s := rapid.SampledFrom([]State{Completed, Failed, InFlight, 0}).Draw(t, "state")
			if s == 0 {
				return nil
			}
			return &Entry{State: s, Fence: fence, Result: make([]byte, rapid.SampledFrom([]int{0, 100, 600}).Draw(t, "size"))}
		}
		t.Repeat(map[string]func(*rapid.T){
			"look up": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				e, version := c.get(k)
				if e != nil {
					require.Same(t, stored[k], e, "the cache answered with what cannot be read")
					return
				}
				reads = append(reads, read{k, stored[k], version})
			},
			"fill": func(t *rapid.T) {
				if len(reads) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(reads)-1).Draw(t, "which")
				if r := reads[i]; r.e != nil && r.e.State.Final() {
					c.fill(r.key, r.e, r.version)
				}
				reads = append(reads[:i], reads[i+1:]...)
			},
			"decide": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				if busy(k) {
					t.Skip() // commits of a key follow each other
				}
				m, prev := commit{key: k}, stored[k]
				for range rapid.IntRange(1, 3).Draw(t, "ops") {
					next := entry()
					if (&Op{act: action{kind: actSweep}, prev: prev}).overCached() {
						c.pin(k)
						m.pins++
					}
					m.chain = append(m.chain, next)
					prev = next
				}
				commits = append(commits, m)
			},
			"show": func(t *rapid.T) {
				if len(commits) == 0 {
					t.Skip()
				}
				m := &commits[rapid.IntRange(0, len(commits)-1).Draw(t, "which")]
				m.shown = true
				stored[m.key] = m.chain[len(m.chain)-1]
			},
			"end": func(t *rapid.T) {
				if len(commits) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(commits)-1).Draw(t, "which")
				for range commits[i].pins {
					c.unpin(commits[i].key)
				}
				commits = append(commits[:i], commits[i+1:]...)
			},
			"": func(t *rapid.T) { checkCache(t, c) },
		})
	})
}

// A hit is never older than what could be read before the look-up began.
func TestCacheRace(t *testing.T) {
	t.Parallel()
	c := newCache(cacheShards * 4 * cacheOverhead)
	const keys, rounds = 3, 3000
	var stored [keys]atomic.Pointer[Entry]
	var locks [keys]sync.Mutex // commits of one key follow each other
	for i := range stored {
		stored[i].Store(final(1))
	}
	name := func(i int) string { return fmt.Sprint("key", i) }
	var hits atomic.Int64
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() { // readers
			for n := range rounds {
				i := (n + g) % keys
				before := stored[i].Load().Fence
				e, version := c.get(name(i))
				if e == nil {
					c.fill(name(i), stored[i].Load(), version)
					continue
				}
				hits.Add(1)
				if e.Fence < before {
					t.Errorf("fence %d from the cache, %d could be read before", e.Fence, before)
				}
			}
		})
		wg.Go(func() { // commits
			for n := range rounds / 10 {
				i := (n + g) % keys
				locks[i].Lock()
				next := final(stored[i].Load().Fence + 1)
				c.pin(name(i))
				if n%5 != 0 { // otherwise it fails
					stored[i].Store(next)
				}
				c.unpin(name(i))
				locks[i].Unlock()
			}
		})
	}
	wg.Wait()
	assert.Positive(t, hits.Load())
	checkCache(t, c)
}
