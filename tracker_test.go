package idem

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
)

// changeOf is an op that makes next of prev.
func changeOf(key string, prev, next *engine.Entry) *operation {
	return &operation{key: key, act: action{kind: actSweep}, prev: prev, next: next, changed: true}
}

// A reader that missed the cache may have read before the commit or after it. What a
// change overtook is not taken.
func TestTrackerDropsFillsOvertaken(t *testing.T) {
	t.Parallel()
	old := final(1)
	for name, commit := range map[string]func(tr *tracker, op *operation){
		"by a change under way":          func(tr *tracker, op *operation) { tr.begin(op) },
		"by a change that was committed": func(tr *tracker, op *operation) { tr.begin(op); tr.end(op) },
		"by a change that was abandoned": func(tr *tracker, op *operation) { tr.begin(op); tr.abandon(op) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := trackerOf(roomy)
			snap := tr.before("k")
			commit(tr, changeOf("k", old, nil))
			tr.fill("k", &snap, old)
			assert.Nil(t, tr.cached("k", &snap))
		})
	}
	t.Run("read under a change", func(t *testing.T) {
		t.Parallel()
		tr := trackerOf(roomy)
		op := changeOf("k", old, nil)
		tr.begin(op)
		snap := tr.before("k")
		tr.end(op)
		tr.fill("k", &snap, old)
		assert.Nil(t, tr.cached("k", &snap))
	})
	t.Run("read under two changes, filled under the second", func(t *testing.T) {
		t.Parallel()
		tr := trackerOf(roomy)
		a, b := changeOf("k", old, final(2)), changeOf("k", final(2), nil)
		tr.begin(a)
		tr.begin(b)
		tr.end(a)
		snap := tr.before("k")
		tr.fill("k", &snap, final(2))
		assert.Nil(t, tr.cached("k", &snap))
		tr.end(b)
		tr.lookUp("k", final(3))
		assert.NotNil(t, tr.cached("k", &snap), "and when both have ended it fills again")
	})
}

// The cache lets go of what is about to change: of final records, and of whatever there
// was when Forget removes a record that cannot be read.
func TestTrackerEmptiesCacheBeforeChange(t *testing.T) {
	t.Parallel()
	for name, op := range map[string]*operation{
		"over a completed record": changeOf("k", final(1), nil),
		"over a failed record":    changeOf("k", &engine.Entry{State: Failed}, nil),
		"Forget of anything":      {key: "k", act: action{kind: actForget}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			tr := trackerOf(roomy)
			tr.lookUp("k", final(1))
			require.NotNil(t, tr.lookUp("k", nil))
			tr.begin(op)
			require.Nil(t, tr.lookUp("k", final(1)))
			require.Nil(t, tr.lookUp("k", final(1)), "nor is it filled before the change has ended")
			tr.end(op)
			require.Nil(t, tr.lookUp("k", final(2)))
			require.NotNil(t, tr.lookUp("k", nil))
		})
	}
}

// What a claim left is known to its token until it is settled, taken over or gone.
func TestTrackerKnowsRecentClaims(t *testing.T) {
	t.Parallel()
	tr := trackerOf(-1)
	change := func(prev, next *engine.Entry) {
		op := changeOf("k", prev, next)
		tr.begin(op)
		tr.end(op)
	}
	known := func(fence uint64) *engine.Entry {
		snap := tr.claimed(Token{Key: "k", Fence: fence})
		if !snap.current() {
			return nil
		}
		return snap.entry
	}
	first := &engine.Entry{State: InFlight, Fence: 1}
	change(nil, first)
	require.Same(t, first, known(1))
	other := tr.claimed(Token{Key: "other", Fence: 1})
	require.False(t, other.current(), "another key's token with this fence")
	extended := &engine.Entry{State: InFlight, Fence: 1, LeaseUntil: 9}
	change(first, extended)
	require.Same(t, extended, known(1))
	long := &engine.Entry{State: InFlight, Fence: 1, Checkpoint: make([]byte, recentCheckpoint), Result: []byte("x")}
	change(extended, long)
	require.Nil(t, known(1), "too long to be kept, reason included")
	taken := &engine.Entry{State: InFlight, Fence: 2}
	change(long, taken)
	require.Nil(t, known(1))
	require.Same(t, taken, known(2))
	op := changeOf("k", taken, nil)
	tr.begin(op)
	require.Nil(t, known(2), "it is about to change")
	tr.abandon(op)
	require.Nil(t, known(2), "and may be read by others then")
	change(taken, &engine.Entry{State: Completed, Fence: 2})
	require.Nil(t, tr.claimed(Token{Key: "k", Fence: 2}).count)
}

