package brokers

import (
	"context"
	"fmt"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// fakeSQS has one queue, of messages that are hidden for a while when they are
// received, and one for dead letters.
type fakeSQS struct {
	visibility time.Duration

	mu       sync.Mutex
	messages map[string]*sqsMessage // by receipt handle, which changes with each receive
	receipts int
	dead     []string
	broken   error
}

type sqsMessage struct {
	types.Message
	visible time.Time
}

func (q *fakeSQS) send(id, body string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	m := &sqsMessage{Message: types.Message{Body: &body}, visible: time.Now()}
	if id != "" {
		m.MessageAttributes = map[string]types.MessageAttributeValue{"id": {DataType: aws.String("String"), StringValue: &id}}
	}
	q.receipts++
	q.messages[strconv.Itoa(q.receipts)] = m
}

func (q *fakeSQS) ReceiveMessage(ctx context.Context, in *sqs.ReceiveMessageInput, _ ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error) {
	for range in.WaitTimeSeconds {
		out := &sqs.ReceiveMessageOutput{}
		q.mu.Lock()
		for receipt, m := range q.messages {
			if len(out.Messages) == int(in.MaxNumberOfMessages) || m.visible.After(time.Now()) {
				continue
			}
			delete(q.messages, receipt)
			q.receipts++
			m.ReceiptHandle = aws.String(strconv.Itoa(q.receipts))
			m.visible = time.Now().Add(q.visibility)
			q.messages[*m.ReceiptHandle] = m
			out.Messages = append(out.Messages, m.Message)
		}
		q.mu.Unlock()
		if len(out.Messages) > 0 {
			return out, nil
		}
		if err := pause(ctx, time.Second); err != nil {
			return nil, err
		}
	}
	return &sqs.ReceiveMessageOutput{}, ctx.Err()
}

func (q *fakeSQS) DeleteMessage(_ context.Context, in *sqs.DeleteMessageInput, _ ...func(*sqs.Options)) (*sqs.DeleteMessageOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	delete(q.messages, *in.ReceiptHandle) // of an older receive: nothing, as in SQS
	return &sqs.DeleteMessageOutput{}, q.broken
}

func (q *fakeSQS) ChangeMessageVisibility(_ context.Context, in *sqs.ChangeMessageVisibilityInput, _ ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if in.VisibilityTimeout < 1 || in.VisibilityTimeout > 43200 {
		return nil, fmt.Errorf("a visibility timeout of %d s", in.VisibilityTimeout)
	}
	if m, ok := q.messages[*in.ReceiptHandle]; ok {
		m.visible = time.Now().Add(time.Duration(in.VisibilityTimeout) * time.Second)
	}
	return &sqs.ChangeMessageVisibilityOutput{}, nil
}

func (q *fakeSQS) SendMessage(_ context.Context, in *sqs.SendMessageInput, _ ...func(*sqs.Options)) (*sqs.SendMessageOutput, error) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.dead = append(q.dead, fmt.Sprintf("%s: %s %s", *in.QueueUrl, aws.ToString(in.MessageAttributes["id"].StringValue), *in.MessageBody))
	return &sqs.SendMessageOutput{}, q.broken
}

// Two workers, and handlers that take longer than messages stay hidden: everything is
// delivered many times and done once.
func TestSQS(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		store := openStore(t, idem.Options{Lease: 3 * time.Second})
		b := newBills()
		consumer, err := NewSQSConsumer(store, func(ctx context.Context, m types.Message) error {
			time.Sleep(10 * time.Second)
			return b.handle(ctx, *m.MessageAttributes["id"].StringValue)
		})
		require.NoError(t, err)
		q := &fakeSQS{messages: map[string]*sqsMessage{}, visibility: 5 * time.Second}
		for _, m := range [][2]string{{"a", "1"}, {"a", "1"}, {"busy", "2"}, {"", "3"}, {"never", "4"}, {"b", "5"}, {"busy", "2"}} {
			q.send(m[0], m[1])
		}
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				assert.ErrorIs(t, SQS(ctx, q, "events", "dead", consumer), context.Canceled)
			})
		}
		time.Sleep(time.Hour)
		q.send("a", "other")
		time.Sleep(time.Hour)
		cancel()
		wg.Wait()
		assert.Equal(t, []string{"a", "b", "busy"}, b.processed())
		assert.Empty(t, q.messages)
		assert.Subset(t, q.dead, []string{"dead:  3", "dead: never 4", "dead: a other"})
		assert.Equal(t, 1, b.runs["never"])
	})
}

// What SQS or the store does not take ends the worker.
func TestSQSEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		id   string
		then func(q *fakeSQS, s *idem.Store)
		err  error
	}{
		"deleting fails": {"a", func(q *fakeSQS, _ *idem.Store) { q.broken = context.DeadlineExceeded }, context.DeadlineExceeded},
		"parking fails":  {"never", func(q *fakeSQS, _ *idem.Store) { q.broken = context.DeadlineExceeded }, context.DeadlineExceeded},
		"store closed":   {"a", func(_ *fakeSQS, s *idem.Store) { _ = s.Close() }, idem.ErrClosed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			store := openStore(t, idem.Options{})
			q := &fakeSQS{messages: map[string]*sqsMessage{}, visibility: time.Hour}
			consumer, err := NewSQSConsumer(store, func(ctx context.Context, m types.Message) error {
				c.then(q, store)
				return newBills().handle(ctx, *m.MessageAttributes["id"].StringValue)
			})
			require.NoError(t, err)
			q.send(c.id, "")
			require.ErrorIs(t, SQS(t.Context(), q, "events", "dead", consumer), c.err)
			if c.id == "never" {
				assert.NotEmpty(t, q.messages, "what could not be parked stays")
			}
		})
	}
}
