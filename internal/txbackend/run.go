package txbackend

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/callback"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/groupcommit"
)

// job is what one caller brings to a commit group: operations, a function of its own,
// or a request to save the meta entry. Each of these is a step.
type job struct {
	groupcommit.Ticket
	ctx    context.Context // the caller's, for its functions
	ops    []engine.Op
	update any
	save   bool

	settled int   // steps whose answers are durable
	late    *late // a change that the next commit must write
	err     error // the answer
}

// late is the change of an operation whose function failed and took the transaction
// with it.
type late struct {
	step int
	was  image
	next *engine.Entry
}

func (j *job) steps() int {
	if j.save || j.update != nil {
		return 1
	}
	return len(j.ops)
}

// run makes one commit of the jobs and answers those that are finished by it. It never
// panics.
func (b *Backend) run(jobs []*job) (answered int, after func()) {
	start := time.Now()
	g := &b.pass // one commit at a time
	g.b, g.jobs = b, jobs
	defer g.forget()
	err := b.err()
	if first := jobs[0]; first.settled > 0 || first.late != nil {
		err = b.brokenErr() // Close waits for jobs that have begun
	}
	if err == nil {
		err = g.commit()
	}
	if err == nil {
		err = b.brokenErr() // broken in the background, perhaps by this very commit
	}
	if err != nil {
		g.plan = plan{}
		for _, j := range jobs {
			j.err = err
		}
		return len(jobs), nil
	}
	b.gate.withdraw()
	b.floor.committed()
	for _, op := range g.changed {
		op.Committed()
	}
	host := b.host.Load()
	if g.wrote && host != nil {
		took, ops := time.Since(start), len(g.changed)
		after = func() { host.Group(ops, took) }
	}
	return g.settle(), after
}

// pass is the state of making one commit.
type pass struct {
	b    *Backend
	jobs []*job
	plan plan

	tx      Tx
	changed []engine.Op
	wrote   bool
	size    int // bytes written
	room    error
	asked   bool // room is known
	steps   int  // settled once this is durable
	ran     int  // of the plan

	key, place, value []byte // buffers reused for each write
}

// plan says how a group continues after a function has spoiled its transaction. Some
// engines can undo a failed function's writes only together with everything else. The
// failure may depend on what others wrote, which is then undone too. So the steps
// before the function are run again and committed, and then the function runs alone;
// that answer counts. If another function fails when it is run again, it does not
// behave the same each time, and runs alone as well. So none runs more than three
// times.
type plan struct {
	again bool // the next few steps are their own commit
	few   int
	alone int // each of that many steps after them is a commit
}

// ends reports whether the commit is complete.
func (g *pass) ends() bool {
	switch {
	case g.size > g.b.commitBytes:
		return true
	case g.plan.again:
		return g.ran == g.plan.few
	case g.plan.alone > 0:
		return g.wrote
	}
	return false
}

// spoil handles a failed function that took the transaction with it.
func (g *pass) spoil() {
	p := &g.plan
	if p.again {
		*p = plan{alone: p.few + p.alone}
	} else {
		*p = plan{again: g.ran > 0, few: g.ran, alone: 1}
	}
	g.changed, g.wrote, g.steps, g.ran = g.changed[:0], false, 0, 0
}

// settle counts what this commit has settled. It returns how many of the first jobs are
// done.
func (g *pass) settle() (answered int) {
	if p := &g.plan; p.again {
		p.few -= g.ran
		p.again = p.few > 0
	} else {
		p.alone = max(p.alone-g.ran, 0)
	}
	left := g.steps
	for _, j := range g.jobs {
		n := min(left, j.steps()-j.settled)
		j.settled += n
		left -= n
		if j.settled < j.steps() {
			break
		}
		answered++
	}
	return answered
}

