// Command consumer ships orders from a queue that delivers at least once. Each order
// leaves the stock once, and one that can never be shipped is parked. Run it twice:
//
//	go run ./examples/consumer
package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/consume"
)

// message is what the queue delivers.
type message struct {
	ID   string // the producer's: the same in a redelivery, and if it sends the order twice
	Body []byte
	Tag  int // of this delivery
}

// queue is a broker. A message that gets no answer is delivered again.
type queue interface {
	Receive(context.Context) (message, error)
	Ack(message) error
	Return(message, time.Duration) error // deliver it again, not before that
	Park(message, consume.Reason) error
}

func newConsumer(store *idem.Store) (*consume.Consumer[message], error) {
	handle := func(ctx context.Context, m message) error { return ship(ctx, store, m) }
	return consume.New(store, "shipping", handle, consume.Options[message]{
		ID:        func(m message) string { return m.ID },
		Body:      func(m message) []byte { return m.Body },
		MissingID: consume.RejectMissing,
		Retention: 14 * 24 * time.Hour, // longer than a message can come back from anywhere
	})
}

// ship takes the order out of the stock, in the commit that completes the message: a
// process that dies leaves both or neither.
func ship(ctx context.Context, store *idem.Store, m message) error {
	var order struct {
		Item  string
		Count uint64
	}
	if err := json.Unmarshal(m.Body, &order); err != nil {
		return idem.Permanent(fmt.Errorf("not an order: %w", err)) // no retry will help
	}
	return bolt.Complete(ctx, store, consume.FromContext(ctx).Token(), func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
		left := stock(tx, order.Item)
		if left < order.Count {
			return nil, fmt.Errorf("only %d of %s left", left, order.Item) // retry: more may come
		}
		return nil, setStock(tx, order.Item, left-order.Count)
	})
}

func stock(tx *bbolt.Tx, item string) uint64 {
	if b := tx.Bucket([]byte("stock")); b != nil && b.Get([]byte(item)) != nil {
		return binary.BigEndian.Uint64(b.Get([]byte(item)))
	}
	return 0
}

func setStock(tx *bbolt.Tx, item string, count uint64) error {
	b, err := tx.CreateBucketIfNotExists([]byte("stock"))
	if err != nil {
		return err
	}
	return b.Put([]byte(item), binary.BigEndian.AppendUint64(nil, count))
}

// work handles messages until ctx, the queue or the store ends. Run it in as many
// goroutines as you like.
func work(ctx context.Context, q queue, consumer *consume.Consumer[message]) error {
	for {
		m, err := q.Receive(ctx)
		if err != nil {
			return err
		}
		verdict := consumer.Handle(ctx, m)
		log.Printf("%q: %v", m.ID, verdict)
		switch verdict.Decision {
		case consume.Ack:
			err = q.Ack(m)
		case consume.Dead:
			err = q.Park(m, verdict.Reason)
		default:
			err = q.Return(m, max(verdict.After, time.Duration(verdict.Attempt)*10*time.Millisecond))
		}
		if errors.Is(verdict.Err, idem.ErrClosed) || errors.Is(verdict.Err, idem.ErrBroken) {
			err = errors.Join(err, verdict.Err) // nothing works until the store is opened again
		}
		if err != nil {
			return err
		}
	}
}

func open(path string) (*bolt.Backend, *idem.Store, error) {
	backend, err := bolt.Open(path, bolt.Options{})
	if err != nil {
		return nil, nil, err
	}
	// No other process ships orders, so what the previous one had claimed is free.
	store, err := idem.New(backend, idem.Options{LapseOnOpen: true, MaxAttempts: 12})
	if err != nil {
		return nil, nil, errors.Join(err, backend.Close())
	}
	return backend, store, nil
}

// list is a queue to try this with.
type list []message

func (q *list) Receive(context.Context) (message, error) {
	if len(*q) == 0 {
		return message{}, io.EOF
	}
	m := (*q)[0]
	*q = (*q)[1:]
	return m, nil
}
func (q *list) Ack(message) error                       { return nil }
func (q *list) Return(m message, _ time.Duration) error { *q = append(*q, m); return nil }
func (q *list) Park(m message, _ consume.Reason) error  { return nil }

func run(ctx context.Context, path string, q queue) error {
	backend, store, err := open(path)
	if err != nil {
		return err
	}
	consumer, err := newConsumer(store)
	if err == nil {
		err = backend.Update(ctx, func(tx *bbolt.Tx) error { return setStock(tx, "book", 10) })
	}
	if err == nil {
		err = work(ctx, q, consumer)
	}
	return errors.Join(err, store.Close())
}

func main() {
	book, globe := []byte(`{"item":"book","count":2}`), []byte(`{"item":"globe","count":1}`)
	q := &list{{ID: "order-1", Body: book}, {ID: "order-2", Body: book}, {ID: "order-1", Body: book}, {ID: "order-3", Body: globe}}
	if err := run(context.Background(), "shipping.db", q); !errors.Is(err, io.EOF) {
		log.Fatal(err)
	}
}
