package idem

// Op is one operation on one key on its way through an engine: it holds what is
// asked and, after Run, the answer. It belongs to the engine until Apply returns.
type Op struct {
	key    string
	act    action
	effect any // function of the engine's own type, run between claim and completion
	store  *Store
	pooled *pooledOp
	saw    seen  // what was read before the commit
	late   error // the answer where the engine may still hold the op

	err     error
	prev    *Entry // before Run
	next    *Entry // after Run
	granted *Entry // claim granted, effect not finished yet
	at      Instant
	toWall  int64
	wants   bool // the effect is to be run
	failed  bool // the effect failed; err is its own error
	changed bool
	began   bool // the tracker was told that the key is about to change
	done    bool // Committed was called
}

// Key returns the key the operation is on.
func (o *Op) Key() string { return o.key }

// Size returns how many bytes of payload the operation brings along.
func (o *Op) Size() int { return len(o.act.bytes) }

// Current returns the entry that is current for this operation, nil for none, if the
// store knows it without asking the engine; known is false if it does not. It may
// be called where Run may, and in place of the read that Run needs.
func (o *Op) Current() (e *Entry, known bool) {
	if !o.saw.current() {
		return nil, false
	}
	return o.saw.entry, true
}

// Run decides what becomes of the entry current (nil: none); see Backend.Apply.
// readErr is the error of reading it: the op then changes nothing, unless it is
// to forget whatever the key has.
func (o *Op) Run(current *Entry, readErr error) (next *Entry, changed bool) {
	o.prev, o.next, o.granted, o.err = current, current, nil, nil
	o.wants, o.failed, o.changed = false, false, false
	if readErr != nil {
		o.err = readErr
		if o.act.kind == actForget && o.act.fence == 0 {
			o.err, o.next, o.changed = nil, nil, true
		}
		return o.result()
	}
	o.at, o.toWall = o.store.time.now()
	if o.act.kind == actClaim {
		o.act.wall, o.act.lostUntil = o.store.time.wall(o.at, o.toWall), o.store.time.lost(o.at, o.toWall)
		o.act.fence = o.store.time.fence.Add(1) // one that is not granted is left out
	}
	if o.effect != nil {
		o.admitEffect(current)
		return current, false
	}
	o.next, o.err = transition(current, &o.act, o.at)
	o.changed = o.next != current ||
		o.act.kind == actSweep && (current == nil || current.Due != o.act.due)
	return o.result()
}

// Due returns the place in the expiry index that led to this operation, zero if
// none did.
func (o *Op) Due() Instant { return o.act.due }

// Grants reports, after Run, whether the op is a claim that would be granted and
// needs room: the only one that may be refused for capacity. A takeover does not:
// the claim that it takes over had its room.
func (o *Op) Grants() bool {
	if o.act.kind != actClaim || !o.changed && !o.wants {
		return false
	}
	e := o.granted
	if e == nil {
		e = o.next
	}
	return o.prev == nil || o.prev.State != InFlight || e.Attempt == 1
}

// Effect returns, after Run, the caller's function that is to be run in the same
// commit before the op can change anything; nil if there is none or the op was
// refused. Its type is the engine's own (see Store.DoEffect). The engine runs it
// and goes on with Finish.
func (o *Op) Effect() any {
	if !o.wants {
		return nil
	}
	return o.effect
}

// Finish decides, in place of Run, what becomes of the entry now that the effect
// has returned result or err. If err is not nil the engine undoes what the effect
// wrote, and the op need not be run again; changed is then true if the failure itself
// is to be recorded, before anything else of the key.
func (o *Op) Finish(result []byte, err error) (next *Entry, changed bool) {
	o.wants = false
	open := o.granted
	if open == nil {
		open = o.prev
	}
	a := action{kind: actComplete, fence: open.Fence}
	if o.failed = err != nil; o.failed {
		if a.kind = effectFailure(&o.act, markOf(err)); a.kind == 0 {
			o.err = err
			return o.prev, false
		}
		a.bytes = o.store.reason(err)
	} else {
		o.store.setBytes(&a, result)
	}
	o.next, o.err = transition(open, &a, o.at)
	if o.failed {
		o.err = err
	}
	o.changed = true
	return o.result()
}

// admitEffect decides whether the effect may run.
func (o *Op) admitEffect(current *Entry) {
	if o.act.kind == actClaim {
		if o.err = refuseClaim(current, &o.act, o.at); o.err != nil {
			return
		}
		o.granted = grant(current, &o.act, o.at)
	} else if o.err = refuseEffect(current, &o.act, o.at); o.err != nil {
		return
	}
	o.wants = true
}

// Refuse answers the op with err in place of the change that Run asked for.
func (o *Op) Refuse(err error) {
	o.err, o.next, o.granted, o.changed, o.wants = err, o.prev, nil, false, false
}

// Committed tells the store that the op's change is durable and can be read.
func (o *Op) Committed() {
	if !o.changed || o.done {
		return
	}
	o.done = true
	o.store.tracker.end(o)
}

func (o *Op) result() (*Entry, bool) {
	if o.changed && !o.began {
		o.began = true
		o.store.tracker.begin(o)
	}
	return o.next, o.changed
}
