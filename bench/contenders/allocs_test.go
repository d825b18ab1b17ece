package contenders

import (
	"context"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// What is answered from memory allocates nothing, on every engine: the memory
// engine's records, and the cache of final records in front of the others. These
// tests are not parallel, because allocations are counted for the whole process.
func TestAllocsOfLookups(t *testing.T) {
	filled := &Filled{Dir: t.TempDir()}
	for _, group := range []string{GetHit, ClaimReplay} {
		for _, c := range Idem(group) {
			if strings.HasSuffix(c.Name, "-uncached") {
				continue
			}
			t.Run(group+"/"+c.Name, func(t *testing.T) {
				in := open(t, c, t.TempDir(), Workload{Group: group, Keys: NewKeys(500), ResultBytes: 256, Procs: 1, Callers: 1, Filled: filled})
				defer func() { require.NoError(t, in.Close()) }()
				n := uint64(0)
				require.Zero(t, testing.AllocsPerRun(2000, func() {
					if err := in.Op(0, n); err != nil {
						t.Fatal(err)
					}
					n++
				}))
			})
		}
	}
}

// A claim of a new key and its completion: the copies of the key and the result, and
// at most two more.
func TestAllocsOfCycle(t *testing.T) {
	const copies, more = 2, 2
	s, err := OpenStore("memory", "", idem.Options{})
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
