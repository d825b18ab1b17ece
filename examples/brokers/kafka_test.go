package brokers

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kgo"

	"github.com/idemkv/idem"
)

// A Kafka cluster in this process, spoken to over TCP: duplicates of the producer,
// a failure, a poison message, an ID used twice, a record without an ID, and after
// all that the whole topic once more.
func TestKafka(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events", "events.dead"))
	require.NoError(t, err)
	defer cluster.Close()
	producer, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...))
	require.NoError(t, err)
	defer producer.Close()
	produce := func(id, body string) {
		t.Helper()
		r := &kgo.Record{Topic: "events", Value: []byte(body)}
		if id != "" {
			r.Headers = []kgo.RecordHeader{{Key: "message-id", Value: []byte(id)}}
		}
		require.NoError(t, producer.ProduceSync(t.Context(), r).FirstErr())
	}
	store := openStore(t, idem.Options{})

	// run handles the topic until the record "end", from its start or from what is
	// committed, and returns where the group then stands.
	run := func(b *bills, end string, rewind bool) int64 {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		client, err := NewKafkaClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("events"))
		require.NoError(t, err)
		defer client.Close()
		if rewind {
			client.PollRecords(ctx, 1)
			client.SetOffsets(map[string]map[int32]kgo.EpochOffset{"events": {0: {Epoch: -1, Offset: 0}}})
			client.AllowRebalance()
		}
		consumer, err := NewKafkaConsumer(store, func(ctx context.Context, r *kgo.Record) error {
			err := b.handle(ctx, header(r, "message-id"))
			if header(r, "message-id") == end {
				cancel()
			}
			return err
		})
		require.NoError(t, err)
		require.ErrorIs(t, Kafka(ctx, client, consumer, "events.dead"), context.Canceled)
		return client.CommittedOffsets()["events"][0].Offset
	}

	for _, m := range [][2]string{
		{"a", "1"}, {"a", "1"}, {"busy", "2"}, {"", "3"}, {"never", "4"}, {"a", "other"}, {"b", "5"}, {"never", "4"}, {"busy", "2"}, {"end", ""},
	} {
		produce(m[0], m[1])
	}
	b := newBills()
	assert.Equal(t, int64(10), run(b, "end", false))
	assert.Equal(t, []string{"a", "b", "busy", "end"}, b.processed())
	assert.Equal(t, 2, b.runs["busy"])
	assert.Equal(t, 1, b.runs["never"])

	produce("later", "6")
	b = newBills()
	assert.Equal(t, int64(11), run(b, "later", true))
	assert.Equal(t, []string{"later"}, b.processed(), "all else was handled before")

	dead, err := kgo.NewClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("events.dead"))
	require.NoError(t, err)
	defer dead.Close()
	var reasons []string
	for len(reasons) < 8 {
		fetches := dead.PollRecords(t.Context(), 8)
		require.NoError(t, fetches.Err())
		fetches.EachRecord(func(r *kgo.Record) {
			reason, why, _ := strings.Cut(strings.TrimPrefix(header(r, "reason"), "dead: "), ": ")
			reasons = append(reasons, reason)
			if reason == "permanent" {
				assert.Contains(t, why, "no such account")
			}
		})
	}
	once := []string{"no_id", "permanent", "mismatch", "permanent"}
	assert.Equal(t, append(once, once...), reasons)
}

// A record that is to be retried holds up those behind it in its partition, and no other
// partition.
func TestKafkaPartitions(t *testing.T) {
	t.Parallel()
	client, err := kgo.NewClient() // speaks to nobody here
	require.NoError(t, err)
	defer client.Close()
	otherWentOn := false
	var order []string
	consumer, err := NewKafkaConsumer(openStore(t, idem.Options{}), func(_ context.Context, r *kgo.Record) error {
		id := header(r, "message-id")
		if id == "stuck" && !otherWentOn {
			return errors.New("not before the other partition")
		}
		otherWentOn = otherWentOn || r.Partition == 1
		order = append(order, id)
		return nil
	})
	require.NoError(t, err)
	var records []*kgo.Record
	for _, r := range []struct {
		partition int32
		id        string
	}{{0, "stuck"}, {0, "behind"}, {1, "free"}} {
		records = append(records, &kgo.Record{
			Topic: "events", Partition: r.partition, Headers: []kgo.RecordHeader{{Key: "message-id", Value: []byte(r.id)}},
		})
	}
	require.NoError(t, handleRecords(t.Context(), client, consumer, records, "events.dead"))
	assert.Equal(t, []string{"free", "stuck", "behind"}, order)
}

// A store that is closed ends the worker; nothing is committed past what was handled.
func TestKafkaStoreClosed(t *testing.T) {
	t.Parallel()
	cluster, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.SeedTopics(1, "events"))
	require.NoError(t, err)
	defer cluster.Close()
	client, err := NewKafkaClient(kgo.SeedBrokers(cluster.ListenAddrs()...), kgo.ConsumeTopics("events"))
	require.NoError(t, err)
	defer client.Close()
	for _, id := range []string{"a", "b"} {
		r := &kgo.Record{Topic: "events", Headers: []kgo.RecordHeader{{Key: "message-id", Value: []byte(id)}}}
		require.NoError(t, client.ProduceSync(t.Context(), r).FirstErr())
	}
	store := openStore(t, idem.Options{})
	consumer, err := NewKafkaConsumer(store, func(_ context.Context, r *kgo.Record) error {
		if header(r, "message-id") == "b" {
			return store.Close()
		}
		return nil
	})
	require.NoError(t, err)
	require.ErrorIs(t, Kafka(t.Context(), client, consumer, "events.dead"), idem.ErrClosed)
	assert.Equal(t, int64(1), client.CommittedOffsets()["events"][0].Offset)
}
