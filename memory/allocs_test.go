package memory_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

func TestAllocs(t *testing.T) {
	s := storetest.Open(t, memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
	storetest.LookupsAllocateNothing(t, s, true)
}

// A claim of a new key and its completion: the copies of the key and the result, and at
// most two more.
func TestAllocsOfCycle(t *testing.T) {
	s := storetest.Open(t, memory.New(memory.Options{}), idem.Options{})
	const runs = 5000
	keys := make([]string, runs+1) // AllocsPerRun warms up with one
	for n := range keys {
		keys[n] = fmt.Sprintf("%016x", n)
	}
	ctx, result := context.Background(), make([]byte, 256)
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
	allowed := 4.0
	if race.Enabled { // a sync.Pool then drops what it is given now and then
		allowed++
	}
	require.LessOrEqual(t, allocs, allowed)
}
