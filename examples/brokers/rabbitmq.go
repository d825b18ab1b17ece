package brokers

import (
	"context"
	"errors"
	"sync"

	amqp "github.com/rabbitmq/amqp091-go"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

// NewRabbitConsumer takes the message-id property, which the publisher sets. A delivery tag
// is not an ID: every delivery has a new one.
func NewRabbitConsumer(store *idem.Store, handle func(context.Context, amqp.Delivery) error) (*consume.Consumer[amqp.Delivery], error) {
	return consume.New(store, "billing", handle, consume.Options[amqp.Delivery]{
		ID:        func(d amqp.Delivery) string { return d.MessageId },
		Body:      func(d amqp.Delivery) []byte { return d.Body },
		MissingID: consume.RejectMissing,
	})
}

// Rabbit runs workers until ctx ends, the channel is closed, or an answer cannot be sent.
// The broker then delivers again what was not answered. deliveries come from
// Channel.Consume without auto-ack; set Channel.Qos to the number of workers. A rejected
// message goes to the queue's dead-letter exchange.
func Rabbit(ctx context.Context, deliveries <-chan amqp.Delivery, workers int, consumer *consume.Consumer[amqp.Delivery]) error {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for {
				select {
				case <-ctx.Done():
					return
				case d, ok := <-deliveries:
					if !ok {
						cancel(errors.New("the broker has closed the channel"))
						return
					}
					if err := answer(ctx, d, consumer.Handle(ctx, d)); err != nil {
						cancel(err)
						return
					}
				}
			}
		})
	}
	wg.Wait()
	return context.Cause(ctx)
}

func answer(ctx context.Context, d amqp.Delivery, verdict consume.Verdict) error {
	switch verdict.Decision {
	case consume.Ack:
		return d.Ack(false)
	case consume.Dead:
		return d.Reject(false)
	}
	if err := fatal(verdict); err != nil {
		return errors.Join(err, d.Nack(false, true))
	}
	// RabbitMQ delivers a requeued message again at once, so wait first.
	_ = pause(ctx, delay(verdict))
	return d.Nack(false, true)
}
