package consume

import (
	"context"
	"errors"

	"github.com/idemkv/idem"
)

// outwait handles a message that was in flight elsewhere, once the attempt in its way has
// ended. If no time is left to wait, it still asks once what has become of the message.
func (b *batch[M]) outwait(w work) {
	for b.opts.Wait > 0 {
		left, ended := b.await(w.request.Key)
		if b.ctx.Err() != nil {
			return // in flight is still the answer
		}
		inFlight := b.claim([]work{w})
		b.run()
		if v := &b.verdicts[w.message]; endings[left.State] != nil && left.Fingerprint == w.request.Fingerprint &&
			v.Reason == Unavailable && errors.Is(v.Err, idem.ErrClosed) {
			// The store is shutting down and answers no claim, but how the other attempt ended is
			// known.
			*v = b.refused(left, endings[left.State])
		}
		if !ended || len(inFlight) == 0 {
			return
		}
	}
}

// endings are the answers to a claim of an operation that has ended.
var endings = map[idem.State]error{idem.Completed: idem.ErrCompleted, idem.Failed: idem.ErrFailed, idem.Held: idem.ErrHeld}

// await waits until key is no longer in flight, within what is left of Options.Wait. It
// reports whether that is so, and the record if there is one. The caller may hold no claim
// while it waits, or two consumers could wait for each other.
func (b *batch[M]) await(key string) (left idem.Record, ended bool) {
	if b.wait <= 0 {
		return left, false
	}
	clock := b.limits.Clock
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	stop := clock.AfterFunc(b.wait, cancel)
	defer stop()
	_, from := clock.Now()
	left, err := b.store.Wait(ctx, key)
	_, to := clock.Now()
	b.wait -= to - from
	return left, err == nil || err == idem.ErrNotFound
}
