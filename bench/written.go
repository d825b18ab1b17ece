package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

// Written is the group of rows that say how many bytes a contender writes in a durable
// cycle. Each runs in a process of its own, since the kernel cannot tell contenders
// apart that share one. Both figures need Linux.
//
// written-B/op is write_bytes of /proc/<pid>/io, of the contender's process or of the
// server that it talks to. The kernel counts at the moment when a page of a file gets
// dirty, not when the disk gets the page:
//   - The log counts, and so do flushes and compactions, in any thread, as far as they
//     happen while the operations run. The file system's journal does not.
//   - A page counts whole, and once until it is written back, however often it changes.
//   - A large folio counts whole too. The file system may then write only the blocks
//     that changed: ext4 does. A log in pages of 256 KiB looks like 256 KiB a sync.
//
// device-B/op is what the block device below the stores was sent. It tells what a folio
// really cost, includes the journal, and includes what every other process wrote: only
// an idle machine gives a good figure.
const Written = "Written/cycle"

const (
	writtenOp = "written-B/op"
	deviceOp  = "device-B/op"
)

// countWritten runs work, which is ops operations on stores in dir by the process pid
// (0: this one), and returns what was written. missing says why a figure is not there.
func countWritten(pid int, dir string, ops int, work func() error) (values []Value, missing, err error) {
	counters := []struct {
		unit string
		read func() (uint64, error)
		was  uint64
		err  error
	}{
		{unit: writtenOp, read: func() (uint64, error) { return processBytes(pid, dir) }},
		{unit: deviceOp, read: func() (uint64, error) { return deviceBytes(dir) }},
	}
	// A page that the setup left dirty would not count when an operation changes it,
	// and would reach the device in the operations' time.
	syncDisks()
	for i := range counters {
		c := &counters[i]
		c.was, c.err = c.read()
	}
	if err := work(); err != nil {
		return nil, nil, err
	}
	for _, c := range counters {
		is, err := c.read()
		if err = errors.Join(c.err, err); err != nil {
			missing = errors.Join(missing, fmt.Errorf("%s: %w", c.unit, err))
			continue
		}
		values = append(values, Value{c.unit, float64(is-c.was) / float64(ops)})
	}
	return values, missing, nil
}

// CountWritten has each contender run o.Ops operations in a process of its own, for
// each number of callers. command makes the command that writes what One.Run returns to
// its output.
func (b *Bench) CountWritten(o One, contenders []Contender, callers []int, command func(One) *exec.Cmd) {
	if _, err := processBytes(0, b.Dir); err != nil {
		b.Results.note("absent", Written+" "+writtenOp, "%v", err)
		b.log("%s: %v", Written, err)
		return
	}
	b.apart(Written, o, contenders, callers, func(o One) ([]Value, error) { return written(command(o)) })
}

// written runs a command of CountWritten and reads its output.
func written(of *exec.Cmd) ([]Value, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	var stdout, stderr bytes.Buffer
	cmd := exec.CommandContext(ctx, of.Path, of.Args[1:]...)
	cmd.Dir, cmd.Env, cmd.Stdout, cmd.Stderr = of.Dir, of.Env, &stdout, &stderr
	if err := exitError(cmd.Run(), stderr.Bytes()); err != nil {
		return nil, err
	}
	r, err := Parse(&stdout)
	if err != nil {
		return nil, err
	}
	if len(r.Rows) != 1 {
		return nil, fmt.Errorf("%d rows in the output, not 1", len(r.Rows))
	}
	if _, ok := r.Rows[0].Value(writtenOp); !ok {
		reason := "no " + writtenOp
		for _, n := range r.Notes {
			reason = n.Text
		}
		return nil, fmt.Errorf("%w: %s", ErrAbsent, reason)
	}
	return slices.DeleteFunc(r.Rows[0].Values, func(v Value) bool { return v.Unit != writtenOp && v.Unit != deviceOp }), nil
}

// apart has each contender run o.Ops operations by itself, for each number of callers,
// and adds the values that count gives as rows of the group.
func (b *Bench) apart(group string, o One, contenders []Contender, callers []int, count func(One) ([]Value, error)) {
	for _, n := range callers {
		for _, c := range contenders {
			if b.Only != nil && !b.Only(c.Name) {
				continue
			}
			o := o
			o.Contender, o.Callers, o.Dir = c.Name, n, b.Dir
			o.Ops = max(o.Ops/n, 1) * n
			values, err := count(o)
			subject := group + " " + Label(c.Name)
			if errors.Is(err, ErrAbsent) {
				b.Results.note("absent", subject, "%v", err)
				continue
			} else if err != nil {
				b.fail(subject, err)
				continue
			}
			b.add(group, []Param{{"backend", Label(c.Name)}, {"callers", strconv.Itoa(n)}}, uint64(o.Ops), values...)
			b.log("%s callers=%d: %.2f %s", subject, n, values[0].Amount, values[0].Unit)
		}
	}
}

// exitError is the error of a process that ran One, with the last line that it said.
func exitError(err error, said []byte) error {
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() == absentExit {
		return fmt.Errorf("%w: %s", ErrAbsent, lastLine(said))
	} else if err != nil {
		return fmt.Errorf("%w: %s", err, lastLine(said))
	}
	return nil
}
