package idem

import "github.com/idemkv/idem/engine"

// operation is the store's side of an engine.Op, which documents its methods.
type operation struct {
	key    string
	act    action
	effect any // function of the engine's own type, run between claim and completion
	store  *Store
	pooled *pooledOp
	before snapshot // what was read before the commit
	late   error    // the answer instead of err, when the engine may still hold the op

	err     error
	prev    *engine.Entry // before Run
	next    *engine.Entry // after Run
	granted *engine.Entry // claim granted, effect not finished yet
	at      engine.Instant
	toWall  int64
	wants   bool // the effect is yet to run
	failed  bool // the effect failed; err is its own error
	changed bool
	began   bool // the tracker was told that the key is about to change
	done    bool // Committed was called
}

func (o *operation) Key() string { return o.key }

func (o *operation) Size() int {
	if e := o.act.entry; e != nil {
		return len(e.Checkpoint) + len(e.Result)
	}
	return len(o.act.bytes)
}

func (o *operation) Current() (e *engine.Entry, known bool) {
	if !o.before.current() {
		return nil, false
	}
	return o.before.entry, true
}

func (o *operation) Run(current *engine.Entry, readErr error) (next *engine.Entry, changed bool) {
	o.prev, o.next, o.granted, o.err = current, current, nil, nil
	o.wants, o.failed, o.changed = false, false, false
	if o.act.kind < actSweep && o.store.importing.Load() {
		o.err = importing()
		return o.result()
	}
	if readErr != nil {
		o.err = readErr
		if o.act.kind == actForget && o.act.fence == 0 || o.act.kind == actImport && o.act.entry == nil {
			o.err, o.next, o.changed = nil, nil, true
		}
		return o.result()
	}
	o.at, o.toWall = o.store.time.now()
	if o.act.kind == actClaim {
		o.act.wall, o.act.lostUntil = o.store.time.wall(o.at, o.toWall), o.store.time.lost(o.at, o.toWall)
		o.act.fence = o.store.time.fence.Add(1) // a refused claim leaves a gap
	}
	if o.effect != nil {
		o.admitEffect(current)
		return current, false
	}
	o.next, o.err = transition(current, &o.act, o.at)
	o.changed = o.next != current || o.act.kind == actSave ||
		o.act.kind == actSweep && (current == nil || current.Due != o.act.due)
	return o.result()
}

func (o *operation) Due() engine.Instant { return o.act.due }

func (o *operation) Grants() bool {
	if o.act.kind == actImport {
		return o.prev == nil && o.next != nil
	}
	if o.act.kind != actClaim || !o.changed && !o.wants {
		return false
	}
	e := o.granted
	if e == nil {
		e = o.next
	}
	return o.prev == nil || o.prev.State != InFlight || e.Attempt == 1
}

func (o *operation) Effect() any {
	if !o.wants {
		return nil
	}
	return o.effect
}

func (o *operation) Finish(result []byte, err error) (next *engine.Entry, changed bool) {
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
func (o *operation) admitEffect(current *engine.Entry) {
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

func (o *operation) Refuse(err error) {
	o.err, o.next, o.granted, o.changed, o.wants = err, o.prev, nil, false, false
}

func (o *operation) Committed() {
	if !o.changed || o.done {
		return
	}
	o.done = true
	o.store.tracker.end(o)
}

func (o *operation) result() (*engine.Entry, bool) {
	if o.changed && !o.began {
		o.began = true
		o.store.tracker.begin(o)
	}
	return o.next, o.changed
}
