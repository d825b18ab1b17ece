package consume

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/idemkv/idem"
)

// HandleBatch is Handle for many messages, with one verdict each, in their order. All are
// claimed in one commit. The handler runs for those granted, one after the other in their
// order, while the leases of all are extended. Those that went well are completed in one
// commit. A batch longer than the store's Options.MaxBatch is handled in parts of that
// length.
//
// If a message repeats an earlier one in the batch, with the same ID and body, it gets that
// one's verdict. Otherwise messages are judged on their own merits, and one that fails
// stops none after it unless Options.Order says so. If ctx ends, or a handler panics or
// runs into MaxRun, the messages whose turn has not come are given back, as if they had
// never been delivered.
//
// With Options.Wait, messages that are in flight elsewhere come last or, with
// Options.Order, in their turn. Nothing is claimed while HandleBatch waits for them, so two
// consumers never wait for each other. Those that turn out to be released run one by one.
//
// Sharing a commit has a price: a process that dies leaves the messages of the batch in
// flight until their leases end, and those that it had handled run again. If it matters
// which of them had begun, because attempts are counted (MaxAttempts), unknown outcomes
// held (HoldUnknown) or messages kept in order (Order), each is claimed right before its
// turn and completed right after it. A process that dies then leaves one message in flight.
// That costs two commits for each message instead of two for the batch.
func (c *Consumer[M]) HandleBatch(ctx context.Context, ms []M) []Verdict {
	b := batch[M]{Consumer: c, ctx: ctx, messages: ms, verdicts: make([]Verdict, len(ms)), wait: c.opts.Wait}
	todo := b.sort()
	if c.opts.Order != AnyOrder {
		b.inOrder(todo)
		return b.verdicts
	}
	size := c.limits.MaxBatch
	if c.maxAttempts > 0 || c.opts.HoldUnknown {
		size = 1
	}
	var inFlight []work
	for part := range slices.Chunk(todo, size) {
		inFlight = append(inFlight, b.claim(part)...)
		b.run()
	}
	for _, w := range inFlight {
		b.outwait(w)
	}
	for again := range b.repeats {
		b.judgeRepeat(again)
	}
	return b.verdicts
}

// batch is what HandleBatch was given, on its way to the verdicts.
type batch[M any] struct {
	*Consumer[M]
	ctx      context.Context
	messages []M
	verdicts []Verdict
	repeats  map[int]int   // messages that repeat one before them, and which
	work     []work        // what was claimed in one commit, in the order of the messages
	wait     time.Duration // what is left of Options.Wait
	down     error         // the store's last word, once it records nothing more
}

