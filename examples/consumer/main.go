// Command consumer ships orders from a queue that delivers them at least once: in any
// order, several times, and again when an answer is lost; some orders are sent twice,
// and the worker's process dies again and again. At the end it counts: each order is
// shipped once, and what cannot be shipped is parked.
//
//	go run ./examples/consumer
//
// worker.go is the page to copy; the queue and the count are the rest.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"log"
	"math"
	"os"
	"path/filepath"
	"sync"
	"time"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
)

func main() {
	orders := flag.Int("orders", 200, "orders to ship")
	deaths := flag.Int("deaths", 4, "how often the worker dies")
	flag.Parse()
	dir, err := os.MkdirTemp("", "idem-consumer")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := demo(context.Background(), os.Stdout, filepath.Join(dir, "shipping.db"), *orders, *deaths); err != nil {
		log.Print(err)
		os.RemoveAll(dir)
		os.Exit(1)
	}
}

const workers = 4

// demo ships that many orders, and counts.
func demo(ctx context.Context, out io.Writer, path string, orders, deaths int) error {
	q := newQueue(50*time.Millisecond, 0.2)
	for i := range orders {
		body, err := json.Marshal(order{Item: "book", Count: 1})
		if err != nil {
			return err
		}
		for range 1 + i%2 { // every second one is sent twice
			q.Send(message{fmt.Sprintf("order-%d", i), body})
		}
	}
	q.Send(message{"order-x", []byte("two books, please")}) // no retry will mend it
	q.Send(message{"order-y", []byte(`{"Item":"globe","Count":1}`)})
	q.Send(message{"", []byte(`{"Item":"book","Count":1}`)})

	for life := range deaths + 1 {
		deliveries := (life + 1) * orders / (deaths + 1) // spread over the work
		if life == deaths {
			deliveries = math.MaxInt
		}
		store, err := open(path, orders)
		if err != nil {
			return err
		}
		if err := live(ctx, store, q, deliveries); err != nil {
			return errors.Join(err, store.Close())
		}
	}
	store, err := open(path, orders)
	if err != nil {
		return err
	}
	stock, shipped, err := read(store)
	if err := errors.Join(err, store.Close()); err != nil {
		return err
	}

	twice := 0
	for _, n := range shipped {
		if n > 1 {
			twice++
		}
	}
	fmt.Fprintf(out, "%d orders, delivered %d times over %d lives of the worker\n", orders, q.delivered, deaths+1)
	fmt.Fprintf(out, "shipped once: %d, twice: %d, never: %d; stock: %d left of %d\n",
		len(shipped)-twice, twice, orders-len(shipped), stock["book"], 2*orders)
	fmt.Fprintf(out, "parked: order-x %v, order-y %v, without an ID %v\n", q.parked["order-x"], q.parked["order-y"], q.parked[""])
	if len(shipped) != orders || twice > 0 || stock["book"] != orders || len(q.parked) != 3 {
		return errors.New("that is not once each")
	}
	return nil
}

// open opens the store of a new life and, in the first, fills the stock.
func open(path string, orders int) (*idem.Store, error) {
	backend, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return nil, err
	}
	store, err := idem.New(backend, idem.Options{
		Lease:       time.Second,
		MaxAttempts: 12,   // then the order is parked
		LapseOnOpen: true, // nobody else ships; what the last life had claimed is free
	})
	if err != nil {
		return nil, errors.Join(err, backend.Close())
	}
	err = backend.Update(context.Background(), func(tx *bbolt.Tx) error {
		if tx.Bucket([]byte("stock")) != nil {
			return nil
		}
		stock, err := tx.CreateBucket([]byte("stock"))
		if err != nil {
			return err
		}
		return stock.Put([]byte("book"), number(uint64(2*orders)))
	})
	if err != nil {
		return nil, errors.Join(err, store.Close())
	}
	return store, nil
}

// live runs workers until the queue has made so many deliveries, or is empty. Then the
// store is closed under them, as if the process were killed: nothing is recorded after
// that, whatever they are doing.
func live(ctx context.Context, store *idem.Store, q *queue, deliveries int) error {
	consumer, err := newShipping(store)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, workers)
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() { errs[i] = work(ctx, q, consumer) })
	}
	err = errors.Join(q.Until(ctx, deliveries), store.Close())
	cancel()
	wg.Wait()
	for _, e := range errs {
		if !errors.Is(e, context.Canceled) && !errors.Is(e, idem.ErrClosed) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// read returns the stock by item, and how often each order was shipped.
func read(store *idem.Store) (stock, shipped map[string]int, err error) {
	stock, shipped = map[string]int{}, map[string]int{}
	backend, err := bolt.From(store)
	if err != nil {
		return nil, nil, err
	}
	err = backend.DB().View(func(tx *bbolt.Tx) error {
		err := tx.Bucket([]byte("stock")).ForEach(func(k, v []byte) error {
			stock[string(k)] = int(count(v))
			return nil
		})
		if b := tx.Bucket([]byte("shipped")); b != nil {
			err = errors.Join(err, b.ForEach(func(_, v []byte) error {
				shipped[string(v)]++
				return nil
			}))
		}
		return err
	})
	return stock, shipped, err
}

var _ deliverer = (*queue)(nil)
