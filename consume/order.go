package consume

// Order says what the messages of one HandleBatch are to each other: the records of a
// Kafka partition, say, or the messages of one SQS message group. Call HandleBatch once
// for each, and not for the next batch before this one has returned.
type Order uint8

const (
	// AnyOrder: each message is handled on its own merits, and one that fails stops none.
	AnyOrder Order = iota
	// StopAtRetry: the first message that is a Retry stops the batch. Those behind it are
	// a Retry, too, with Behind: whatever is wrong with them, they have not been looked
	// at. A message that is Dead stops nothing: put it aside, and those behind it go on,
	// as they do with dead-letter topics everywhere.
	StopAtRetry
	// StopAtDead: the first message that is Dead stops the batch as well. It is for
	// sequences in which nothing may be left out. Do not put that message aside then, but
	// stop until somebody has settled or forgotten its record; see Consumer.Key.
	StopAtDead
)

// inOrder handles the batch in its order, each message when those before it are recorded:
// a process that dies never goes back behind the message that it was at. Nothing is
// claimed before its turn, so those behind a message that stops are as if they had never
// been delivered.
func (b *batch[M]) inOrder(todo []work) {
	for i := range b.messages {
		if len(todo) > 0 && todo[0].message == i {
			inFlight := b.claim(todo[:1:1])
			todo = todo[1:]
			b.run()
			for _, w := range inFlight {
				b.outwait(w)
			}
		}
		b.judgeRepeat(i)
		v := b.verdicts[i]
		if v.Decision == Retry || v.Decision == Dead && b.opts.Order == StopAtDead {
			for behind := i + 1; behind < len(b.messages); behind++ {
				b.verdicts[behind] = Verdict{Reason: Behind, Err: ErrBehind, After: v.After}
			}
			return
		}
	}
}
