package consume

import (
	"context"
	"sync"

	"github.com/idemkv/idem"
)

// HandleBatch is Handle for many messages, with one verdict each, in their order. All
// are claimed in one commit; the handler runs for those granted, one after the other,
// in their order, while the leases of all are extended; and those that went well are
// completed in one commit. A batch longer than the store's Options.MaxBatch is handled
// in parts of that length.
//
// A message that repeats one before it in the batch, ID and body, gets the verdict of
// that one. Messages are otherwise judged on their own merits: one that fails stops
// none after it, so for messages that must keep their order call Handle one by one.
//
// The price of one commit: a process that dies leaves the messages of the batch that
// it had handled unrecorded, to be run again. And a claim counts as an attempt also if
// ctx ended, or a handler panicked, before its turn came; the claim is then released.
func (c *Consumer[M]) HandleBatch(ctx context.Context, ms []M) []Verdict {
	verdicts := make([]Verdict, len(ms))
	for start := 0; start < len(ms); start += c.limits.MaxBatch {
		end := min(start+c.limits.MaxBatch, len(ms))
		b := batch[M]{Consumer: c, ctx: ctx, messages: ms[start:end], verdicts: verdicts[start:end]}
		b.claim()
		b.run()
	}
	return verdicts
}

// batch is what is claimed in one commit.
type batch[M any] struct {
	*Consumer[M]
	ctx      context.Context
	messages []M
	verdicts []Verdict
	work     []work      // in the order of the messages
	repeats  map[int]int // messages that repeat one before them, and which
}

// work is one run of the handler that is to be.
type work struct {
	message int
	claim   idem.Claim      // zero: unprotected
	ctx     context.Context // the handler's; ends when the claim is lost
	stop    func()          // of the heartbeat
	state   workState
}

type workState uint8

const (
	waiting workState = iota
	running
	handled // well, and yet to be recorded
	judged
)

func (w *work) protected() bool { return w.claim.Token.Key != "" }

// claim asks for all messages at once. What is refused is judged; the rest is work.
func (b *batch[M]) claim() {
	todo := make([]work, 0, len(b.messages))
	requests := make([]idem.Request, 0, len(b.messages)) // of todo; without a key: unprotected
	claims := make([]idem.Request, 0, len(b.messages))
	first := make(map[idem.Request]int)
	for i, m := range b.messages {
		r, reason, err := b.request(m)
		if err != nil && reason != Unprotected {
			b.verdicts[i] = Verdict{Decision: Dead, Reason: reason, Err: err}
			continue
		}
		if err == nil {
			if before, again := first[r]; again {
				if b.repeats == nil {
					b.repeats = make(map[int]int)
				}
				b.repeats[i] = before
				continue
			}
			first[r] = i
			claims = append(claims, r)
		}
		todo = append(todo, work{message: i})
		requests = append(requests, r)
	}
	var answers []idem.ClaimResult
	if len(claims) > 0 {
		answers = b.store.ClaimMany(b.ctx, claims)
	}
	for i, w := range todo {
		if requests[i].Key == "" {
			w.ctx, w.stop = context.WithValue(b.ctx, operationKey{}, (*Operation)(nil)), func() {}
			b.work = append(b.work, w)
			continue
		}
		answer := answers[0]
		answers = answers[1:]
		if answer.Err != nil {
			b.verdicts[w.message] = b.refused(answer.Record, answer.Err)
			continue
		}
		w.claim = answer.Claim
		op := &Operation{store: b.store, claim: w.claim, checkpoint: w.claim.Record.Checkpoint}
		w.ctx, w.stop = b.store.Heartbeat(context.WithValue(b.ctx, operationKey{}, op), w.claim)
		b.work = append(b.work, w)
	}
}

// run runs the handler for what is work, and records what came of it.
func (b *batch[M]) run() {
	defer b.settle() // also when the handler panics
	for i := range b.work {
		w := &b.work[i]
		if w.ctx.Err() != nil {
			continue // not begun, because ctx has ended or the claim is lost
		}
		w.state = running
		err := b.handle(w.ctx, b.messages[w.message])
		w.state = handled
		if err != nil && w.protected() {
			w.stop()
			b.verdicts[w.message] = b.failed(context.WithoutCancel(b.ctx), w.claim, err)
			w.state = judged
		} else if !w.protected() {
			b.verdicts[w.message] = unprotected(err)
			w.state = judged
		}
	}
}

// settle ends what is not judged yet. Only a panic or Goexit, which goes on when this
// returns, leaves one running.
func (b *batch[M]) settle() {
	ctx := context.WithoutCancel(b.ctx)
	var done []idem.Completion
	var doneBy []*work
	var releases sync.WaitGroup // at once, so that they share commits
	for i := range b.work {
		w := &b.work[i]
		ended := context.Cause(w.ctx)
		w.stop()
		switch {
		case w.state == handled:
			done = append(done, idem.Completion{Token: w.claim.Token})
			doneBy = append(doneBy, w)
		case w.state == running && b.opts.HoldUnknown && w.protected():
			_ = b.store.Hold(ctx, w.claim.Token, []byte("the handler panicked"))
		case w.state == waiting || w.state == running:
			b.verdicts[w.message] = Verdict{Reason: Unavailable, Err: ended, Attempt: w.claim.Record.Attempt}
			if w.protected() {
				releases.Go(func() { _ = b.store.Release(ctx, w.claim.Token, nil) })
			}
		}
	}
	for i, err := range b.store.CompleteMany(ctx, done) {
		w := doneBy[i]
		b.verdicts[w.message] = b.completed(w.claim, err)
	}
	releases.Wait()
	for again, before := range b.repeats {
		v := b.verdicts[before]
		if v.Reason == Processed {
			v = Verdict{Decision: Ack, Reason: Duplicate, Attempt: v.Attempt}
		}
		b.verdicts[again] = v
	}
}
