package oracle

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/progress"
)

// Trial is the life of a process whose disk may fail at any point: openings of a store,
// each with its traffic, and what must hold once the store is broken.
type Trial struct {
	Journal *Journal
	Clock   *Clock
	Open    func(idem.Options) (Subject, error)
	// Lives is how many openings there are.
	Lives int
	// Script is what is done in each of them, one round. If Load is set, it is done
	// instead.
	Script Script
	Load   *Workload
	// Cause is what ErrBroken, and the error of a failed opening, must wrap; nil:
	// anything. Vague: they may wrap another error, which followed from it.
	Cause error
	Vague bool
	// Reopens: the process can reopen a store that was broken, and goes on.
	Reopens bool
	// Watch calls f and returns an error if it hangs; nil: progress.Watch.Run.
	Watch func(what string, f func()) error

	// What happened. Refused is the error of the opening that failed. Broken is the
	// first ErrBroken that anyone got. Both are nil if the disk did not fail, or its
	// failure had no effect.
	Refused, Broken error
}

// Run runs the lives. The error it returns is a promise broken on the way. What is left
// must be judged afterwards, with the journal.
func (t *Trial) Run(ctx context.Context) error {
	if t.Watch == nil {
		t.Watch = progress.Watch{}.Run
	}
	for n := 1; n <= t.Lives; n++ {
		goOn, err := t.live(ctx, n)
		if err != nil {
			return fmt.Errorf("life %d: %w", n, err)
		}
		if !goOn {
			return nil
		}
	}
	return nil
}

// live runs one opening. goOn is false if there can be no other.
func (t *Trial) live(ctx context.Context, n int) (goOn bool, err error) {
	t.Journal.Begin(Life{N: n})
	options := idem.Options{Clock: t.Clock, SweepInterval: -1}
	if t.Load != nil {
		options.MaxResult, options.SweepInterval, options.SweepSlice = t.Load.MaxBytes, time.Millisecond, 8
	}
	s, err := t.Open(options)
	if err != nil {
		return t.refused(err)
	}
	o := &opening{Trial: t, ctx: ctx, n: n, s: s, open: idem.Token{Key: "none", Fence: 1}}
	audit, err := t.Journal.Audit(ctx, s)
	// The caller's own reads bypass the store, which need not be broken then.
	past := t.isCause(err) && !errors.Is(err, idem.ErrBroken)
	if err == nil {
		err = o.traffic(audit)
	}
	ended := err != nil
	if ended && !past {
		if err := o.broke(err); err != nil {
			return false, err
		}
	}
	whole, err := o.close(ended)
	return whole && !ended || t.Reopens, err
}

// opening is one opening of a Trial.
type opening struct {
	*Trial
	ctx    context.Context
	n      int
	s      Subject
	open   idem.Token   // of a claim that nobody settles
	waiter <-chan error // the answer of a caller that waits for it; nil: there is none
}

// traffic uses the store, and returns the answer that ended it, if there was one.
func (o *opening) traffic(audit *Audit) error {
	l := &load{Workload: Workload{Life: o.n}, s: o.s, j: o.Journal, tokens: map[string][]uint64{}}
	l.id.Store(int64(o.n) * idsPerLife)
	k := &script{worker: &worker{load: l}, ctx: o.ctx}
	open := k.claim(&Op{Key: fmt.Sprint("waited for ", o.n)})
	if err := l.ending(); err != nil {
		return err
	}
	o.open = open
	o.waiter = o.waits(l)
	if o.Load != nil {
		w := *o.Load
		w.Life, w.Seed, w.FirstID = o.n, w.Seed+uint64(o.n), l.id.Load()
		return w.Do(o.ctx, o.s, o.Journal, audit.Records)
	}
	o.Script.tell(o.ctx, l, o.n)
	return l.ending()
}

