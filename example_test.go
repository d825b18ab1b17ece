package idem_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/memory"
)

// A store in memory, for a service whose records need not outlive it.
func Example() {
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	if err != nil {
		panic(err)
	}
	defer store.Close()
	ctx := context.Background()

	handle := func(id, body string) (string, error) {
		claim, err := store.Claim(ctx, idem.Request{Key: id, Fingerprint: idem.FingerprintOf([]byte(body))})
		switch {
		case err == nil: // ours: run it, then
			result := "receipt for " + body
			return result, store.Complete(ctx, claim.Token, []byte(result))
		case errors.Is(err, idem.ErrCompleted): // a retry: replay
			return string(claim.Record.Result), nil
		default: // do not run it
			return "", err
		}
	}
	fmt.Println(handle("txn_001", "12.50"))
	fmt.Println(handle("txn_001", "12.50"))
	fmt.Println(handle("txn_001", "99.00"))
	// Output:
	// receipt for 12.50 <nil>
	// receipt for 12.50 <nil>
	//  idem: key is in use by a different request
}

// memoryStore is a store for an example; its errors end the example.
func memoryStore(o idem.Options) *idem.Store {
	store, err := idem.New(memory.New(memory.Options{}), o)
	if err != nil {
		panic(err)
	}
	return store
}

// Ten callers at once, one run.
func ExampleDo() {
	store := memoryStore(idem.Options{})
	defer store.Close()

	var runs sync.Map
	charge := func(_ context.Context, claim idem.Claim) (int, error) {
		runs.Store(claim.Token, true)
		return 1250, nil
	}
	var callers sync.WaitGroup
	for range 10 {
		callers.Go(func() {
			cents, _, err := idem.Do(context.Background(), store, idem.Request{Key: "txn_001"}, charge)
			if cents != 1250 || err != nil {
				fmt.Println(cents, err)
			}
		})
	}
	callers.Wait()
	n := 0
	runs.Range(func(any, any) bool { n++; return true })
	fmt.Println("charged", n, "time")
	// Output: charged 1 time
}

// An error that no retry can mend is recorded, and duplicates get it too.
func ExamplePermanent() {
	store := memoryStore(idem.Options{})
	defer store.Close()

	for range 2 {
		_, replayed, err := idem.Do(context.Background(), store, idem.Request{Key: "txn_001"},
			func(context.Context, idem.Claim) (string, error) {
				return "", idem.Permanent(errors.New("card reported stolen"))
			})
		fmt.Println(replayed, err)
	}
	// Output:
	// false card reported stolen
	// true idem: operation has failed for good: card reported stolen
}

// Two keys never run into each other, whatever the parts are made of.
func ExampleJoinKey() {
	fmt.Println(idem.JoinKey("acme", "charge", "txn_001"))
	fmt.Println(idem.JoinKey("acme/charge", "txn_001"))
	fmt.Println(idem.JoinKey("acme", "", "100%"))
	// Output:
	// acme/charge/txn_001
	// acme%2Fcharge/txn_001
	// acme/%/100%25
}

// The parts cannot run into each other either.
func ExampleFingerprintOf() {
	a := idem.FingerprintOf([]byte("POST"), []byte("/payments"), []byte(`{"amount":1250}`))
	b := idem.FingerprintOf([]byte("POST"), []byte("/payments"), []byte(`{"amount":1250}`))
	c := idem.FingerprintOf([]byte("POST/payments"), []byte(`{"amount":1250}`))
	fmt.Println(a == b, a == c)
	// Output: true false
}

// The bank sees the same key on every attempt, so that it charges once although we
// may ask twice.
func ExampleDownstreamKey() {
	for attempt := 1; attempt <= 2; attempt++ {
		fmt.Println(attempt, idem.DownstreamKey("txn_001", "charge"))
	}
	fmt.Println(2, idem.DownstreamKey("txn_001", "mail"))
	// Output:
	// 1 Gz4orWGyhVcg51S6KIci-QidJuJiTNkC4b23efX1prE
	// 2 Gz4orWGyhVcg51S6KIci-QidJuJiTNkC4b23efX1prE
	// 2 60BG6LM7B-i3U6JYBanulHCIICeroHQbZQSRzMVgc2M
}

