package brokers

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

// NewKafkaConsumer takes the producer's ID from a header. An offset is not an ID: an event
// that the producer sends twice has two.
func NewKafkaConsumer(store *idem.Store, handle func(context.Context, *kgo.Record) error) (*consume.Consumer[*kgo.Record], error) {
	return consume.New(store, "billing", handle, consume.Options[*kgo.Record]{
		ID:        func(r *kgo.Record) string { return header(r, "message-id") },
		Body:      func(r *kgo.Record) []byte { return r.Value },
		MissingID: consume.RejectMissing,
		Order:     consume.StopAtRetry,
		Group:     func(r *kgo.Record) string { return fmt.Sprint(r.Topic, "/", r.Partition) },
	})
}

// NewKafkaClient commits only what is marked.
func NewKafkaClient(opts ...kgo.Opt) (*kgo.Client, error) {
	return kgo.NewClient(append(opts, kgo.ConsumerGroup("billing"), kgo.AutoCommitMarks(), kgo.BlockRebalanceOnPoll())...)
}

// Kafka handles records until ctx ends. A commit covers every record before it, so one that
// must be retried holds up the rest of its partition, and no other.
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
		if err := handleRecords(ctx, client, consumer, fetches.Records(), deadTopic); err != nil {
			return err // what is not marked comes again
		}
		client.AllowRebalance()
	}
}

// handleRecords returns when no record is left to retry.
func handleRecords(ctx context.Context, client *kgo.Client, consumer *consume.Consumer[*kgo.Record], records []*kgo.Record, deadTopic string) error {
	for len(records) > 0 {
		var again []*kgo.Record
		wait := time.Duration(math.MaxInt64)
		for i, verdict := range consumer.HandleBatch(ctx, records) {
			switch verdict.Decision {
			case consume.Retry:
				if err := fatal(verdict); err != nil {
					return err
				}
				again = append(again, records[i])
				if verdict.Reason != consume.Behind { // those wait for an earlier one
					wait = min(wait, delay(verdict))
				}
				continue
			case consume.Dead:
				if err := bury(context.WithoutCancel(ctx), client, records[i], deadTopic, verdict); err != nil {
					return err
				}
			}
			client.MarkCommitRecords(records[i])
		}
		if len(again) > 0 {
			if err := pause(ctx, wait); err != nil {
				return err
			}
		}
		records = again
	}
	return nil
}

// bury leaves the record for a person, and says why it is there.
func bury(ctx context.Context, client *kgo.Client, record *kgo.Record, deadTopic string, verdict consume.Verdict) error {
	return client.ProduceSync(ctx, &kgo.Record{
		Topic: deadTopic, Key: record.Key, Value: record.Value,
		Headers: append([]kgo.RecordHeader{{Key: "reason", Value: []byte(verdict.String())}}, record.Headers...),
	}).FirstErr()
}

func header(r *kgo.Record, key string) string {
	for _, h := range r.Headers {
		if h.Key == key {
			return string(h.Value)
		}
	}
	return ""
}