// broke checks that the store behaves as broken, as it said.
func (o *opening) broke(err error) error {
	if err := o.explained(err); err != nil {
		return err
	}
	if err := o.everything(idem.ErrBroken); err != nil {
		return err
	}
	if o.waiter == nil {
		return nil
	}
	var woken error
	if err := o.Watch("Wait, which the broken store should have woken,", func() { woken = <-o.waiter }); err != nil {
		return err
	}
	if err := o.explained(woken); err != nil {
		return fmt.Errorf("who waits hears: %w", err)
	}
	return nil
}

func (t *Trial) isCause(err error) bool { return t.Cause != nil && errors.Is(err, t.Cause) }

// refused handles an opening that failed.
func (t *Trial) refused(err error) (goOn bool, _ error) {
	t.Journal.Note("refused: %v", err)
	t.Refused = err
	if !t.isCause(err) && (!t.Vague || errors.Is(err, idem.ErrCorrupt)) {
		return false, fmt.Errorf("opening failed for another reason than %v: %w", t.Cause, err)
	}
	return t.Reopens, nil
}

// explained returns an error unless err is ErrBroken and wraps the cause.
func (t *Trial) explained(err error) error {
	if !errors.Is(err, idem.ErrBroken) {
		return fmt.Errorf("the answer is %w; want ErrBroken", err)
	}
	if t.Cause != nil && !errors.Is(err, t.Cause) && !t.Vague {
		return fmt.Errorf("the answer %w does not wrap the cause, %v", err, t.Cause)
	}
	if t.Broken == nil {
		t.Broken = err
		t.Journal.Note("broken: %v", err)
	}
	return nil
}

// waits starts a caller that waits for the claim that stays open.
func (o *opening) waits(l *load) <-chan error {
	op := &Op{ID: l.id.Add(1), Kind: Wait, Key: o.open.Key, Worker: -1}
	ended := make(chan error, 1)
	o.Journal.add(&Event{Call: op})
	go func() {
		r, err := o.s.Store.Wait(o.ctx, op.Key)
		a := Answer{ID: op.ID, Record: RecordOf(r)}
		a.Err, a.Detail = codeOf(err)
		o.Journal.add(&Event{Return: &a})
		ended <- err
	}()
	return ended
}

// close closes the store, which must not hang; after that every answer is ErrClosed.
// Its error must be the cause if nothing failed before. whole is false if there was an
// error.
func (o *opening) close(failed bool) (whole bool, err error) {
	var closing error
	if hangs := o.Watch("Close", func() { closing = o.s.Store.Close() }); hangs != nil {
		return false, hangs
	}
	if closing != nil {
		o.Journal.Note("closing: %v", closing)
		if !failed && !o.isCause(closing) && !o.Vague {
			return false, fmt.Errorf("closing: %w", closing)
		}
		if o.Broken == nil {
			o.Broken = closing
		}
	}
	if o.waiter != nil && !failed {
		if err := o.Watch("Wait, which Close should have woken,", func() { <-o.waiter }); err != nil {
			return false, err
		}
	}
	return closing == nil, o.everything(idem.ErrClosed)
}