// A duplicate waits for the attempt that is in flight.
func ExampleStore_Wait() {
	store := memoryStore(idem.Options{})
	defer store.Close()
	ctx := context.Background()

	claim, err := store.Claim(ctx, idem.Request{Key: "txn_001"})
	if err != nil {
		panic(err)
	}
	go store.Complete(ctx, claim.Token, []byte("receipt"))

	if _, err := store.Claim(ctx, idem.Request{Key: "txn_001"}); errors.Is(err, idem.ErrInFlight) {
		record, err := store.Wait(ctx, "txn_001")
		fmt.Println(record.State, string(record.Result), err)
	} else { // it had completed by then
		record, err := store.Get(ctx, "txn_001")
		fmt.Println(record.State, string(record.Result), err)
	}
	// Output: completed receipt <nil>
}

// A batch of messages is claimed in one commit; each has its own answer.
func ExampleStore_ClaimMany() {
	store := memoryStore(idem.Options{})
	defer store.Close()

	results := store.ClaimMany(context.Background(), []idem.Request{{Key: "msg-1"}, {Key: "msg-2"}, {Key: "msg-1"}, {}})
	for _, r := range results {
		switch {
		case r.Err == nil:
			fmt.Println("handle", r.Token.Key)
		default:
			fmt.Println("skip:", r.Err)
		}
	}
	// Output:
	// handle msg-1
	// handle msg-2
	// skip: idem: operation is in flight
	// skip: idem: invalid argument: the key is empty; give the operation a name of 1 to 1024 bytes
}

// An operator looks for attempts that ended without saying how, and settles them.
func ExampleStore_Records() {
	store := memoryStore(idem.Options{})
	defer store.Close()
	ctx := context.Background()
	claim, err := store.Claim(ctx, idem.Request{Key: idem.JoinKey("acme", "txn_001")})
	if err != nil {
		panic(err)
	}
	if err := store.Hold(ctx, claim.Token, []byte("the bank did not answer")); err != nil {
		panic(err)
	}

	for record, err := range store.Records(ctx, idem.Filter{State: idem.Held, Prefix: "acme/"}) {
		if err != nil {
			panic(err)
		}
		fmt.Printf("%s: %s\n", record.Key, record.Result)
		fmt.Println(store.Complete(ctx, record.Token(), []byte("charged, says the bank")))
	}
	// Output:
	// acme/txn_001: the bank did not answer
	// <nil>
}

// Shutdown lets what is running finish, and takes nothing new.
func ExampleStore_Shutdown() {
	store := memoryStore(idem.Options{})
	ctx := context.Background()
	claim, err := store.Claim(ctx, idem.Request{Key: "txn_001", Lease: time.Minute})
	if err != nil {
		panic(err)
	}

	down := make(chan error)
	go func() {
		ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
		defer cancel()
		down <- store.Shutdown(ctx)
	}()
	fmt.Println("completed:", store.Complete(ctx, claim.Token, nil))
	fmt.Println("shut down:", <-down)
	_, err = store.Claim(ctx, idem.Request{Key: "txn_002"})
	fmt.Println(err)
	// Output:
	// completed: <nil>
	// shut down: <nil>
	// idem: store is closed
}

// Metrics are counts of events.
func ExampleEvent() {
	counts := map[string]int{}
	store := memoryStore(idem.Options{
		SweepInterval: -1, // everything happens on this goroutine, so the map needs no lock
		Observer: func(_ context.Context, e idem.Event) {
			counts[e.Kind.String()]++
			if e.Kind.Duplicate() {
				counts["duplicate_request_count"]++
			}
		},
	})
	defer store.Close()
	for range 3 {
		_, _, _ = idem.Do(context.Background(), store, idem.Request{Key: "txn_001"},
			func(context.Context, idem.Claim) (int, error) { return 1250, nil })
	}
	fmt.Println(counts)
	// Output: map[claim_granted:1 claim_replayed:2 duplicate_request_count:2 operation_completed:1]
}

// Logs show the hash of a key, the same in errors and events, and never the key.
func ExampleToken_LogValue() {
	log := slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	token := idem.Token{Key: "card 4242 4242 4242 4242", Fence: 7}
	log.Info("claimed", "token", token)
	fmt.Println(token)
	// Output:
	// level=INFO msg=claimed token.fence=7
	// token(fence 7)
}
