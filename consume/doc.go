// Package consume runs the handler of a message consumer once for each message,
// however often the broker delivers it. It works with any broker: Options say how to find
// the ID and the body of a message, and each delivery gets a Verdict that says what to tell
// the broker.
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
// The record's key joins the consumer's name and the message's ID. Two consumers of one
// event each run it once. The lease of the claim is extended while the handler runs. If the
// claim is lost anyway, the handler's context is cancelled with idem.ErrFenced as its cause.
// Options.MaxRun bounds a handler that may hang.
//
// # How a message ends
//
// What the handler returns says what becomes of the message:
//
//   - nil: it is processed, and acknowledged from then on.
//   - an idem.Permanent error: it has failed for good, and is Dead from then on.
//   - an idem.Unknown error: nobody knows. It is held, and Dead until somebody settles it.
//   - an idem.Retryable error: it is released, and the next delivery runs it again.
//   - any other error is Retryable or, with Options.HoldUnknown, Unknown. So is a panic
//     or Goexit, which then goes on in the caller.
//
// A handler may settle, hold or release its claim with Operation.Token. That stands,
// whatever the handler returns, and the Verdict says so.
//
// An attempt counts once the handler has begun. A claim whose turn does not come is undone.
//
// # Guarantees and limits
//
// A message that was recorded as processed is not processed again for the retention. If a
// process dies after the handler's effect and before the record, the store does not know
// of the effect: once the lease has lapsed, the next delivery runs the handler again.
// There are three ways to live with that:
//
//   - commit the effect together with the completion (bolt.Complete or pebble.Complete with
//     Operation.Token);
//   - have the service further down check Operation.DownstreamKey;
//   - set Options.HoldUnknown, which keeps such a message from running again until a person
//     has settled it.
//
// Messages are handled in the order in which they arrive, and one that fails stops no other
// unless Options.Order says so. Retention must be longer than the longest time after which
// the broker may deliver a message again.
package consume
