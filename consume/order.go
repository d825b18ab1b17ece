package consume

// Order says what a message that is not processed means for those behind it in the batch,
// or in its group of the batch; see Options.Group. Do not handle the next batch of a group
// before HandleBatch has returned.
type Order uint8

const (
	// AnyOrder: each message is handled on its own merits, and one that fails stops none.
	AnyOrder Order = iota
	// StopAtRetry: the first message that is a Retry stops its group. Those behind it are
	// a Retry too, with Behind, without having been looked at. A message that is Dead
	// stops nothing: put it aside, and those behind it go on, as is usual with dead-letter
	// topics.
	StopAtRetry
	// StopAtDead: the first message that is Dead stops its group as well. It is for
	// sequences in which nothing may be left out. Do not put that message aside, but stop
	// until someone has settled or forgotten its record; see Consumer.Key.
	StopAtDead
)

var orders = [...]string{"any_order", "stop_at_retry", "stop_at_dead"}

// String returns the order's name in lower case, words joined by "_".
func (o Order) String() string { return name(orders[:], int(o)) }

// inOrder handles the batch in its order, each message once those before it are recorded.
// So after a crash at most the message being handled runs again. Nothing is claimed before
// its turn, so those behind a message that stops are as if they had never been delivered.
func (b *batch[M]) inOrder(todo []work) {
	stopped := make(map[string]Verdict)
	for i := range b.messages {
		var group string
		if b.opts.Group != nil {
			group = b.opts.Group(b.messages[i])
		}
		var its []work // nil: it is judged already, or repeats another
		if len(todo) > 0 && todo[0].message == i {
			its, todo = todo[:1:1], todo[1:]
		}
		if by, behind := stopped[group]; behind {
			b.verdicts[i] = Verdict{Reason: Behind, Err: ErrBehind, After: by.After}
		} else if its != nil {
			b.inTurn(its)
		} else {
			b.judgeRepeat(i)
		}
		if v := b.verdicts[i]; v.Decision == Retry || v.Decision == Dead && b.opts.Order == StopAtDead {
			stopped[group] = v
		}
	}
}

// inTurn handles the one message of part.
func (b *batch[M]) inTurn(part []work) {
	inFlight := b.claim(part)
	b.run()
	for _, w := range inFlight {
		b.outwait(w)
	}
}
