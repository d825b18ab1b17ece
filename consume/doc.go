// Package consume runs the handler of a message consumer once for each message,
// however often the broker delivers it. It works with any broker: [Options] say how to find
// the ID and the body of a message, and each delivery gets a [Verdict], which says what to
// tell the broker.
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
// The record's key joins the consumer's name and the message's ID, so two consumers of one
// event each run it once. The lease of the claim is extended while the handler runs. If the
// claim is lost anyway, the handler's context is cancelled with idem.ErrFenced as its cause.
// Options.MaxRun bounds a handler that may hang.
//
// # How a message ends
//
// What the handler returns says what becomes of the message:
//
//   - nil: it is processed, and every later delivery is acknowledged.
//   - an idem.Permanent error: it has failed for good, and every later delivery is Dead.
//   - an idem.Unknown error: nobody knows. It is held, and Dead until someone settles it.
//   - an idem.Retryable error: it is released, and the next delivery runs it again.
//   - any other error counts as Retryable or, with Options.HoldUnknown, as Unknown. So does
//     a panic or Goexit, which then continues in the caller.
//
// A handler may also settle, hold or release its claim itself, with Operation.Token. The
// record then stays as it is, whatever the handler returns, and the Verdict follows it.
//
// An attempt counts once the handler has begun. A claim whose turn does not come is undone.
//
// # Guarantees and limits
//
// A message that was recorded as processed is not processed again until its retention
// ends. If a process dies after the handler's effect and before the record, the store does
// not know of the effect: once the lease has lapsed, the next delivery runs the handler
// again. There are three ways to deal with that:
//
//   - commit the effect together with the completion (bolt.Complete or pebble.Complete with
//     Operation.Token);
//   - have the service that you call check Operation.DownstreamKey;
//   - set Options.HoldUnknown, which keeps such a message from running again until a person
//     has settled it.
//
// The messages of a batch are handled in their order, and one that fails stops no other
// unless Options.Order says so. Retention must be longer than the longest time after which
// the broker may deliver a message again. A store belongs to one process: a message that is
// delivered to another process is new there.
package consume
