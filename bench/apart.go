package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/perf/benchfmt"

	c "github.com/idemkv/idem/bench/contenders"
)

// The groups of rows for which each contender runs in a process of its own.
const (
	// syncs says how often a contender syncs in a durable cycle, as strace sees it:
	// nobody shall be compared with one that does not.
	syncs = "Syncs/cycle"
	// written says how many bytes it writes. Both figures need Linux.
	//
	// written-B/op is write_bytes of /proc/<pid>/io, of the contender's process or of the
	// server that it talks to. The kernel counts when a page of a file gets dirty, not
	// when the disk gets the page:
	//   - The log counts, and so do flushes and compactions, in any thread, as far as they
	//     happen while the operations run. The file system's journal does not.
	//   - A page counts whole, and once until it is written back, however often it changes.
	//   - A large folio counts whole too. The file system may then write only the blocks
	//     that changed: ext4 does. A log in pages of 256 KiB looks like 256 KiB a sync.
	//
	// device-B/op is what the block device below the stores was sent. It tells what a
	// folio really cost, and includes the journal and what every other process wrote:
	// only an idle machine gives a good figure.
	written = "Written/cycle"
)

// What a process that runs one contender opens before the first operation and after the
// last: strace shows it.
const (
	opsBegin = "/idem-bench-operations-begin"
	opsEnd   = "/idem-bench-operations-end"
)

// absentExit is its exit code if the contender is absent.
const absentExit = 3

// runAlone runs operations of one contender between two marks for strace. The row has
// their time and what they wrote.
func (b *bench) runAlone(contender string, w c.Workload, ops int) error {
	all := slices.DeleteFunc(c.All(w.Group), func(x c.Contender) bool { return x.Name != contender })
	if len(all) == 0 {
		return fmt.Errorf("%s has no contender %q", w.Group, contender)
	}
	dir, err := os.MkdirTemp(b.dir, "alone-")
	if err != nil {
		return err
	}
	in, err := all[0].Open(dir, w)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	r := &running{Contender: all[0], Instance: in, every: 1}
	var s spent
	values, missing, err := countWritten(in.Pid, dir, ops, func() (err error) {
		mark(opsBegin)
		s, err = r.run(w.Callers, after(time.Hour), uint64(ops), b.scratch(w.Callers))
		mark(opsEnd)
		return err
	})
	if err := errors.Join(err, in.Close(), os.RemoveAll(dir)); err != nil {
		return err
	}
	if missing != nil {
		b.set("absent/"+written, "%v", missing)
	}
	values = append([]benchfmt.Value{value(float64(s.elapsed.Nanoseconds())/float64(ops), "ns/op")}, values...)
	b.add(uint64(ops), values, w.Group, "backend="+contender, "callers="+strconv.Itoa(w.Callers))
	return nil
}

func mark(path string) {
	if f, err := os.Open(path); err == nil {
		_ = f.Close()
	}
}

// countWritten runs work, which is ops operations on stores in dir by the process pid (0:
// this one), and returns what was written. missing says why a figure is not there.
func countWritten(pid int, dir string, ops int, work func() error) (values []benchfmt.Value, missing, err error) {
	counters := []struct {
		unit string
		read func() (uint64, error)
	}{
		{"written-B/op", func() (uint64, error) { return processBytes(pid, dir) }},
		{"device-B/op", func() (uint64, error) { return deviceBytes(dir) }},
	}
	// A page that the setup left dirty would not count when an operation changes it, and
	// would reach the device in the operations' time.
	syncDisks()
	var was [2]uint64
	var errs [2]error
	for i, c := range counters {
		was[i], errs[i] = c.read()
	}
	if err := work(); err != nil {
		return nil, nil, err
	}
	for i, c := range counters {
		is, err := c.read()
		if err = errors.Join(errs[i], err); err != nil {
			missing = errors.Join(missing, fmt.Errorf("%s: %w", c.unit, err))
			continue
		}
		values = append(values, value(float64(is-was[i])/float64(ops), c.unit))
	}
	return values, missing, nil
}

// apart has each contender run a number of durable cycles in a process of its own, for
// each number of callers, and counts what the group is about.
func (b *bench) apart(group string, callers []int, ops, resultBytes int) {
	strace := ""
	if group == syncs {
		var err error
		if strace, err = exec.LookPath("strace"); err != nil {
			b.fail(group, fmt.Errorf("%w: strace is not installed; syncs were not counted", c.ErrAbsent))
			return
		}
	} else if _, err := processBytes(0, b.dir); err != nil {
		b.fail(group, fmt.Errorf("%w: %w", c.ErrAbsent, err))
		return
	}
	for _, n := range callers {
		for _, x := range c.All(c.CycleDurable) {
			if b.only != nil && !b.only(x.Name) {
				continue
			}
			ops := max(ops/n, 1) * n
			values, err := b.countApart(strace, b.alone(x.Name, n, ops, resultBytes), ops)
			if err != nil {
				b.fail(group+"/"+x.Name, err)
				continue
			}
			b.add(uint64(ops), values, group, "backend="+x.Name, "callers="+strconv.Itoa(n))
			b.log("%s %s callers=%d: %.2f %s", group, x.Name, n, values[0].Value, values[0].Unit)
		}
	}
}

// countApart runs a command that runs one contender, under strace if that is named.
func (b *bench) countApart(strace string, command []string, ops int) (values []benchfmt.Value, err error) {
	dir, err := os.MkdirTemp(b.dir, "apart-")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	trace := filepath.Join(dir, "trace")
	if strace != "" {
		calls := "trace=openat," + strings.Join(syncCalls, ",")
		command = append([]string{strace, "-f", "-qq", "-o", trace, "-e", "signal=none", "-e", calls}, command...)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		said := strings.Split(strings.TrimSpace(stderr.String()), "\n")
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == absentExit {
			err = c.ErrAbsent
		}
		return nil, fmt.Errorf("%w: %s", err, said[len(said)-1])
	}
	if strace != "" {
		f, err := os.Open(trace)
		if err != nil {
			return nil, err
		}
		defer func() { _ = f.Close() }()
		counts, err := countSyncs(f)
		return syncValues(counts, ops), err
	}
	r, err := parse(&stdout, "its output")
	if err != nil {
		return nil, err
	}
	for _, row := range r.rows {
		values = append(values, slices.DeleteFunc(row.Values, func(v benchfmt.Value) bool { return !strings.HasSuffix(v.Unit, "-B/op") })...)
	}
	if len(values) == 0 {
		return nil, fmt.Errorf("%w: %s", c.ErrAbsent, r.get("absent/"+strings.ToLower(written)))
	}
	return values, nil
}

// syncCalls are the system calls that make writes durable.
var syncCalls = []string{"fsync", "fdatasync", "msync", "sync_file_range", "syncfs", "sync"}

func syncValues(counts map[string]int, ops int) (values []benchfmt.Value) {
	total := 0
	for _, name := range syncCalls {
		if n := counts[name]; n > 0 {
			total += n
			values = append(values, value(float64(n)/float64(ops), name+"/op"))
		}
	}
	return append([]benchfmt.Value{value(float64(total)/float64(ops), "syncs/op")}, values...)
}

var syscallLine = regexp.MustCompile(`^(?:\d+ +)?(\w+)\((.*)`)

// countSyncs counts the calls that strace saw between the marks. A call that another
// thread's line interrupts is there twice, once as resumed.
func countSyncs(r io.Reader) (map[string]int, error) {
	counts := map[string]int{}
	within, ended := false, false
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		m := syscallLine.FindStringSubmatch(lines.Text())
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
