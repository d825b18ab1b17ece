package brokers

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	amqp "github.com/rabbitmq/amqp091-go"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// rabbit is a queue that delivers again what is requeued.
type rabbit struct {
	deliveries chan amqp.Delivery

	mu       sync.Mutex
	tag      uint64
	out      map[uint64]amqp.Delivery
	requeued map[string]int
	dead     []string
	gone     bool // the connection
}

func newRabbit() *rabbit {
	return &rabbit{deliveries: make(chan amqp.Delivery, 100), out: map[uint64]amqp.Delivery{}, requeued: map[string]int{}}
}

func (r *rabbit) deliver(d amqp.Delivery) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tag++
	d.Acknowledger, d.DeliveryTag = r, r.tag
	r.out[r.tag] = d
	r.deliveries <- d
}

func (r *rabbit) take(tag uint64) (amqp.Delivery, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	d, ok := r.out[tag]
	delete(r.out, tag)
	if r.gone || !ok {
		return d, amqp.ErrClosed
	}
	return d, nil
}

func (r *rabbit) Ack(tag uint64, _ bool) error {
	_, err := r.take(tag)
	return err
}

func (r *rabbit) Nack(tag uint64, _, requeue bool) error {
	d, err := r.take(tag)
	if err != nil || !requeue {
		return errors.Join(err, errors.New("only requeueing is expected"))
	}
	r.mu.Lock()
	r.requeued[d.MessageId]++
	r.mu.Unlock()
	r.deliver(d)
	return nil
}

func (r *rabbit) Reject(tag uint64, requeue bool) error {
	d, err := r.take(tag)
	if requeue {
		return errors.New("only dead letters are expected")
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.dead = append(r.dead, d.MessageId+" "+string(d.Body))
	return err
}

// In a bubble, where time passes only when everybody waits for it.
func TestRabbit(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, idem.Options{})
		b := newBills()
		consumer, err := NewRabbitConsumer(store, func(ctx context.Context, d amqp.Delivery) error {
			time.Sleep(time.Second)
			return b.handle(ctx, d.MessageId)
		})
		require.NoError(t, err)
		r := newRabbit()
		for _, m := range [][2]string{{"a", "1"}, {"a", "1"}, {"busy", "2"}, {"", "3"}, {"never", "4"}, {"a", "other"}, {"b", "5"}, {"never", "4"}, {"busy", "2"}} {
			r.deliver(amqp.Delivery{MessageId: m[0], Body: []byte(m[1])})
		}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() { ended <- Rabbit(ctx, r.deliveries, 4, consumer) }()
		time.Sleep(10 * time.Minute)
		cancel()
		require.Equal(t, context.Canceled, <-ended)
		assert.Equal(t, []string{"a", "b", "busy"}, b.processed())
		assert.Empty(t, r.out, "every delivery was answered")
		assert.ElementsMatch(t, []string{" 3", "never 4", "a other", "never 4"}, r.dead)
		assert.Equal(t, 1, b.runs["never"])
		assert.NotZero(t, r.requeued["a"], "a copy that came while the first was in flight came again later")
	})
}

// An answer that cannot be sent ends the worker, and so do a channel and a store that
// are closed.
func TestRabbitEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		then func(r *rabbit, s *idem.Store)
		says string
	}{
		"connection lost": {func(r *rabbit, _ *idem.Store) { r.gone = true }, amqp.ErrClosed.Error()},
		"channel closed":  {func(r *rabbit, _ *idem.Store) { close(r.deliveries) }, "closed the channel"},
		"store closed":    {func(_ *rabbit, s *idem.Store) { _ = s.Close() }, idem.ErrClosed.Error()},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store, r := openStore(t, idem.Options{}), newRabbit()
			consumer, err := NewRabbitConsumer(store, func(context.Context, amqp.Delivery) error {
				c.then(r, store)
				return nil
			})
			require.NoError(t, err)
			r.deliver(amqp.Delivery{MessageId: "a"})
			require.ErrorContains(t, Rabbit(t.Context(), r.deliveries, 1, consumer), c.says)
		})
	}
}
