package brokers

import (
	"context"
	"errors"
	"time"

	"github.com/aws/aws-sdk-go-v2/aws"
	"github.com/aws/aws-sdk-go-v2/service/sqs"
	"github.com/aws/aws-sdk-go-v2/service/sqs/types"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

// Queue is the part of *sqs.Client that SQS needs.
type Queue interface {
	ReceiveMessage(context.Context, *sqs.ReceiveMessageInput, ...func(*sqs.Options)) (*sqs.ReceiveMessageOutput, error)
	DeleteMessage(context.Context, *sqs.DeleteMessageInput, ...func(*sqs.Options)) (*sqs.DeleteMessageOutput, error)
	ChangeMessageVisibility(context.Context, *sqs.ChangeMessageVisibilityInput, ...func(*sqs.Options)) (*sqs.ChangeMessageVisibilityOutput, error)
	SendMessage(context.Context, *sqs.SendMessageInput, ...func(*sqs.Options)) (*sqs.SendMessageOutput, error)
}

var _ Queue = (*sqs.Client)(nil)

// NewSQSConsumer takes the producer's ID from an attribute. SQS's own MessageId stays the
// same in a redelivery, but changes when the producer sends the message twice.
func NewSQSConsumer(store *idem.Store, handle func(context.Context, types.Message) error) (*consume.Consumer[types.Message], error) {
	return consume.New(store, "billing", handle, consume.Options[types.Message]{
		ID:        func(m types.Message) string { return aws.ToString(m.MessageAttributes["id"].StringValue) },
		Body:      func(m types.Message) []byte { return []byte(aws.ToString(m.Body)) },
		MissingID: consume.RejectMissing,
		Retention: 15 * 24 * time.Hour, // SQS keeps a message for 14 days at most
	})
}

// SQS handles messages until ctx ends, ten at a time: one commit claims them and one
// completes them, or two for each message with MaxAttempts, HoldUnknown or Order. The
// queue's visibility timeout may be short: a message that comes again while it is being
// handled is in flight, and does not run twice.
func SQS(ctx context.Context, queue Queue, url, deadURL string, consumer *consume.Consumer[types.Message]) error {
	for {
		received, err := queue.ReceiveMessage(ctx, &sqs.ReceiveMessageInput{
			QueueUrl: &url, MaxNumberOfMessages: 10, WaitTimeSeconds: 20, MessageAttributeNames: []string{"id"},
		})
		if err != nil {
			return err
		}
		var failed []error
		for i, verdict := range consumer.HandleBatch(ctx, received.Messages) {
			failed = append(failed, settle(context.WithoutCancel(ctx), queue, url, deadURL, received.Messages[i], verdict), fatal(verdict))
		}
		if err := errors.Join(failed...); err != nil {
			return err
		}
	}
}

func settle(ctx context.Context, queue Queue, url, deadURL string, m types.Message, verdict consume.Verdict) error {
	switch verdict.Decision {
	case consume.Retry:
		after := min(delay(verdict), 12*time.Hour) // SQS's limit
		_, err := queue.ChangeMessageVisibility(ctx, &sqs.ChangeMessageVisibilityInput{
			QueueUrl: &url, ReceiptHandle: m.ReceiptHandle, VisibilityTimeout: int32((after + time.Second - 1) / time.Second),
		})
		return err
	case consume.Dead: // leave it for a person, with the reason
		attributes := map[string]types.MessageAttributeValue{
			"reason": {DataType: aws.String("String"), StringValue: aws.String(verdict.String())},
		}
		if id, ok := m.MessageAttributes["id"]; ok {
			attributes["id"] = id
		}
		if _, err := queue.SendMessage(ctx, &sqs.SendMessageInput{QueueUrl: &deadURL, MessageBody: m.Body, MessageAttributes: attributes}); err != nil {
			return err
		}
	}
	_, err := queue.DeleteMessage(ctx, &sqs.DeleteMessageInput{QueueUrl: &url, ReceiptHandle: m.ReceiptHandle})
	return err
}
