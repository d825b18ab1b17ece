package consume_test

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/memory"
)

// Message is what this example's broker delivers.
type Message struct {
	ID   string
	Body []byte
}

// printingQueue stands for a broker's client. It prints what it is told to do.
type printingQueue struct{}

func (printingQueue) Delete(m Message) error {
	fmt.Println("delete", m.ID)
	return nil
}

func (printingQueue) Park(m Message, why consume.Reason, err error) error {
	fmt.Printf("park %s: %v: %v\n", m.ID, why, err)
	return nil
}

func (printingQueue) Return(m Message, after time.Duration) error {
	fmt.Println("return", m.ID, after)
	return nil
}

func newBilling(store *idem.Store, bill func(context.Context, Message) error) (*consume.Consumer[Message], error) {
	consumer, err := consume.New(store, "billing", bill, consume.Options[Message]{
		ID:        func(m Message) string { return m.ID },
		Body:      func(m Message) []byte { return m.Body },
		MissingID: consume.RejectMissing,
	})
	return consumer, err
}

func deliver(ctx context.Context, queue printingQueue, consumer *consume.Consumer[Message], message Message) error {
	switch verdict := consumer.Handle(ctx, message); verdict.Decision {
	case consume.Ack: // processed, now or by an earlier delivery
		return queue.Delete(message)
	case consume.Dead: // no redelivery will help: a person must look at it
		return queue.Park(message, verdict.Reason, verdict.Err)
	default: // consume.Retry: not processed, or not known to be
		return queue.Return(message, verdict.After)
	}
}

func exampleStore() *idem.Store {
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	if err != nil {
		panic(err)
	}
	return store
}

func Example() {
	store := exampleStore()
	defer store.Close()
	busy := true
	bill := func(_ context.Context, m Message) error {
		switch {
		case m.ID == "evt-2" && busy:
			busy = false
			return errors.New("the bank is busy")
		case m.ID == "evt-3":
			return idem.Permanent(errors.New("no such account"))
		}
		fmt.Println("bill", m.ID)
		return nil
	}
	consumer, err := newBilling(store, bill)
	if err != nil {
		panic(err)
	}
	for _, id := range []string{"evt-1", "evt-2", "evt-1", "evt-3", "evt-2", "evt-3", "", "evt-2"} {
		if err := deliver(context.Background(), printingQueue{}, consumer, Message{ID: id}); err != nil {
			panic(err)
		}
	}
	// Output:
	// bill evt-1
	// delete evt-1
	// return evt-2 0s
	// delete evt-1
	// park evt-3: permanent: no such account
	// bill evt-2
	// delete evt-2
	// park evt-3: permanent: idem: operation has failed for good: no such account
	// park : no_id: idem: message has no ID
	// delete evt-2
}

// A batch is claimed in one commit and completed in one.
func ExampleConsumer_HandleBatch() {
	store := exampleStore()
	defer store.Close()
	consumer, err := newBilling(store, func(_ context.Context, m Message) error {
		fmt.Println("bill", m.ID)
		return nil
	})
	if err != nil {
		panic(err)
	}
	batch := []Message{{ID: "evt-1"}, {ID: "evt-2"}, {ID: "evt-1"}, {ID: "evt-2", Body: []byte("other")}}
	for i, verdict := range consumer.HandleBatch(context.Background(), batch) {
		fmt.Println(batch[i].ID, verdict)
	}
	// Output:
	// bill evt-1
	// bill evt-2
	// evt-1 ack: processed
	// evt-2 ack: processed
	// evt-1 ack: duplicate
	// evt-2 dead: mismatch: idem: key is in use by a different request
}

