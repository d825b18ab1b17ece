package memory

import (
	"cmp"
	"container/heap"
	"context"
	"slices"

	"github.com/idemkv/idem"
)

// index is a shard's part of the expiry index: a heap of places in time order.
// A place is stale, and dropped when it comes to the top, once the entry of its
// key stands elsewhere: leaving it costs nothing now, finding it in the heap
// would.
type index struct{ places places }

type places []idem.Due

func (p places) Len() int           { return len(p) }
func (p places) Less(i, j int) bool { return compare(p[i], p[j]) < 0 }
func (p places) Swap(i, j int)      { p[i], p[j] = p[j], p[i] }
func (p *places) Push(x any)        { *p = append(*p, x.(idem.Due)) }
func (p *places) Pop() any {
	old := *p
	last := old[len(old)-1]
	old[len(old)-1] = idem.Due{}
	*p = old[:len(old)-1]
	return last
}

func compare(a, b idem.Due) int {
	return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Key, b.Key))
}

// push adds a place. When stale ones outnumber the entries the heap is made anew
// of what is current, so that it stays in proportion to them.
func (x *index) push(d idem.Due, entries map[string]held) {
	if len(x.places) >= 2*len(entries)+64 {
		x.places = x.places[:0]
		for k, h := range entries {
			if h.entry.Due != 0 {
				x.places = append(x.places, idem.Due{At: h.entry.Due, Key: k})
			}
		}
		heap.Init(&x.places) // d is among them
		return
	}
	heap.Push(&x.places, d)
}

// first returns up to limit current places after from and up to until, in order,
// and whether there may be more of them.
func (x *index) first(from idem.Due, until idem.Instant, limit int, entries map[string]held) (found []idem.Due, more bool) {
	current := func(d idem.Due) bool {
		e := entries[d.Key].entry
		return e != nil && e.Due == d.At
	}
	for len(x.places) > 0 && !current(x.places[0]) {
		heap.Pop(&x.places)
	}
	// Best first down the heap: the frontier holds the nodes whose parents were
	// visited, and its least is the next in order.
	f := frontier{all: x.places}
	f.visit(0)
	for len(f.nodes) > 0 {
		if len(found) == limit {
			return found, true
		}
		i := heap.Pop(&f).(int)
		d := x.places[i]
		if d.At > until {
			break
		}
		if compare(d, from) > 0 && current(d) && (len(found) == 0 || found[len(found)-1] != d) {
			found = append(found, d)
		}
		f.visit(2*i + 1)
		f.visit(2*i + 2)
	}
	return found, false
}

type frontier struct {
	all   places
	nodes []int
}

func (f *frontier) visit(i int) {
	if i < len(f.all) {
		heap.Push(f, i)
	}
}
func (f *frontier) Len() int           { return len(f.nodes) }
func (f *frontier) Less(i, j int) bool { return f.all.Less(f.nodes[i], f.nodes[j]) }
func (f *frontier) Swap(i, j int)      { f.nodes[i], f.nodes[j] = f.nodes[j], f.nodes[i] }
func (f *frontier) Push(x any)         { f.nodes = append(f.nodes, x.(int)) }
func (f *frontier) Pop() any {
	last := f.nodes[len(f.nodes)-1]
	f.nodes = f.nodes[:len(f.nodes)-1]
	return last
}

// Expiring implements idem.Expirer. Each shard gives its first few; what comes
// after the last of a shard that has more is left for the next call, because that
// shard's next might come before it.
func (b *Backend) Expiring(ctx context.Context, from idem.Due, until idem.Instant, limit int) ([]idem.Due, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	perShard := min(limit, 2*limit/shardCount+4)
	var found []idem.Due
	var horizon *idem.Due
	for i := range b.shards {
		s := &b.shards[i]
		s.mu.Lock()
		part, more := s.index.first(from, until, perShard, s.entries)
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
