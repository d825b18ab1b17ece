package idem

import (
	"strings"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/idemkv/idem/engine"
)

// cache holds copies of final records in front of an engine that reads from disk,
// bounded by bytes. Look-ups fill it. Completions do not: most operations are never
// asked for again once they are done, and filling took a tenth of the processor time of
// a durable cycle on Pebble.
//
// It must never return a record that a commit has changed, although three parties race:
// a reader that misses and fills, the commit, and readers that hit. So a record is
// removed before its change becomes visible, and a fill is accepted only if no change
// of the key has begun since before the read. The tracker counts the changes.
type cache struct {
	shards       [cacheShards]cacheShard
	hits, misses atomic.Uint64
}

const (
	cacheShards = 64
	// cacheOverhead is the cost of an entry besides its key and result: the Entry, the
	// list element and the map's share.
	cacheOverhead = 400
)

type cacheShard struct {
	mu    sync.Mutex
	lru   *simplelru.LRU[string, *engine.Entry]
	bytes int64
	max   int64
}

func newCache(bytes int64) *cache {
	c := new(cache)
	for i := range c.shards {
		s := &c.shards[i]
		s.max = bytes/cacheShards + 1
		s.lru, _ = simplelru.NewLRU[string, *engine.Entry](int(min(s.max/cacheOverhead, 1<<30))+1, s.evicted) // size is positive: no error
	}
	return c
}

func (c *cache) shard(hash uint64) *cacheShard { return &c.shards[hash%cacheShards] }

// get returns the cached entry of key, nil if there is none.
func (c *cache) get(hash uint64, key string) *engine.Entry {
	s := c.shard(hash)
	s.mu.Lock()
	e, ok := s.lru.Get(key)
	s.mu.Unlock()
	if !ok {
		c.misses.Add(1)
		return nil
	}
	c.hits.Add(1)
	return e
}

// fill adds an entry that was read after snap was taken, unless a change has begun
// since.
func (c *cache) fill(snap *snapshot, key string, e *engine.Entry) {
	s := c.shard(snap.hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	if snap.current() { // under the lock: a change that begins now removes it afterwards
		s.add(key, e)
	}
}

func (c *cache) remove(hash uint64, key string) {
	s := c.shard(hash)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lru.Remove(key)
}

func (s *cacheShard) add(key string, e *engine.Entry) {
	cost := entryCost(key, e)
	if cost > s.max || s.lru.Contains(key) { // another reader was faster
		return
	}
	s.lru.Add(strings.Clone(key), e) // the caller's may be a piece of something large
	for s.bytes += cost; s.bytes > s.max; {
		s.lru.RemoveOldest()
	}
}

func (s *cacheShard) evicted(key string, e *engine.Entry) { s.bytes -= entryCost(key, e) }

func entryCost(key string, e *engine.Entry) int64 {
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