// forget drops what belongs to others and keeps the buffers for the next commit.
func (g *pass) forget() {
	clear(g.changed)
	g.jobs, g.tx, g.changed = nil, nil, g.changed[:0]
	if cap(g.value) > keptValue {
		g.value = nil
	}
}

// keptValue is the size of the largest record buffer that is kept.
const keptValue = 64 << 10

// Errors that fn returns to Update to end the transaction without a commit.
var (
	errNothing = errors.New("nothing to commit")
	errSpoiled = errors.New("spoiled by a same-commit function")
)

func (g *pass) commit() (err error) {
	watch := g.b.watch.Load()
	watch.begin()
	defer watch.end()
	defer g.b.guard(&err)
	// Reading a file cut short under a memory map faults. guard catches the panic.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	g.changed, g.wrote, g.size, g.asked, g.steps, g.ran = g.changed[:0], false, 0, false, 0, 0
	fault := error(nil)
	err = g.b.engine.Update(func(tx Tx) error {
		g.tx = tx
		err := g.fill()
		if err != nil && err != errSpoiled && err != errNothing {
			fault = err
		}
		return err
	})
	switch {
	case err == errSpoiled:
		g.spoil()
		return nil
	case err == errNothing:
		return nil
	case fault != nil:
		return g.b.breakWith("commit", fault)
	case err != nil:
		return g.b.breakWith("commit", err)
	}
	if err := g.b.engine.Moved(); err != nil {
		return g.b.breakWith("commit", err)
	}
	return nil
}

// fill runs the jobs in the transaction, starting where the last commit ended.
func (g *pass) fill() error {
	if err := g.b.brokenErr(); err != nil { // broken while waiting for the engine: the callers have left
		return err
	}
	for _, j := range g.jobs {
		for i := j.settled; i < j.steps(); i++ {
			if g.ends() {
				return g.end()
			}
			if j.late != nil && j.late.step == i {
				if err := g.write(j.ops[i], j.late.was, j.late.next); err != nil {
					return err
				}
				g.steps++
				continue
			}
			if err := g.step(j, i); err != nil {
				return err
			}
			g.steps++
			g.ran++
		}
	}
	return g.end()
}

func (g *pass) end() error {
	if !g.wrote {
		return errNothing
	}
	return g.saveMeta()
}

func (g *pass) saveMeta() error {
	host := g.b.host.Load()
	if host == nil {
		return nil
	}
	g.value = codec.AppendMeta(g.value[:0], host.Meta())
	return g.tx.Set(Meta, []byte(codec.MetaKey), g.value)
}

// step runs one step of j.
func (g *pass) step(j *job, i int) error {
	switch {
	case j.save:
		g.wrote = true
		return nil
	case j.update == nil:
		return g.runOp(j, i)
	}
	_, spoiled, err := g.effect(j.ctx, j.update)
	if fatal := faultOf(err); fatal != nil {
		return fatal
	}
	switch j.err = err; {
	case err == nil:
		g.wrote = true
	case spoiled && g.wrote:
		return errSpoiled
	case spoiled: // it ran alone: its answer counts
		g.steps++
		g.ran++
		return errNothing
	}
	return nil
}

// effect runs a same-commit function. An engine may apply the earlier changes as a
// batch of their own, which can be all that is on disk after a crash. So the meta entry
// must be in that batch; otherwise a fence that is in a record could be granted again.
func (g *pass) effect(ctx context.Context, fn any) (result []byte, spoiled bool, err error) {
	if broken := g.b.brokenErr(); broken != nil { // its caller has left, and may be reusing what fn uses
		return nil, false, &callback.Fault{Err: broken}
	}
	if g.wrote {
		if err := g.saveMeta(); err != nil {
			return nil, false, &callback.Fault{Err: err}
		}
	}
	ctx, end := g.b.functionCtx(ctx)
	result, spoiled, err = g.tx.Effect(ctx, fn)
	end()
	if broken := g.b.brokenErr(); broken != nil { // nobody is waiting: drop the transaction
		return nil, false, &callback.Fault{Err: broken}
	}
	return result, spoiled, err
}

