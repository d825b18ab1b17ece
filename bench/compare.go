package bench

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"time"
)

// Variant is one way to run a workload on contenders that are open: with how many
// processors and how many callers.
type Variant struct{ Procs, Callers int }

// Pace says how a comparison is run.
type Pace struct {
	// Rounds is how many times each contender gets a slice that counts.
	Rounds int
	// Slice is how long a slice lasts.
	Slice time.Duration
	// Warmup is how long a slice before the first round lasts, that does not count;
	// 0: none.
	Warmup time.Duration
	// MaxOps ends a slice early; 0: not.
	MaxOps uint64
}

// Bench runs comparisons and collects what they find.
type Bench struct {
	// Results is where the rows and notes go.
	Results *Results
	// Dir is where contenders get their directories. Its file system is measured.
	Dir string
	// Only says which contenders run, by name; nil: all.
	Only func(name string) bool
	// Log is told what is going on; nil: nobody.
	Log func(format string, args ...any)
	// Failed is set when a contender failed in its work, or would not close.
	Failed bool

	hists  []*histogram // one for each worker
	merged *histogram
}

// scratch returns a histogram for each of n workers.
func (b *Bench) scratch(n int) []*histogram {
	for len(b.hists) < n {
		b.hists = append(b.hists, newHistogram())
	}
	return b.hists[:n]
}

// add adds a row.
func (b *Bench) add(group string, params []Param, ops uint64, values ...Value) {
	b.Results.Rows = append(b.Results.Rows, Row{Group: group, Params: params, Ops: ops, Values: values})
}

func (b *Bench) log(format string, args ...any) {
	if b.Log != nil {
		b.Log(format, args...)
	}
}

// tempDir makes a directory under Dir.
func (b *Bench) tempDir(name string) (dir string, remove func(), err error) {
	dir, err = os.MkdirTemp(b.Dir, Label(name)+"-")
	return dir, func() { _ = os.RemoveAll(dir) }, err
}

// order returns the order of n contenders in a round. It is rotated from round to
// round, so that each has every place in turn, and begins as a zigzag (0, 1, n-1,
// 2, n-2, …), so that whoever runs before a contender, and leaves it a dirty disk or
// a busy compaction, is another one each time. (Williams, Aust. J. Sci. Res. A 2,
// 1949: for even n no two follow each other twice in n rounds.)
func order(n, round int) []int {
	out := make([]int, n)
	for i := range out {
		zigzag := (i + 1) / 2
		if i%2 == 0 {
			zigzag = (n - i/2) % n
		}
		out[i] = (zigzag + round) % n
	}
	return out
}

// Compare opens all contenders of a workload and runs them in rounds, a slice for
// each in turn, once for every variant; a round is one row for each. A contender
// that is absent or fails is noted and left out from then on: what the others did
// is still worth having.
func (b *Bench) Compare(w Workload, variants []Variant, contenders []Contender, p Pace) {
	for _, v := range variants {
		w.Procs, w.Callers = max(w.Procs, v.Procs), max(w.Callers, v.Callers)
	}
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(w.Procs))
	open := b.openAll(w, contenders)
	defer func() {
		for _, r := range open {
			r.shut()
		}
	}()
	for _, v := range variants {
		runtime.GOMAXPROCS(v.Procs)
		b.log("%s %s: %d contenders, %d rounds of %v", w.Group, v.of(w), len(open), p.Rounds, p.Slice)
		if p.Warmup > 0 {
			for _, r := range open {
				b.warm(w.Group, v.Callers, r.running, p)
			}
		}
		for round := range p.Rounds {
			for _, i := range order(len(open), round) {
				b.measure(w.Group, v.params(w, open[i].label), v.Callers, open[i].running, after(p.Slice), p.MaxOps)
			}
		}
	}
}

// of shows a variant to people.
func (v Variant) of(w Workload) string {
	return fmt.Sprintf("keys=%s callers=%d procs=%d", keyCount(w.Keys.Len()), v.Callers, v.Procs)
}