// A key that is a piece of a request's body keeps no body alive, neither in the cache
// nor among the recent claims.
func TestKeptKeysAreCopied(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("key in a large body ", 1000)
	key := body[:3]
	begin := uintptr(unsafe.Pointer(unsafe.StringData(body)))
	inBody := func(s string) bool {
		p := uintptr(unsafe.Pointer(unsafe.StringData(s)))
		return begin <= p && p < begin+uintptr(len(body))
	}

	tr := trackerOf(roomy)
	tr.lookUp(key, final(1))
	kept := tr.cache.shard(tr.before(key).hash).lru.Keys()
	require.Equal(t, []string{key}, kept)
	require.False(t, inBody(kept[0]), "filled")

	for range 2 { // new, and again when it is extended
		op := changeOf(key, nil, &engine.Entry{State: InFlight, Fence: 7})
		tr.begin(op)
		tr.end(op)
		require.Equal(t, key, tr.recent.slot(7).Load().key)
		require.False(t, inBody(tr.recent.slot(7).Load().key))
	}
}

// keysOf returns keys of which the first two share a count.
func keysOf(tr *tracker) []string {
	keys := []string{"a", "", "c", "d"}
	slot := tr.before("a").count
	for i := 0; keys[1] == ""; i++ {
		if k := fmt.Sprint("b", i); tr.before(k).count == slot {
			keys[1] = k
		}
	}
	return keys
}

