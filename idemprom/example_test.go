package idemprom_test

import (
	"context"
	"fmt"
	"log"
	"net/http"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemprom"
	"github.com/idemkv/idem/memory"
)

func Example() {
	metrics := idemprom.New(idemprom.Options{Store: "orders"})
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{Observer: metrics.Observe})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	metrics.Watch(store)
	prometheus.MustRegister(metrics)

	http.Handle("/metrics", promhttp.Handler())
}

// Several observers are called one after the other.
func ExampleMetrics_Observe() {
	metrics := idemprom.New(idemprom.Options{})
	trace := func(_ context.Context, e idem.Event) { fmt.Println(e.Kind) }
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{
		Observer: func(ctx context.Context, e idem.Event) { metrics.Observe(ctx, e); trace(ctx, e) },
	})
	if err != nil {
		log.Fatal(err)
	}
	defer store.Close()
	metrics.Watch(store)

	_, _ = store.Claim(context.Background(), idem.Request{Key: "order-1"})
	_, _ = store.Claim(context.Background(), idem.Request{Key: "order-1"})
	// Output:
	// claim_granted
	// claim_in_flight
}
