package contenders

import (
	"github.com/hashicorp/golang-lru/v2"
	"github.com/maypok86/otter/v2"

	"github.com/idemkv/idem"
)

// The caches are large enough for every key: what they would evict is no part of a
// lookup.

// cacheReads are the caches, without expiry.
func cacheReads() []Contender {
	return []Contender{
		{Name: "golang-lru", Does: "Get of an LRU cache that holds every key", Open: openLRU},
		{Name: "otter", Does: "GetIfPresent of a W-TinyLFU cache that could hold twice the keys", Open: openOtter},
	}
}

func openLRU(_ string, w Workload) (Instance, error) {
	c, err := lru.New[string, *idem.Record](max(1, w.Keys.Len()))
	if err != nil {
		return Instance{}, err
	}
	storeRecords(w, func(key string, r *idem.Record) { c.Add(key, r) })
	return cacheInstance(w, c.Len(), c.Get, func() error { return nil })
}

func openOtter(_ string, w Workload) (Instance, error) {
	n := max(1, w.Keys.Len())
	c, err := otter.New(&otter.Options[string, *idem.Record]{MaximumSize: 2 * n, InitialCapacity: n})
	if err != nil {
		return Instance{}, err
	}
	storeRecords(w, func(key string, r *idem.Record) { c.Set(key, r) })
	c.CleanUp() // what the writes left to be done is not the reads' affair
	return cacheInstance(w, c.EstimatedSize(), c.GetIfPresent, func() error { c.StopAllGoroutines(); return nil })
}

// cacheInstance looks records up with get.
func cacheInstance(w Workload, size int, get func(string) (*idem.Record, bool), closing func() error) (Instance, error) {
	if err := expectKeys(w, size); err != nil {
		return Instance{}, err
	}
	return lookups(w, 0, closing, func(_ int, key string) (int, error) {
		r, found := get(key)
		if !found {
			return absent, nil
		}
		return len(r.Result), nil
	})
}