// runOp runs one operation and stores its change.
func (g *pass) runOp(j *job, i int) error {
	op := j.ops[i]
	was, err := g.entry(op)
	if err != nil {
		return err
	}
	next, changed := op.Run(was.entry, was.err)
	if op.Grants() {
		if full := g.full(); full != nil {
			op.Refuse(full)
			return nil
		}
	}
	if fn := op.Effect(); fn != nil {
		result, spoiled, err := g.effect(j.ctx, fn)
		if fatal := faultOf(err); fatal != nil {
			return fatal
		}
		if spoiled && g.wrote {
			return errSpoiled
		}
		if err != nil {
			result = nil
		}
		next, changed = op.Finish(result, err)
		if spoiled { // it ran alone: its answer counts, but its transaction is gone
			g.ran++
			if changed {
				j.late = &late{step: i, was: was, next: next}
			} else {
				g.steps++
			}
			return errNothing
		}
	}
	if !changed {
		return nil
	}
	return g.write(op, was, next)
}

// write replaces the entry of op's key, which was was, with next.
func (g *pass) write(op engine.Op, was image, next *engine.Entry) error {
	g.wrote = true
	g.changed = append(g.changed, op)
	g.b.gate.publish(op.Key(), was, next)
	return g.store(op, was.entry, next)
}

// entry returns the current entry of op's key in the transaction.
func (g *pass) entry(op engine.Op) (image, error) {
	if e, known := op.Current(); known {
		return image{entry: e}, nil
	}
	key := op.Key()
	if now, ok := g.b.gate.changed(key); ok {
		return image{entry: now}, nil
	}
	g.key = append(g.key[:0], key...)
	value, err := g.tx.Get(Records, g.key)
	if err != nil && !aboutRecord(err) {
		return image{}, fmt.Errorf("reading %s: %w", g.b.named(key), err)
	}
	was := image{err: err}
	if value != nil && err == nil {
		was.entry, was.err = codec.DecodeRecord(key, value)
	}
	was.err = g.b.about(key, was.err)
	return was, nil
}

// store writes next in place of cur and keeps the expiry index in step.
func (g *pass) store(op engine.Op, cur, next *engine.Entry) error {
	var old, due engine.Instant
	if cur != nil {
		old = cur.Due
	}
	if next != nil {
		due = next.Due
	}
	for _, at := range [...]engine.Instant{old, op.Due()} {
		if at != 0 && at != due {
			g.place = codec.AppendPlace(g.place[:0], engine.Due{At: at, Key: op.Key()})
			if err := g.tx.Delete(Expiry, g.place); err != nil {
				return err
			}
		}
	}
	if due != 0 && due != old {
		g.b.floor.set(engine.Due{At: due, Key: op.Key()})
		g.place = codec.AppendPlace(g.place[:0], engine.Due{At: due, Key: op.Key()})
		if err := g.tx.Set(Expiry, g.place, nil); err != nil {
			return err
		}
	}
	g.key = append(g.key[:0], op.Key()...)
	if next == nil {
		return g.tx.Delete(Records, g.key)
	}
	g.value = codec.AppendRecord(g.value[:0], op.Key(), next)
	g.size += len(g.value)
	return g.tx.Set(Records, g.key, g.value)
}

// full returns the engine's answer on room for new records. It asks once per commit.
func (g *pass) full() error {
	if !g.asked {
		g.asked, g.room = true, g.b.engine.Room()
	}
	return g.room
}

// faultOf returns the memory fault that stopped a same-commit function, which is the
// engine's fault and not the function's. It does not unwrap err: an error that a
// function returns is its own, even if it reports a fault in another store.
func faultOf(err error) error {
	if f, ok := err.(*callback.Fault); ok { //nolint:errorlint // a wrapped one is not this engine's
		return f
	}
	return nil
}