// A Kafka partition, say: the offset is committed up to the first message that is to be
// retried, and a dead letter holds up nothing.
func ExampleConsumer_HandleBatch_inOrder() {
	store := exampleStore()
	defer store.Close()
	ledgerIsUp := false
	book := func(_ context.Context, m Message) error {
		switch {
		case m.ID == "evt-2":
			return idem.Permanent(errors.New("no such account"))
		case m.ID == "evt-3" && !ledgerIsUp:
			return errors.New("the ledger is down")
		}
		fmt.Println("book", m.ID)
		return nil
	}
	consumer, err := consume.New(store, "ledger", book, consume.Options[Message]{
		ID:        func(m Message) string { return m.ID },
		Body:      func(m Message) []byte { return m.Body },
		MissingID: consume.RejectMissing,
		Order:     consume.StopAtRetry,
	})
	if err != nil {
		panic(err)
	}
	partition := []Message{{ID: "evt-1"}, {ID: "evt-2"}, {ID: "evt-3"}, {ID: "evt-4"}}
	for committed := 0; committed < len(partition); {
		for _, verdict := range consumer.HandleBatch(context.Background(), partition[committed:]) {
			fmt.Println(partition[committed].ID, verdict)
			if verdict.Decision == consume.Retry {
				break
			}
			committed++ // a dead letter is put aside before that
		}
		ledgerIsUp = true
	}
	// Output:
	// book evt-1
	// evt-1 ack: processed
	// evt-2 dead: permanent: no such account
	// evt-3 retry: failed: the ledger is down
	// book evt-3
	// book evt-4
	// evt-3 ack: processed
	// evt-4 ack: processed
}

// The next attempt goes on where the one before stopped, and shows the services
// further down the same keys.
func ExampleFromContext() {
	store := exampleStore()
	defer store.Close()
	consumer, err := newBilling(store, func(ctx context.Context, _ Message) error {
		op := consume.FromContext(ctx)
		fmt.Println("attempt", op.Attempt())
		if op.Checkpoint() == nil {
			fmt.Println("charge with key", op.DownstreamKey("charge"))
			if err := op.SaveCheckpoint(ctx, []byte("charged")); err != nil {
				return err
			}
		}
		if op.Attempt() == 1 {
			return errors.New("the mail server is down")
		}
		fmt.Println("mail with key", op.DownstreamKey("mail"))
		return nil
	})
	if err != nil {
		panic(err)
	}
	for range 2 {
		fmt.Println(consumer.Handle(context.Background(), Message{ID: "evt-1"}))
	}
	// Output:
	// attempt 1
	// charge with key OwpS9d4ufQZmWO95ti4h04WOt5izbLCFSGMp2cz3k6s
	// retry: failed: the mail server is down
	// attempt 2
	// mail with key fQLr6hMKdNPlmqf9nqBSRRjh6sp4UbyTodHL--e3Q2U
	// ack: processed
}

// A person who has found out what became of a held message settles its record.
func ExampleConsumer_Key() {
	store := exampleStore()
	defer store.Close()
	ctx := context.Background()
	consumer, err := newBilling(store, func(context.Context, Message) error {
		return idem.Unknown(errors.New("the bank did not answer"))
	})
	if err != nil {
		panic(err)
	}
	message := Message{ID: "evt-1"}
	fmt.Println(consumer.Handle(ctx, message))

	key, err := consumer.Key(message)
	if err != nil {
		panic(err)
	}
	record, err := store.Get(ctx, key)
	if err != nil {
		panic(err)
	}
	fmt.Println("the bank says it was charged:", store.Complete(ctx, record.Token(), nil))
	fmt.Println(consumer.Handle(ctx, message))
	// Output:
	// dead: held: the bank did not answer
	// the bank says it was charged: <nil>
	// ack: duplicate
}

// redrive has a dead letter run again, once its cause is mended.
func redrive(ctx context.Context, store *idem.Store, consumer *consume.Consumer[Message], message Message) error {
	key, err := consumer.Key(message)
	if err != nil {
		return err
	}
	return store.Forget(ctx, idem.Token{Key: key})
}

// The account is open again: the dead letter may run.
func ExampleConsumer_Key_redrive() {
	store := exampleStore()
	defer store.Close()
	closed := true
	consumer, err := newBilling(store, func(context.Context, Message) error {
		if closed {
			return idem.Permanent(errors.New("account closed"))
		}
		return nil
	})
	if err != nil {
		panic(err)
	}
	ctx, message := context.Background(), Message{ID: "evt-1"}
	fmt.Println(consumer.Handle(ctx, message))
	closed = false
	fmt.Println(redrive(ctx, store, consumer, message))
	fmt.Println(consumer.Handle(ctx, message))
	// Output:
	// dead: permanent: account closed
	// <nil>
	// ack: processed
}