// opened is a contender with what it takes to end it.
type opened struct {
	*running
	shut func()
}

// openAll opens what there is of the contenders.
func (b *Bench) openAll(w Workload, contenders []Contender) (open []opened) {
	for _, c := range contenders {
		subject := w.Group + " " + Label(c.Name)
		if b.Only != nil && !b.Only(c.Name) {
			continue
		}
		dir, remove, err := b.tempDir(c.Name)
		if err != nil {
			b.fail(subject, fmt.Errorf("making its directory: %w", err))
			continue
		}
		start := time.Now()
		in, err := c.Open(filepath.Clean(dir), w)
		if err != nil {
			remove()
			if errors.Is(err, ErrAbsent) {
				b.Results.note("absent", subject, "%v", err)
				b.log("%s is absent: %v", subject, err)
			} else {
				b.fail(subject, fmt.Errorf("opening: %w", err))
			}
			continue
		}
		if c.Does != "" {
			b.Results.note("does", subject, "%s", c.Does)
		}
		if took := time.Since(start); took > time.Second {
			b.log("%s: opened in %v", subject, took.Round(time.Millisecond))
		}
		open = append(open, opened{&running{Contender: c, Instance: in, label: Label(c.Name), every: 1}, func() {
			if err := in.Close(); err != nil {
				b.fail(subject, fmt.Errorf("closing: %w", err))
			}
			remove()
		}})
	}
	return open
}

func (b *Bench) fail(subject string, err error) {
	b.Failed = true
	b.Results.note("failed", subject, "%v", err)
	b.log("%s FAILED: %v", subject, err)
}

// warm runs a slice that does not count, and finds out whether all operations can
// be timed.
func (b *Bench) warm(group string, callers int, r *running, p Pace) {
	if r.done {
		return
	}
	r.every = 1
	s, err := r.run(callers, after(p.Warmup), p.MaxOps, b.scratch(callers))
	if err != nil {
		r.done = true
		b.fail(group+" "+r.label, err)
		return
	}
	if s.elapsed*time.Duration(callers) < sampleFrom*time.Duration(s.ops) {
		r.every = sampled
	}
}

// measure runs a slice and adds its row, with what more gives beside the slice's own
// figures. A contender that is done is passed over.
func (b *Bench) measure(group string, params []Param, callers int, r *running, until limit, maxOps uint64, more ...func() []Value) {
	if r.done {
		return
	}
	b.collect()
	hists := b.scratch(callers)
	s, err := r.run(callers, until, maxOps, hists)
	if err != nil {
		r.done = true
		b.fail(group+" "+r.label, err)
		return
	}
	if s.ops == 0 {
		return // it was done before it began
	}
	if b.merged == nil {
		b.merged = newHistogram()
	}
	b.merged.reset()
	for _, h := range hists {
		b.merged.add(h)
	}
	values := s.values(r, b.merged)
	for _, m := range more {
		values = append(values, m()...)
	}
	b.add(group, params, s.ops, values...)
}

// collect runs the garbage collector if what others left behind would soon make it
// run in the next one's slice.
func (b *Bench) collect() {
	var m runtime.MemStats
	if runtime.ReadMemStats(&m); m.HeapAlloc > m.NextGC*2/3 {
		runtime.GC()
	}
}

// params are what a row's name says beside its group. Where there is a caller for
// each processor, as in look-ups, callers are not named.
func (v Variant) params(w Workload, label string) []Param {
	out := []Param{{"backend", label}}
	if n := w.Keys.Len(); n > 0 {
		out = append(out, Param{"keys", keyCount(n)})
	}
	if !lookup(w.Group) {
		out = append(out, Param{"callers", strconv.Itoa(v.Callers)})
	}
	return append(out, Param{"procs", strconv.Itoa(v.Procs)})
}

func lookup(group string) bool {
	return slices.Contains([]string{GetHit, GetMiss, ClaimReplay, CycleMemory}, group)
}