// work is one run of the handler, still to come.
type work struct {
	message int
	request idem.Request // without a key: unprotected
	claim   idem.Claim
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

func (w *work) protected() bool { return w.request.Key != "" }

// sort judges what cannot be run, finds the repeats, and returns the rest.
func (b *batch[M]) sort() []work {
	todo := make([]work, 0, len(b.messages))
	var first map[idem.Request]int
	if len(b.messages) > 1 {
		first = make(map[idem.Request]int)
	}
	for i, m := range b.messages {
		r, reason, err := b.request(m)
		if err != nil && reason != Unprotected {
			b.verdicts[i] = Verdict{Decision: Dead, Reason: reason, Err: err}
			continue
		}
		if err == nil && first != nil {
			if before, again := first[r]; again {
				if b.repeats == nil {
					b.repeats = make(map[int]int)
				}
				b.repeats[i] = before
				continue
			}
			first[r] = i
		}
		todo = append(todo, work{message: i, request: r})
	}
	return todo
}

// claim asks for a part of the batch at once. What is refused is judged; the rest is
// work. It returns what was refused because it is in flight elsewhere.
func (b *batch[M]) claim(part []work) (inFlight []work) {
	b.work = part[:0]
	if b.ctx.Err() != nil {
		for _, w := range part {
			b.verdicts[w.message] = Verdict{Reason: Unavailable, Err: context.Cause(b.ctx)}
		}
		return nil
	}
	requests := make([]idem.Request, 0, len(part))
	for _, w := range part {
		if w.protected() {
			requests = append(requests, w.request)
		}
	}
	var answers []idem.ClaimResult
	if len(requests) > 0 {
		answers = b.store.ClaimMany(b.ctx, requests)
	}
	for _, w := range part {
		if !w.protected() {
			w.ctx, w.stop = context.WithValue(b.ctx, operationKey{}, (*Operation)(nil)), func() {}
			b.work = append(b.work, w)
			continue
		}
		answer := answers[0]
		answers = answers[1:]
		if answer.Err != nil {
			b.verdicts[w.message] = b.refused(answer.Record, answer.Err)
			if b.verdicts[w.message].Reason == InFlight {
				inFlight = append(inFlight, w)
			}
			continue
		}
		w.claim = answer.Claim
		op := &Operation{store: b.store, claim: w.claim, checkpoint: w.claim.Record.Checkpoint}
		w.ctx, w.stop = b.store.Heartbeat(context.WithValue(b.ctx, operationKey{}, op), w.claim)
		b.work = append(b.work, w)
	}
	return inFlight
}

// run runs the handler for what is work, and records what came of it.
func (b *batch[M]) run() {
	defer b.end() // also when the handler panics
	for i := range b.work {
		w := &b.work[i]
		if w.state != waiting || w.ctx.Err() != nil || w.protected() && b.down != nil {
			continue // not begun, because ctx or the store has ended, the claim is lost, or it was given back
		}
		w.state = running
		switch err := b.attempt(w); {
		case !w.protected():
			b.verdicts[w.message], w.state = b.unprotected(err), judged
		case err != nil:
			w.stop()
			e := w.claim.Ending(err)
			answer := b.store.End(b.ctx, e)
			b.verdicts[w.message], w.state = b.judge(b.ctx, w.claim, e.State, err, answer), judged
			if errors.Is(answer, idem.ErrBroken) || errors.Is(answer, idem.ErrClosed) {
				b.down = answer
			}
		default:
			w.state = handled
		}
	}
}

// attempt runs the handler. At MaxRun it tells the handler to stop and lets the lease
// lapse, so another attempt may take over. It also gives back the messages that wait behind
// this handler.
func (b *batch[M]) attempt(w *work) error {
	if b.opts.MaxRun == 0 {
		return b.handle(w.ctx, b.messages[w.message])
	}
	ctx, cancel := context.WithCancelCause(w.ctx)
	defer cancel(nil)
	over := make(chan struct{})
	disarm := b.limits.Clock.AfterFunc(b.opts.MaxRun, func() {
		defer close(over)
		cancel(ErrMaxRun)
		w.stop()
		b.flush(ErrMaxRun)
	})
	defer func() {
		if !disarm() {
			<-over
		}
	}()
	return b.handle(ctx, b.messages[w.message])
}

// end ends what is not judged yet. Only a panic or Goexit, which continues when end
// returns, leaves work in the state running.
func (b *batch[M]) end() {
	for i := range b.work {
		w := &b.work[i]
		switch {
		case w.state == waiting && !w.protected():
			b.verdicts[w.message] = Verdict{Reason: Unavailable, Err: context.Cause(w.ctx)}
		case w.state == running && w.protected():
			w.stop()
			_ = b.store.End(b.ctx, w.claim.Ending(errPanicked))
		}
	}
	b.flush(b.down)
}

var errPanicked = errors.New("the handler panicked")

// flush records what was handled, in one commit, and gives back what was claimed but has
// not begun. ended says why it will not begin, if its own context does not.
func (b *batch[M]) flush(ended error) {
	var done []idem.Ending
	var doneBy []*work
	var unclaims sync.WaitGroup // at once, to share commits
	for i := range b.work {
		w := &b.work[i]
		switch {
		case w.state == handled:
			w.stop()
			done = append(done, w.claim.Ending(nil))
			doneBy = append(doneBy, w)
		case w.state == waiting && w.protected():
			v := Verdict{Reason: Unavailable, Err: ended, Attempt: w.claim.Record.Attempt - 1}
			if cause := context.Cause(w.ctx); cause != nil {
				v.Err = cause
			}
			b.verdicts[w.message], w.state = v, judged
			w.stop()
			unclaims.Go(func() { _ = b.store.Unclaim(b.ctx, w.claim.Token) })
		}
	}
	for i, answer := range b.store.EndMany(b.ctx, done) {
		w := doneBy[i]
		b.verdicts[w.message], w.state = b.judge(b.ctx, w.claim, done[i].State, nil, answer), judged
	}
	unclaims.Wait()
}

// judgeRepeat gives a message that repeats an earlier one the verdict of that one.
func (b *batch[M]) judgeRepeat(again int) {
	before, ok := b.repeats[again]
	if !ok {
		return
	}
	v := b.verdicts[before]
	if v.Reason == Processed {
		v = Verdict{Decision: Ack, Reason: Duplicate, Attempt: v.Attempt}
	}
	b.verdicts[again] = v
}
