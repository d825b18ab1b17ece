package idemotel_test

import (
	"context"
	"fmt"
	"log"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemotel"
	"github.com/idemkv/idem/memory"
)

func Example() {
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{Observer: idemotel.Observe})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()

	// A handler behind idemhttp, with otelhttp around it, needs no more than that. Work
	// without a span around it gets one from Do:
	receipt, _, err := idemotel.Do(context.Background(), store, idem.Request{Key: "order-1"},
		func(ctx context.Context, _ idem.Claim) (string, error) {
			return pay(ctx)
		})
	fmt.Println(receipt, err)
	// Output: paid <nil>
}

func pay(context.Context) (string, error) { return "paid", nil }

// A trace of each claim as events of the span around it, and as a span of its own.
func ExampleSpans() {
	spans := idemotel.Spans(nil)
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{
		Observer: func(ctx context.Context, e idem.Event) { idemotel.Observe(ctx, e); spans(ctx, e) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	_, _ = store.Claim(context.Background(), idem.Request{Key: "order-1"})
}
