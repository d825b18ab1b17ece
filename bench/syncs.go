package bench

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"time"
)

// Syncs is the group of rows that say how often a contender syncs in a durable cycle,
// as strace sees it: nobody shall be compared with one that does not.
const Syncs = "Syncs/cycle"

// What a traced process opens before the first operation and after the last; strace
// shows it.
const (
	opsBegin = "/idem-bench-operations-begin"
	opsEnd   = "/idem-bench-operations-end"
)

// One names a contender to run by itself, in a process that is traced.
type One struct {
	Group, Contender string
	Callers, Ops     int
	ResultBytes      int
	Dir              string
}

// Run opens the contender in a directory below o.Dir, which it removes, runs the
// operations between two marks for strace, and closes it. The results are one row: the
// time of an operation and what it wrote, as Written says it.
func (o One) Run(contenders []Contender) (*Results, error) {
	for _, c := range contenders {
		if c.Name != o.Contender {
			continue
		}
		dir, err := os.MkdirTemp(o.Dir, "one-")
		if err != nil {
			return nil, err
		}
		defer func() { _ = os.RemoveAll(dir) }()
		in, err := c.Open(dir, Workload{Group: o.Group, ResultBytes: o.ResultBytes, Procs: 2, Callers: o.Callers})
		if err != nil {
			return nil, err
		}
		r, err := o.measure(c, in, dir)
		return r, errors.Join(err, in.Close())
	}
	return nil, fmt.Errorf("bench: %s has no contender %s", o.Group, o.Contender)
}

// measure runs the operations.
func (o One) measure(c Contender, in Instance, dir string) (*Results, error) {
	ops := o.Ops / o.Callers * o.Callers
	var took time.Duration
	values, missing, err := countWritten(in.Pid, dir, ops, func() error {
		mark(opsBegin)
		start := time.Now()
		err := o.operations(in)
		took = time.Since(start)
		mark(opsEnd)
		return err
	})
	if err != nil {
		return nil, err
	}
	r := &Results{Rows: []Row{{
		Group: o.Group, Params: []Param{{"backend", Label(c.Name)}, {"callers", strconv.Itoa(o.Callers)}}, Ops: uint64(ops),
		Values: append([]Value{{nsOp, float64(took.Nanoseconds()) / float64(ops)}}, values...),
	}}}
	if missing != nil {
		r.note("absent", Written+" "+Label(c.Name), "%v", missing)
	}
	return r, nil
}

func (o One) operations(in Instance) error {
	errs := make([]error, o.Callers)
	var workers sync.WaitGroup
	for w := range o.Callers {
		workers.Go(func() {
			for n := range o.Ops / o.Callers {
				if errs[w] = in.Op(w, uint64(n)); errs[w] != nil {
					return
				}
			}
		})
	}
	workers.Wait()
	return errors.Join(errs...)
}

func mark(path string) {
	if f, err := os.Open(path); err == nil {
		_ = f.Close()
	}
}

// CountSyncs has each contender run o.Ops operations in a process of its own under
// strace, for each number of callers. command makes the command that calls One.Run.
func (b *Bench) CountSyncs(o One, contenders []Contender, callers []int, command func(One) *exec.Cmd) {
	strace, err := exec.LookPath("strace")
	if err != nil {
		b.Results.note("absent", Syncs+" strace", "strace is not installed; syncs were not counted")
		b.log("%s: strace is not installed", Syncs)
		return
	}
	b.apart(Syncs, o, contenders, callers, func(o One) ([]Value, error) {
		counts, err := b.traced(strace, command(o))
		if err != nil {
			return nil, err
		}
		total := 0
		var kinds []Value
		for _, name := range syncCalls {
			total += counts[name]
			if counts[name] > 0 {
				kinds = append(kinds, Value{name + "/op", float64(counts[name]) / float64(o.Ops)})
			}
		}
		return append([]Value{{"syncs/op", float64(total) / float64(o.Ops)}}, kinds...), nil
	})
}

// absentExit is the exit code of a process whose contender is absent.
const absentExit = 3

// ExitCode is what a process that ran One exits with.
func ExitCode(err error) int {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, ErrAbsent):
		return absentExit
	}
	return 1
}

func (b *Bench) traced(strace string, of *exec.Cmd) (map[string]int, error) {
	dir, remove, err := b.tempDir("strace")
	if err != nil {
		return nil, err
	}
	defer remove()
	out := filepath.Join(dir, "out")
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	args := append([]string{
		"-f", "-qq", "-o", out, "-e", "signal=none", "-e", "trace=openat," + strings.Join(syncCalls, ","), of.Path,
	}, of.Args[1:]...)
	cmd := exec.CommandContext(ctx, strace, args...)
	cmd.Dir, cmd.Env = of.Dir, of.Env
	said, err := cmd.CombinedOutput()
	if err := exitError(err, said); err != nil {
		return nil, fmt.Errorf("under strace: %w", err)
	}
	f, err := os.Open(out)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return countSyncs(f)
}

func lastLine(b []byte) string {
	text := strings.TrimSpace(string(b))
	return text[strings.LastIndexByte(text, '\n')+1:]
}

// syncCalls are the system calls that make writes durable.
var syncCalls = []string{"fsync", "fdatasync", "msync", "sync_file_range", "syncfs", "sync"}

var syncCall = regexp.MustCompile(`^(?:\d+ +)?(\w+)\((.*)`)

// countSyncs counts the calls that strace saw between the marks. A call that another
// thread's line interrupts is there twice, once as resumed.
func countSyncs(r io.Reader) (map[string]int, error) {
	counts := map[string]int{}
	within, ended := false, false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		m := syncCall.FindStringSubmatch(lines.Text())
		switch {
		case m == nil:
		case strings.Contains(m[2], `"`+opsBegin+`"`):
			within = true
		case strings.Contains(m[2], `"`+opsEnd+`"`):
			within, ended = false, true
		case m[1] == "msync" && !strings.Contains(m[2], "MS_SYNC"), m[1] == "openat":
		case within:
			counts[m[1]]++
		}
	}
	if err := lines.Err(); err != nil {
		return nil, err
	}
	if !ended {
		return nil, errors.New("strace saw no operations")
	}
	return counts, nil
}
