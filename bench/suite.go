package bench

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
)

// Suite is everything that is measured, with what it is measured against.
type Suite struct {
	Plan Plan
	// Rivals returns what idem is compared with under a workload; nil: nothing.
	Rivals func(w Workload) []Contender
	// Run says which groups are measured, by name; nil: all.
	Run *regexp.Regexp
	// One makes the command that calls One.Run in a process of its own and writes the
	// results to its output; nil: neither syncs nor bytes written are counted.
	One func(One) *exec.Cmd
	// After is called after each part, with what there is by then; nil: nothing.
	After func(*Results) error
}

// Contenders returns idem and its rivals under a workload.
func (s *Suite) Contenders(w Workload, f *Filled) []Contender {
	all := Idem(w.Group, f)
	if s.Rivals != nil {
		all = append(all, s.Rivals(w)...)
	}
	return all
}

// Measure runs the parts of the suite into b.
func (s *Suite) Measure(b *Bench) (err error) {
	filled, err := NewFilled(b.Dir)
	if err != nil {
		return fmt.Errorf("bench: making a directory to work in: %w", err)
	}
	defer func() { err = errors.Join(err, filled.Close()) }()
	p := s.Plan
	for _, part := range []struct {
		groups []string
		run    func(group string)
	}{
		{[]string{GetHit, GetMiss, ClaimReplay}, func(group string) { s.lookups(b, filled, group) }},
		{[]string{CycleMemory}, func(group string) { s.compare(b, filled, group, 0, callersAsProcs(p.Procs), p.Memory) }},
		{[]string{CycleDurable}, func(group string) { s.cycles(b, filled, group, p.Callers) }},
		{[]string{DoSameCommit}, func(group string) { s.cycles(b, filled, group, p.EffectCallers) }},
		{[]string{Syncs}, func(string) { s.apart(b.CountSyncs, p.SyncOps) }},
		{[]string{Written}, func(string) { s.apart(b.CountWritten, p.WrittenOps) }},
		{[]string{"Scale"}, func(string) { b.Scale(p.Sizes, p.Scale, s.procs()) }},
		{[]string{SweepUnloaded}, func(group string) { s.sweeps(b, filled, group) }},
		{[]string{SweepLoaded}, func(string) { b.SweepLoad(p.Era, p.LoadCallers, p.ResultBytes, s.procs(), p.SweepLoad) }},
		{[]string{Idle}, func(string) { b.Idle(p.Idle, p.ResultBytes) }},
		{[]string{OpenLoop}, func(string) { s.open(b, filled) }},
	} {
		for _, group := range part.groups {
			if s.Run != nil && !s.Run.MatchString(group) {
				continue
			}
			part.run(group)
			if s.After != nil {
				if err := s.After(b.Results); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// procs is the most processors there are to be.
func (s *Suite) procs() int {
	most := 1
	for _, n := range s.Plan.Procs {
		most = max(most, n)
	}
	return most
}

func callersAsProcs(procs []int) (out []Variant) {
	for _, n := range procs {
		out = append(out, Variant{Procs: n, Callers: n})
	}
	return out
}

func (s *Suite) compare(b *Bench, f *Filled, group string, keys int, variants []Variant, p Pace) {
	w := Workload{Group: group, Keys: NewKeys(keys), ResultBytes: s.Plan.ResultBytes, Batch: s.Plan.Batch}
	b.Compare(w, variants, s.Contenders(w, f), p)
}

func (s *Suite) lookups(b *Bench, f *Filled, group string) {
	for _, keys := range s.Plan.LookupKeys {
		s.compare(b, f, group, keys, callersAsProcs(s.Plan.Procs), s.Plan.Lookup)
	}
}

// cycles opens new stores for each number of callers, so that all begin alike.
func (s *Suite) cycles(b *Bench, f *Filled, group string, callers []int) {
	for _, n := range callers {
		s.compare(b, f, group, 0, []Variant{{s.procs(), n}}, s.Plan.Cycle)
	}
}

// sweeps divides the expired records among the rounds.
func (s *Suite) sweeps(b *Bench, f *Filled, group string) {
	p := s.Plan.Sweep
	p.MaxOps = uint64(max(1, s.Plan.Expired/s.Plan.Batch/p.Rounds))
	s.compare(b, f, group, s.Plan.Expired, []Variant{{s.procs(), 1}}, p)
}

// apart counts something of durable cycles, in a process for each contender.
func (s *Suite) apart(count func(One, []Contender, []int, func(One) *exec.Cmd), ops int) {
	if s.One == nil {
		return
	}
	w := Workload{Group: CycleDurable, ResultBytes: s.Plan.ResultBytes}
	count(One{Group: CycleDurable, Ops: ops, ResultBytes: s.Plan.ResultBytes}, s.Contenders(w, nil), s.Plan.SyncCallers, s.One)
}

func (s *Suite) open(b *Bench, f *Filled) {
	if len(s.Plan.Rates) == 0 {
		return
	}
	w := Workload{Group: CycleDurable, ResultBytes: s.Plan.ResultBytes, Procs: s.procs()}
	// Of the bare engines only the grouped ones: the others were left behind by then.
	contenders := slices.DeleteFunc(s.Contenders(w, f), func(c Contender) bool {
		return kindOf(Label(c.Name)) == kindBare && c.Name != RawBoltGroup && c.Name != RawPebbleGroup
	})
	b.OpenLoop(w, contenders, s.Plan.Rates, s.Plan.Open)
}

// Save writes raw.txt, table.txt and report.html to dir, which it makes. The table and
// the report are made of what stands in raw.txt, so that they can be made again.
func Save(dir string, r *Results) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	var raw, table, report bytes.Buffer
	if err := r.Write(&raw); err != nil {
		return err
	}
	written, err := Parse(bytes.NewReader(raw.Bytes()))
	if err == nil {
		err = WriteTable(&table, written)
	}
	if err == nil {
		err = WriteReport(&report, written)
	}
	if err != nil {
		return err
	}
	for name, b := range map[string]*bytes.Buffer{"raw.txt": &raw, "table.txt": &table, "report.html": &report} {
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// Load reads the raw.txt of a run.
func Load(path string) (*Results, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	r, err := Parse(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return r, nil
}