// Look-ups and commits in any order of their steps, against a map of what can be read.
// The cache answers with that or with nothing, and what an op brings to a commit is
// what the commit would read. A commit may begin again, with ops that change nothing
// any more, or something else; those that changed nothing at last are abandoned, by
// their callers, at any later time.
func TestTrackerProperty(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	type read struct {
		key string
		e   *engine.Entry
		saw snapshot
	}
	type commit struct {
		key   string
		ops   []*operation
		shown bool
	}
	rapid.Check(t, func(t *rapid.T) {
		tr := trackerOf(rapid.SampledFrom([]int64{roomy, cacheShards * 900}).Draw(t, "bytes"))
		keys := rapid.SampledFrom(keysOf(tr))
		stored := map[string]*engine.Entry{}
		var reads []read
		var commits []*commit
		var left []*operation // begun, and changed nothing
		fence := uint64(0)
		entry := func(prev *engine.Entry) *engine.Entry {
			s := rapid.SampledFrom([]State{Completed, Failed, InFlight, Released, 0}).Draw(t, "state")
			if s == 0 {
				return nil
			}
			if fence++; prev != nil && rapid.Bool().Draw(t, "same claim") {
				return &engine.Entry{State: s, Fence: prev.Fence, Result: make([]byte, 1)}
			}
			return &engine.Entry{State: s, Fence: fence, Result: make([]byte, rapid.SampledFrom([]int{0, 100, 600}).Draw(t, "size"))}
		}
		// brought holds what anybody could bring to an op that would read prev.
		brought := func(key string, prev *engine.Entry) {
			for _, r := range reads {
				if r.key == key && r.saw.current() {
					require.Same(t, prev, r.e, "mistaken: what was read is not what there is")
				}
			}
			for f := range fence {
				if snap := tr.claimed(Token{Key: key, Fence: f + 1}); snap.current() {
					require.Same(t, prev, snap.entry, "mistaken: what a claim left is not what there is")
				}
			}
		}
		// pass runs the commit's ops on what is stored. Of an op that changed something
		// before, again may say that it does not any more.
		pass := func(m *commit, again bool) {
			prev := stored[m.key]
			for _, op := range m.ops {
				brought(op.key, prev)
				op.prev, op.next, op.changed = prev, prev, false
				if !again || rapid.Bool().Draw(t, "changes") {
					op.next, op.changed = entry(prev), true
					if !op.began {
						op.began = true
						tr.begin(op)
					}
				}
				prev = op.next
			}
		}
		pick := func(t *rapid.T, shown bool) *commit {
			var of []*commit
			for _, m := range commits {
				if m.shown == shown {
					of = append(of, m)
				}
			}
			if of == nil {
				t.Skip()
			}
			return rapid.SampledFrom(of).Draw(t, "commit")
		}
		t.Repeat(map[string]func(*rapid.T){
			"look up": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				snap := tr.before(k)
				if e := tr.cached(k, &snap); e != nil {
					require.Same(t, stored[k], e, "the cache answered with what cannot be read")
					return
				}
				reads = append(reads, read{k, stored[k], snap})
			},
			"fill": func(t *rapid.T) {
				if len(reads) == 0 {
					t.Skip()
				}
				i := rapid.IntRange(0, len(reads)-1).Draw(t, "which")
				tr.fill(reads[i].key, &reads[i].saw, reads[i].e)
				if rapid.Bool().Draw(t, "done") {
					reads = append(reads[:i], reads[i+1:]...)
				}
			},
			"run": func(t *rapid.T) {
				k := keys.Draw(t, "key")
				for _, m := range commits {
					if m.key == k {
						t.Skip() // commits of a key follow each other
					}
				}
				m := &commit{key: k}
				for range rapid.IntRange(1, 3).Draw(t, "ops") {
					m.ops = append(m.ops, &operation{key: k, act: action{kind: actSweep}})
				}
				pass(m, false)
				commits = append(commits, m)
			},
			"run again": func(t *rapid.T) { pass(pick(t, false), true) },
			"show": func(t *rapid.T) {
				m := pick(t, false)
				m.shown = true
				stored[m.key] = m.ops[len(m.ops)-1].next
			},
			"end": func(t *rapid.T) {
				m := pick(t, true)
				for _, op := range m.ops {
					if op.changed {
						tr.end(op)
					} else if op.began {
						left = append(left, op)
					}
				}
				for i := range commits {
					if commits[i] == m {
						commits = append(commits[:i], commits[i+1:]...)
						break
					}
				}
			},
			"abandon": func(t *rapid.T) {
				if len(left) == 0 {
					t.Skip()
				}
				tr.abandon(left[0])
				left = left[1:]
			},
			"": func(t *rapid.T) { checkCache(t, tr.cache) },
		})
		for _, op := range left {
			tr.abandon(op)
		}
		for _, m := range commits {
			for _, op := range m.ops {
				if op.began {
					tr.abandon(op)
				}
			}
		}
		for i := range tr.counts {
			require.Zero(t, tr.counts[i].Load()&changeUnder, "a change that ended leaves nothing under way")
		}
	})
}

// A hit is never older than what could be read before the look-up began.
func TestTrackerRace(t *testing.T) {
	t.Parallel()
	tr := trackerOf(cacheShards * 4 * cacheOverhead)
	const keys, rounds = 3, 3000
	var stored [keys]atomic.Pointer[engine.Entry]
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
				snap := tr.before(name(i))
				e := tr.cached(name(i), &snap)
				if e == nil {
					tr.fill(name(i), &snap, stored[i].Load())
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
				prev := stored[i].Load()
				op := changeOf(name(i), prev, final(prev.Fence+1))
				tr.begin(op)
				if n%5 == 0 { // it changes nothing after all
					tr.abandon(op)
				} else {
					stored[i].Store(op.next)
					tr.end(op)
				}
				locks[i].Unlock()
			}
		})
	}
	wg.Wait()
	assert.Positive(t, hits.Load())
	checkCache(t, tr.cache)
}
