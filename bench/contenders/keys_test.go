package contenders

import (
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestKeys(t *testing.T) {
	t.Parallel()
	for _, n := range []int{1, 2, 3, 8, 15, 100, 1000, 4096} {
		k := NewKeys(n)
		assert.Equal(t, n, k.Len())
		stored := map[string]bool{}
		steps := 0 // how often the key stored next is the one asked for next
		for i := range n {
			stored[k.Fill(i)] = true
			if k.Fill(i) == k.Hit(0, uint64(i)) {
				steps++
			}
		}
		assert.Len(t, stored, n, "each is stored once")
		if n >= 100 {
			assert.Less(t, steps, 20, "not in the order in which they are asked for")
		}
		hit := map[string]bool{}
		for i := range uint64(n) {
			if !stored[k.Hit(3, i)] || stored[k.Miss(3, i)] || len(k.Hit(3, i)) != KeyBytes || len(k.Miss(3, i)) != KeyBytes {
				t.Fatalf("key %d of %d", i, n)
			}
			hit[k.Hit(3, i)] = true
		}
		assert.Len(t, hit, n, "a worker comes round to each")

		k.SortFill()
		var sorted []string
		for i := range n {
			sorted = append(sorted, k.Fill(i))
			if !stored[k.Fill(i)] {
				t.Fatalf("key %d of %d", i, n)
			}
		}
		assert.True(t, slices.IsSorted(sorted))
		assert.Len(t, slices.Compact(sorted), n)
	}
	assert.Zero(t, (*Keys)(nil).Len())
	assert.Zero(t, NewKeys(0).Len())
}

func TestKeysAllocateNothing(t *testing.T) { // not parallel: allocations are the process's
	k := NewKeys(1000)
	n := uint64(0)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		if len(k.Hit(1, n))+len(k.Miss(2, n))+len(k.Fill(int(n%1000))) != 3*KeyBytes {
			t.Fatal()
		}
		n++
	}))
}

func TestFreshKeysAreNew(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for worker := range 300 {
		for n := range uint64(50) {
			seen[Fresh(worker, n)] = true
		}
	}
	assert.Len(t, seen, 300*50)
}

func TestResultsDoNotCompress(t *testing.T) {
	t.Parallel()
	r := Workload{ResultBytes: 256}.Result()
	assert.Len(t, r, 256)
	distinct := map[byte]bool{}
	for _, b := range r {
		distinct[b] = true
	}
	assert.Greater(t, len(distinct), 100)
	assert.Empty(t, Workload{}.Result())
}
