package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/consume"
)

// This is the page to copy: a worker that ships each order once, over a queue that
// delivers at least once.

// message is what the queue delivers. Its producer gives it the order's number as its
// ID, so that an order that is sent twice is known, too.
type message struct {
	ID   string
	Body []byte
}

type order struct {
	Item  string
	Count uint64
}

// newShipping makes the consumer. ship is its handler.
func newShipping(store *idem.Store) (*consume.Consumer[message], error) {
	s := shipping{store: store}
	return consume.New(store, "shipping", s.ship, consume.Options[message]{
		ID:        func(m message) string { return m.ID },
		Body:      func(m message) []byte { return m.Body },
		MissingID: consume.RejectMissing,
		Retention: 14 * 24 * time.Hour, // longer than the queue, or a dead-letter queue, keeps a message
	})
}

type shipping struct{ store *idem.Store }

// ship takes the order's items out of the stock. That, the line in the ledger and the
// end of the operation are one commit: a process that dies leaves all or nothing.
func (s shipping) ship(ctx context.Context, m message) error {
	var o order
	if err := json.Unmarshal(m.Body, &o); err != nil {
		return idem.Permanent(fmt.Errorf("not an order: %w", err)) // no retry will mend it
	}
	return bolt.Complete(ctx, s.store, consume.FromContext(ctx).Token(), func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
		stock, err := tx.CreateBucketIfNotExists([]byte("stock"))
		if err != nil {
			return nil, err
		}
		left := count(stock.Get([]byte(o.Item)))
		if left < o.Count {
			return nil, fmt.Errorf("only %d of %q left", left, o.Item) // perhaps later
		}
		shipped, err := tx.CreateBucketIfNotExists([]byte("shipped"))
		if err != nil {
			return nil, err
		}
		line, err := shipped.NextSequence()
		if err != nil {
			return nil, err
		}
		return nil, errors.Join(
			stock.Put([]byte(o.Item), number(left-o.Count)),
			shipped.Put(number(line), []byte(m.ID)))
	})
}

func number(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }

func count(b []byte) uint64 {
	if b == nil {
		return 0
	}
	return binary.BigEndian.Uint64(b)
}

// deliverer is what the worker wants of a queue. A delivery that gets no answer
// is delivered again.
type deliverer interface {
	Receive(ctx context.Context) (delivery, message, error) // waits for one
	Ack(delivery) error
	Return(delivery, time.Duration) error // deliver it again, not before that
	Park(delivery, consume.Reason, error) error
}

// work handles deliveries until ctx ends, or the store does. Run as many as you like.
func work(ctx context.Context, queue deliverer, consumer *consume.Consumer[message]) error {
	for {
		d, m, err := queue.Receive(ctx)
		if err != nil {
			return err
		}
		verdict := consumer.Handle(ctx, m)
		switch verdict.Decision {
		case consume.Ack:
			err = queue.Ack(d)
		case consume.Dead:
			err = queue.Park(d, verdict.Reason, verdict.Err)
		default:
			err = queue.Return(d, max(verdict.After, time.Duration(verdict.Attempt)*10*time.Millisecond))
		}
		if errors.Is(verdict.Err, idem.ErrClosed) || errors.Is(verdict.Err, idem.ErrBroken) {
			err = errors.Join(err, verdict.Err) // it answers nothing more until it is opened again
		}
		if err != nil {
			return err
		}
	}
}
