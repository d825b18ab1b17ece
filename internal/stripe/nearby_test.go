package stripe_test

import (
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/stripe"
)

// Goroutines that live at once are spread over more than one place, and none of them
// is sent outside of the sixteen.
func TestIndex(t *testing.T) {
	t.Parallel()
	const goroutines = 64
	var seen [16]int
	var mu sync.Mutex
	var all, begun sync.WaitGroup
	begun.Add(goroutines)
	for range goroutines {
		all.Go(func() {
			begun.Done()
			begun.Wait() // all stacks are there at once
			i := stripe.Index()
			mu.Lock()
			defer mu.Unlock()
			seen[i]++
		})
	}
	all.Wait()
	used := 0
	for _, n := range seen {
		if n > 0 {
			used++
		}
	}
	require.Greater(t, used, 4, "%v", seen)
}

func TestIndexAllocatesNothing(t *testing.T) {
	require.Zero(t, testing.AllocsPerRun(100, func() { _ = stripe.Index() }))
}
