package consume

import (
	"context"

	"github.com/idemkv/idem"
)

// outwait handles a message that was in flight elsewhere, once the attempt in its way
// has ended. When there is no time left to wait, it still asks what has become of it.
func (b *batch[M]) outwait(w work) {
	for b.opts.Wait > 0 {
		ended := b.await(w.request.Key)
		if b.ctx.Err() != nil {
			return // in flight is still the answer
		}
		inFlight := b.claim([]work{w})
		b.run()
		if !ended || len(inFlight) == 0 {
			return
		}
	}
}

// await waits until key is not in flight, and reports whether it is so. It takes from
// what is left of Options.Wait. Nothing may be claimed while it waits: two consumers
// could wait for each other.
func (b *batch[M]) await(key string) bool {
	if b.wait <= 0 {
		return false
	}
	clock := b.limits.Clock
	ctx, cancel := context.WithCancel(b.ctx)
	defer cancel()
	stop := clock.AfterFunc(b.wait, cancel)
	defer stop()
	_, from := clock.Now()
	_, err := b.store.Wait(ctx, key)
	_, to := clock.Now()
	b.wait -= to - from
	return err == nil || err == idem.ErrNotFound
}
