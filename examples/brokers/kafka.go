package brokers

import (
	"context"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

// NewKafkaConsumer is told where a record has its ID. An offset is no ID: a producer
// that sends an event twice gets two.
func NewKafkaConsumer(store *idem.Store, handle func(context.Context, *kgo.Record) error) (*consume.Consumer[*kgo.Record], error) {
	return consume.New(store, "billing", handle, consume.Options[*kgo.Record]{
		ID:        func(r *kgo.Record) string { return header(r, "message-id") },
		Body:      func(r *kgo.Record) []byte { return r.Value },
		MissingID: consume.RejectMissing,
	})
}

// NewKafkaClient commits what is marked, and nothing else.
func NewKafkaClient(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(opts, kgo.ConsumerGroup("billing"), kgo.AutoCommitMarks(), kgo.BlockRebalanceOnPoll())...)
}

// Kafka handles records until ctx ends. Each partition keeps its order: a record that
// is to be retried holds up those behind it, because a commit covers all before it.
func Kafka(ctx context.Context, client *kgo.Client, consumer *consume.Consumer[*kgo.Record], deadTopic string) error {
	defer func() {
		_ = client.CommitMarkedOffsets(context.WithoutCancel(ctx))
		client.AllowRebalance()
	}()
	for {
		fetches := client.PollRecords(ctx, 100)
		if err := fetches.Err0(); err != nil {
			return err // ctx has ended or the client is closed
		}
		for records := fetches.RecordIter(); !records.Done(); {
			record := records.Next()
			if err := handleRecord(ctx, client, consumer, record, deadTopic); err != nil {
				return err // not marked: it comes again
			}
			client.MarkCommitRecords(record)
		}
		client.AllowRebalance()
	}
}

func handleRecord(ctx context.Context, client *kgo.Client, consumer *consume.Consumer[*kgo.Record], record *kgo.Record, deadTopic string) error {
	for {
		verdict := consumer.Handle(ctx, record)
		switch verdict.Decision {
		case consume.Ack:
			return nil
		case consume.Dead: // for a person: the record, and why it is here
			return client.ProduceSync(ctx, &kgo.Record{
				Topic: deadTopic, Key: record.Key, Value: record.Value,
				Headers: append([]kgo.RecordHeader{{Key: "reason", Value: []byte(verdict.String())}}, record.Headers...),
			}).FirstErr()
		}
		if err := fatal(verdict); err != nil {
			return err
		}
		if err := pause(ctx, delay(verdict)); err != nil {
			return err
		}
	}
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}
