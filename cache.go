package idem

import (
	"hash/maphash"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

// cache holds copies of final records in front of an engine that reads from disk,
// bounded by bytes. Look-ups fill it: most operations are never asked for again once
// they are done, so that a completion does not (which took a tenth of the processor
// time that a durable cycle on Pebble takes here).
//
// It must never answer with a record that a commit has changed, although three parties
// race: a reader that misses and fills, the commit, and readers that hit. So the key
// of a final record is pinned from the moment a commit decides to change it until the
// change can be read: its entry is dropped and no fill is taken. And a fill is dropped
// when anything in its shard was pinned or unpinned since its look-up missed, because
// its read may have come before the commit.
type cache struct {
	seed         maphash.Seed
	shards       [cacheShards]cacheShard
	hits, misses atomic.Uint64
}

const (
	cacheShards = 64
	// cacheOverhead is what an entry costs beside its key and result: the Entry,
	// the list element and the map's share.
	cacheOverhead = 400
)

type cacheShard struct {
	mu      sync.Mutex
	lru     *simplelru.LRU[string, *Entry]
	bytes   int64
	max     int64
	version uint64
	pins    map[string]int
}

func newCache(bytes int64) *cache {
	c := &cache{seed: maphash.MakeSeed()}
	for i := range c.shards {
		s := &c.shards[i]
		s.max = bytes/cacheShards + 1
		s.lru, _ = simplelru.NewLRU[string, *Entry](int(min(s.max/cacheOverhead, 1<<30))+1, s.evicted) // size is positive: no error
		s.pins = make(map[string]int)
	}
	return c
}

func (c *cache) shard(key string) *cacheShard {
	return &c.shards[maphash.String(c.seed, key)%cacheShards]
}

// get returns the cached entry, or nil and the version to fill with.
func (c *cache) get(key string) (*Entry, uint64) {
	s := c.shard(key)
	s.mu.Lock()
	e, ok := s.lru.Get(key)
	version := s.version
	s.mu.Unlock()
	if !ok {
		c.misses.Add(1)
		return nil, version
	}
	c.hits.Add(1)
	return e, version
}

// fill adds what a look-up that missed at version has read, unless it was overtaken.
func (c *cache) fill(key string, e *Entry, version uint64) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.version == version && s.pins[key] == 0 {
		s.add(key, e)
	}
}

// pin drops key and keeps it out until unpin.
func (c *cache) pin(key string) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	s.pins[key]++
	s.lru.Remove(key)
}

// unpin ends pin: the change can be read now.
func (c *cache) unpin(key string) {
	s := c.shard(key)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.version++
	if s.pins[key]--; s.pins[key] == 0 {
		delete(s.pins, key)
	}
}

func (s *cacheShard) add(key string, e *Entry) {
	cost := entryCost(key, e)
	if cost > s.max || s.lru.Contains(key) { // two readers filled alike
		return
	}
	s.lru.Add(strings.Clone(key), e) // the caller's may be a piece of something large
	for s.bytes += cost; s.bytes > s.max; {
		s.lru.RemoveOldest()
	}
}

func (s *cacheShard) evicted(key string, e *Entry) { s.bytes -= entryCost(key, e) }

func entryCost(key string, e *Entry) int64 {
	return int64(len(key)+len(e.Result)) + cacheOverhead
}

func (c *cache) size() (entries int, bytes int64) {
	for i := range c.shards {
		s := &c.shards[i]
		s.mu.Lock()
		entries += s.lru.Len()
		bytes += s.bytes
		s.mu.Unlock()
	}
	return entries, bytes
}
