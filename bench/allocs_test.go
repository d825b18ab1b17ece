package bench

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// What is answered from memory allocates nothing, on every engine: the memory
// engine's records, and the cache of final records in front of the others. These
// tests are not parallel, because allocations are counted for the whole process.
func TestAllocsOfLookups(t *testing.T) {
	filled, err := NewFilled(t.TempDir())
	require.NoError(t, err)
	for _, e := range Engines() {
		for group, allowed := range map[string]float64{GetHit: 0, ClaimReplay: 0} {
			t.Run(e.Name+"/"+group, func(t *testing.T) {
				w := Workload{Group: group, Keys: NewKeys(500), ResultBytes: 256, Procs: 1, Callers: 1}
				in := openNamed(t, Idem(group, filled), IdemPrefix+e.Name, w)
				n := uint64(0)
				allocs := testing.AllocsPerRun(2000, func() {
					if err := in.Op(0, n); err != nil {
						t.Fatal(err)
					}
					n++
				})
				require.LessOrEqual(t, allocs, allowed)
			})
		}
	}
}

// A claim of a new key and its completion: the copies of the key and the result, and
// at most two more.
func TestAllocsOfCycle(t *testing.T) {
	const copies, more = 2, 2
	s, err := OpenStore(Engines()[0], "", idem.Options{})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	const runs = 5000
	keys := make([]string, 0, runs+1)
	for n := range uint64(runs + 1) { // AllocsPerRun warms up with one
		keys = append(keys, Fresh(0, n))
	}
	ctx, result := context.Background(), Workload{ResultBytes: 256}.Result()
	n := 0
	allocs := testing.AllocsPerRun(runs, func() {
		c, err := s.Claim(ctx, idem.Request{Key: keys[n]})
		if err == nil {
			err = s.Complete(ctx, c.Token, result)
		}
		if err != nil {
			t.Fatal(err)
		}
		n++
	})
	allowed := float64(copies + more)
	if raceDetector {
		allowed++
	}
	require.LessOrEqual(t, allocs, allowed)
}

// openNamed opens one of the contenders until the test ends.
func openNamed(t *testing.T, contenders []Contender, name string, w Workload) Instance {
	t.Helper()
	for _, c := range contenders {
		if c.Name == name {
			in, err := c.Open(t.TempDir(), w)
			require.NoError(t, err)
			t.Cleanup(func() { require.NoError(t, in.Close()) })
			return in
		}
	}
	require.Fail(t, "no contender "+name)
	return Instance{}
}