// everything calls every method of a store, and wants want from each.
func (o *opening) everything(want error) (wrong error) {
	ctx, s, store, known := o.ctx, o.s, o.s.Store, o.open
	ran := errors.New("a function was run")
	fn := func(KV) ([]byte, error) { return nil, ran }
	r := func(key string) idem.Request { return idem.Request{Key: key} }
	of := func(name string) string { return fmt.Sprintf("round %d %s", o.n, name) }
	if o.Load != nil {
		of = func(string) string { return "key 00" }
	}
	calls := []struct {
		name string
		do   func() error
	}{
		{"Claim", func() error { _, err := store.Claim(ctx, r("nobody's")); return err }},
		{"Claim of an open claim", func() error { _, err := store.Claim(ctx, r(known.Key)); return err }},
		{"Claim of a completed key", func() error { _, err := store.Claim(ctx, r(of("a"))); return err }},
		{"Claim of a completed key in a batch", func() error { _, err := store.Claim(ctx, r(of("e"))); return err }},
		{"Claim of a failed key", func() error { _, err := store.Claim(ctx, r(of("b"))); return err }},
		{"ClaimMany", func() error { return store.ClaimMany(ctx, []idem.Request{r(of("a"))})[0].Err }},
		{"ClaimMany of something new", func() error { return store.ClaimMany(ctx, []idem.Request{r("nobody's")})[0].Err }},
		{"Get", func() error { _, err := store.Get(ctx, of("a")); return err }},
		{"Get of an open claim", func() error { _, err := store.Get(ctx, known.Key); return err }},
		{"Get of nothing", func() error { _, err := store.Get(ctx, "nobody's"); return err }},
		{"Wait", func() error { _, err := store.Wait(ctx, of("a")); return err }},
		{"Wait for an open claim", func() error { _, err := store.Wait(ctx, known.Key); return err }},
		{"Complete", func() error { return store.Complete(ctx, known, nil) }},
		{"CompleteMany", func() error { return store.CompleteMany(ctx, []idem.Completion{{Token: known}})[0] }},
		{"Fail", func() error { return store.Fail(ctx, known, nil) }},
		{"Release", func() error { return store.Release(ctx, known, nil) }},
		{"Hold", func() error { return store.Hold(ctx, known, nil) }},
		{"Extend", func() error { return store.Extend(ctx, known, time.Hour) }},
		{"Checkpoint", func() error { return store.Checkpoint(ctx, known, nil) }},
		{"Forget", func() error { return store.Forget(ctx, idem.Token{Key: of("a")}) }},
		{"Forget of nothing", func() error { return store.Forget(ctx, idem.Token{Key: "nobody's"}) }},
		{"Sweep", func() error { _, err := store.Sweep(ctx, 1); return err }},
		{"Stats", func() error { _, err := store.Stats(ctx); return err }},
		{"Records", func() (last error) {
			for _, err := range store.Records(ctx, idem.Filter{}) {
				last = err
			}
			return last
		}},
		{"idem.Do", func() error {
			_, _, err := idem.Do(ctx, store, r("nobody's"), func(context.Context, idem.Claim) (int, error) { return 0, ran })
			return err
		}},
		{"idem.Do of a completed key", func() error {
			_, _, err := idem.Do(ctx, store, r(of("g")), func(context.Context, idem.Claim) ([]byte, error) { return nil, ran })
			return err
		}},
		{"the engine's Do", func() error { _, _, err := s.Do(ctx, r("nobody's"), fn); return err }},
		{"the engine's Do of a completed key", func() error { _, _, err := s.Do(ctx, r(of("i")), fn); return err }},
		{"the engine's Complete", func() error { return s.Complete(ctx, known, fn) }},
		{"Update", func() error { return s.Update(ctx, func(KV) error { return ran }) }},
	}
	for _, c := range calls {
		var err error
		if hangs := o.Watch(c.name, func() { err = c.do() }); hangs != nil {
			return errors.Join(wrong, hangs)
		}
		bad := !errors.Is(err, want)
		if want == idem.ErrBroken && !bad {
			bad = o.explained(err) != nil || errors.Is(err, idem.ErrClosed)
		} else if want == idem.ErrClosed && !bad {
			bad = errors.Is(err, idem.ErrBroken)
		}
		if bad {
			wrong = errors.Join(wrong, fmt.Errorf("%s answers %v; want %w, with the cause where it is broken", c.name, err, want))
		}
	}
	return wrong
}

// Judge judges what a Trial has left: its journal, and the store, which is opened once
// more on a disk that does not fail.
func Judge(checker *Checker, events []*Event, now int64, open func(idem.Options) (Subject, error)) error {
	checker.Load(events)
	if err := checker.All(); err != nil {
		return err
	}
	return JudgeImage(checker, Point{Answers: checker.Len(), Calls: checker.Len(), T: now}, open)
}

// Tail formats the last n events for people.
func Tail(events []*Event, n int) string {
	var b strings.Builder
	first := max(0, len(events)-n)
	for i, e := range events[first:] {
		fmt.Fprintf(&b, "  %6d %s\n", first+i, e)
	}
	return b.String()
}
