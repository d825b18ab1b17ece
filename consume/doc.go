// Package consume runs the handler of a message consumer once for each message,
// however often the broker delivers it. It knows no broker: it is told how to find
// the ID and the body of a message of any type, and answers each delivery with a
// Verdict that says what to tell the broker.
//
//	consumer, err := consume.New(store, "billing", bill, consume.Options[Message]{
//		ID:        func(m Message) string { return m.ID },
//		Body:      func(m Message) []byte { return m.Body },
//		MissingID: consume.RejectMissing,
//	})
//
// and then, for each delivery,
//
//	switch verdict := consumer.Handle(ctx, message); verdict.Decision {
//	case consume.Ack: // processed, now or by an earlier delivery
//		return queue.Delete(message)
//	case consume.Dead: // no redelivery will help: a person must look at it
//		return queue.Park(message, verdict.Reason, verdict.Err)
//	default: // consume.Retry: not processed, or not known to be
//		return queue.Return(message, verdict.After)
//	}
//
// The record's key joins the consumer's name with the message's ID, so that two
// consumers of one event each run it once. While the handler runs, the lease of its
// claim is extended; if the claim is lost all the same, the handler's context is
// cancelled with idem.ErrFenced as its cause. Options.MaxRun bounds the run of a handler
// that may hang.
//
// # How a message ends
//
// What the handler returns says what becomes of the message:
//
//   - nil: it is processed, and acknowledged from then on.
//   - an idem.Permanent error: it has failed for good, and is Dead from then on.
//   - an idem.Unknown error: nobody knows. It is held, and Dead until somebody settles it.
//   - an idem.Retryable error: it is released, and the next delivery runs it again.
//   - any other error is Retryable or, with Options.HoldUnknown, Unknown. So is a panic,
//     or Goexit, which goes on in the caller after that.
//
// A handler may settle, hold or release its claim by itself, with Operation.Token. That
// stands, whatever it returns then, and the Verdict says so.
//
// An attempt counts once the handler has begun. A claim whose turn does not come is undone.
//
// # What it gives, and what not
//
// A message whose processing was recorded is never processed again for the
// retention. A process that dies after the handler's effect and before its record
// leaves an effect that the store does not know of: once the lease has lapsed, the
// next delivery runs the handler again. Three ways to live with that: the effect
// commits together with the completion (bolt.Complete or pebble.Complete with
// Operation.Token); the service further down checks Operation.DownstreamKey; or
// Options.HoldUnknown keeps such a message from being run again until a person has
// settled it.
//
// Nothing puts messages in order that come in another, and one that fails stops no other
// unless Options.Order says so. Retention must be longer than the longest time
// after which the broker may still deliver a message again.
package consume
