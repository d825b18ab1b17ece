package memory

import (
	"cmp"
	"context"
	"slices"

	"github.com/idemkv/idem/engine"
)

// index is a shard's part of the expiry index: a heap of places in time order. A place
// is stale once its key's entry has moved elsewhere. It stays until it reaches the top
// and is dropped there, because finding it in the heap would cost something and leaving
// it does not.
type index struct{ places heap[engine.Due] }

func (x *index) init() { x.places.less = before }

func before(a, b engine.Due) bool { return compare(a, b) < 0 }

func compare(a, b engine.Due) int {
	if c := cmp.Compare(a.At, b.At); c != 0 {
		return c
	}
	return cmp.Compare(a.Key, b.Key)
}

// push adds a place. When stale places outnumber the entries, it rebuilds the heap from
// the current ones, which keeps its size in proportion.
func (x *index) push(d engine.Due, entries *table) {
	if len(x.places.items) >= 2*entries.live+64 {
		x.places.items = x.places.items[:0]
		for k, e := range entries.all {
			if e.Due != 0 {
				x.places.items = append(x.places.items, engine.Due{At: e.Due, Key: k})
			}
		}
		x.places.order() // d is among them
		return
	}
	x.places.push(d)
}

// first returns up to limit current places after from and up to until, in order, and
// whether there may be more.
func (x *index) first(from engine.Due, until engine.Instant, limit int, current func(engine.Due) bool) (found []engine.Due, more bool) {
	all := x.places.items
	for len(all) > 0 && !current(all[0]) {
		x.places.pop()
		all = x.places.items
	}
	// Walk the heap best first. The frontier holds the nodes whose parents were visited;
	// its least one is the next in order.
	frontier := heap[int]{less: func(i, j int) bool { return before(all[i], all[j]) }}
	visit := func(i int) {
		if i < len(all) {
			frontier.push(i)
		}
	}
	visit(0)
	for len(frontier.items) > 0 {
		if len(found) == limit {
			return found, true
		}
		i := frontier.pop()
		d := all[i]
		if d.At > until {
			break
		}
		if before(from, d) && current(d) && (len(found) == 0 || found[len(found)-1] != d) {
			found = append(found, d)
		}
		visit(2*i + 1)
		visit(2*i + 2)
	}
	return found, false
}

// Expiring implements engine.Expirer. Each shard returns its first few places. If a
// shard has more, everything after its last one is left for the next call, because the
// shard's next place might come first.
func (b *Backend) Expiring(ctx context.Context, from engine.Due, until engine.Instant, limit int) ([]engine.Due, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	perShard := min(limit, 2*limit/shardCount+4)
	var found []engine.Due
	var horizon *engine.Due
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		part, more := s.index.first(from, until, perShard, func(d engine.Due) bool {
			e := s.entries.get(b.hash(d.Key), d.Key)
			return e != nil && e.Due == d.At
		})
		s.mu.Unlock()
		found = append(found, part...)
		if more {
			last := part[len(part)-1]
			if horizon == nil || compare(last, *horizon) < 0 {
				horizon = &last
			}
		}
	}
	slices.SortFunc(found, compare)
	if horizon != nil {
		n, _ := slices.BinarySearchFunc(found, *horizon, compare)
		found = found[:n+1]
	}
	return found[:min(limit, len(found))], nil
}
