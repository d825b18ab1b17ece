package idemtest_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

// A test of one's own code moves the store's time on, and sleeps for nothing.
func ExampleClock() {
	clock := idemtest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{Clock: clock, Lease: time.Minute})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	ctx := context.Background()

	for range 3 { // attempts that end without a word, say because their process died
		claim, err := store.Claim(ctx, idem.Request{Key: "order-1"})
		fmt.Println("attempt", claim.Record.Attempt, "in flight:", errors.Is(err, idem.ErrInFlight))
		clock.Advance(40 * time.Second)
	}
	// Output:
	// attempt 1 in flight: false
	// attempt 1 in flight: true
	// attempt 2 in flight: false
}
