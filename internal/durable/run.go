package durable

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/commit"
	"github.com/idemkv/idem/internal/effect"
)

// job is what one caller brings to a commit group: operations, or a function of
// its own, or the wish to save the meta entry.
type job struct {
	commit.Ticket
	ctx    context.Context // the caller's, for its functions
	ops    []*idem.Op
	update any
	save   bool

	failed bool  // its update failed
	err    error // the answer
}

// run commits a group. It never panics and answers every job.
func (b *Backend) run(jobs []*job) (answered int, after func()) {
	start := time.Now()
	g := &b.pass // one group at a time
	g.b, g.jobs = b, jobs
	defer g.forget()
	err := b.err()
	if err == nil {
		err = g.commit()
	}
	if err == nil && b.broken.Load() != nil {
		err = *b.broken.Load() // broken in the background, perhaps by this very commit
	}
	if err != nil {
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
	if !g.wrote || host == nil {
		return len(jobs), nil
	}
	took, ops := time.Since(start), len(g.changed)
	return len(jobs), func() { host.Group(ops, took) }
}

// pass is the making of one commit, begun again when a same-commit function spoils
// the transaction.
type pass struct {
	b        *Backend
	jobs     []*job
	rejected map[*idem.Op]bool

	tx      Tx
	changed []*idem.Op
	wrote   bool
	room    error
	asked   bool // room is known

	key, place, value []byte // used again for each write
}

// forget lets go of what belongs to others, and keeps the buffers for the next group.
func (g *pass) forget() {
	clear(g.changed)
	g.jobs, g.rejected, g.tx, g.changed = nil, nil, nil, g.changed[:0]
	if cap(g.value) > keptValue {
		g.value = nil
	}
}

// keptValue is the largest buffer for a record that is kept.
const keptValue = 64 << 10

// Errors that fn gives Update to end the transaction without a commit.
var (
	errNothing = errors.New("nothing to commit")
	errSpoiled = errors.New("spoiled by a same-commit function")
)

func (g *pass) commit() (err error) {
	defer g.b.guard(&err)
	// A file cut short under a memory map faults on reading: caught by guard.
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	for {
		g.tx, g.changed, g.wrote, g.asked = nil, g.changed[:0], false, false
		fault := error(nil)
		err := g.b.engine.Update(func(tx Tx) error {
			g.tx = tx
			err := g.fill()
			if err != nil && err != errSpoiled && err != errNothing {
				fault = err
			}
			return err
		})
		switch {
		case err == nil:
			return nil
		case err == errNothing:
			return nil
		case err == errSpoiled:
			g.b.gate.withdraw() // nothing of the pass was applied
		case fault != nil:
			return g.b.breakWith("commit", fault)
		default:
			return g.b.breakWith("commit", err)
		}
	}
}

// fill runs every job in the transaction.
func (g *pass) fill() error {
	for _, j := range g.jobs {
		if j.save {
			g.wrote = true
		}
		if j.update != nil && !j.failed {
			_, spoiled, err := g.effect(j.ctx, j.update)
			if fatal := faultOf(err); fatal != nil {
				return fatal
			}
			if j.err = err; err == nil {
				g.wrote = true
			} else if j.failed = true; spoiled {
				return errSpoiled
			}
		}
		for _, op := range j.ops {
			if g.rejected[op] {
				continue
			}
			if err := g.runOp(j, op); err != nil {
				return err
			}
		}
	}
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

// effect runs a same-commit function. An engine may apply what was changed before
// it as a batch of its own, which a crash can leave alone on the disk: so the meta
// entry goes with it, or a fence that is in a record could be granted again.
func (g *pass) effect(ctx context.Context, fn any) (result []byte, spoiled bool, err error) {
	if g.wrote {
		if err := g.saveMeta(); err != nil {
			return nil, false, &effect.Fault{Err: err}
		}
	}
	return g.tx.Effect(ctx, fn)
}

// runOp runs one operation and stores what it changes.
func (g *pass) runOp(j *job, op *idem.Op) error {
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
		next, changed = op.Finish(result, err)
		if err != nil {
			if g.rejected == nil {
				g.rejected = make(map[*idem.Op]bool)
			}
			g.rejected[op] = true
			if spoiled {
				return errSpoiled
			}
			return nil
		}
	}
	if !changed {
		return nil
	}
	g.wrote = true
	g.changed = append(g.changed, op)
	g.b.gate.publish(op.Key(), was, next)
	return g.store(op, was.entry, next)
}

// entry returns the current entry of op's key in the transaction.
func (g *pass) entry(op *idem.Op) (image, error) {
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
func (g *pass) store(op *idem.Op, cur, next *idem.Entry) error {
	var old, due idem.Instant
	if cur != nil {
		old = cur.Due
	}
	if next != nil {
		due = next.Due
	}
	for _, at := range [...]idem.Instant{old, op.Due()} {
		if at != 0 && at != due {
			g.place = codec.AppendPlace(g.place[:0], idem.Due{At: at, Key: op.Key()})
			if err := g.tx.Delete(Expiry, g.place); err != nil {
				return err
			}
		}
	}
	if due != 0 && due != old {
		g.b.floor.set(idem.Due{At: due, Key: op.Key()})
		g.place = codec.AppendPlace(g.place[:0], idem.Due{At: due, Key: op.Key()})
		if err := g.tx.Set(Expiry, g.place, nil); err != nil {
			return err
		}
	}
	g.key = append(g.key[:0], op.Key()...)
	if next == nil {
		return g.tx.Delete(Records, g.key)
	}
	g.value = codec.AppendRecord(g.value[:0], op.Key(), next)
	return g.tx.Set(Records, g.key, g.value)
}

// full asks the engine once a commit whether there is room for new records.
func (g *pass) full() error {
	if !g.asked {
		g.asked, g.room = true, g.b.engine.Room()
	}
	return g.room
}

// faultOf returns the memory fault that a same-commit function met, which is the
// engine's and not the function's own.
func faultOf(err error) error {
	var f *effect.Fault
	if errors.As(err, &f) {
		return f
	}
	return nil
}
