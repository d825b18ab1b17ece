package robustness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"time"
)

// held runs children whose system calls a tracer holds: from when the child says stick,
// until it says release. Then the tracer is killed, and the calls go on.
type held struct {
	strace string
	args   []string
	// elsewhere is called when the child says elsewhere; nil: it says no such thing.
	elsewhere func() error
	nap       time.Duration // how long it is stopped when it says so
}

// What the child says on its standard output, a line each. The answer is a line, empty
// if all is well.
const (
	stick     = "stick"
	release   = "release"
	elsewhere = "elsewhere"
	nap       = "nap"
)

var answers = sync.OnceValue(func() *bufio.Reader { return bufio.NewReader(os.Stdin) })

// ask is for the child.
func ask(what string) error {
	fmt.Println(what)
	line, err := answers().ReadString('\n')
	if line = strings.TrimSpace(line); err == nil && line != "" {
		err = errors.New(line)
	}
	return err
}

// holding has the calls held for an hour, from the ordinal-th of each thread on, or until
// strace is no more. (With a filter of its own left behind in the kernel, calls would
// fail then: so there is none.)
func holding(ordinal int, calls ...string) []string {
	all := strings.Join(calls, ",")
	return []string{
		"-o", os.DevNull, "-e", "trace=" + all,
		"-e", fmt.Sprintf("inject=%s:delay_enter=3600000000:when=%d+", all, ordinal),
	}
}

// run runs j, and reads what it says at last into report.
func (h held) run(j job, report any) error {
	cmd := j.command()
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		return err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	end := func() error { return nil } // of the tracer
	last := ""
	for lines := bufio.NewReader(out); ; {
		line, err := lines.ReadString('\n')
		if err == io.EOF {
			break
		}
		if err != nil {
			return errors.Join(err, end(), cmd.Wait())
		}
		var answer error
		switch strings.TrimSpace(line) {
		case stick:
			end, answer = h.attach(cmd.Process.Pid)
		case release:
			answer = end()
			end = func() error { return nil }
		case elsewhere:
			answer = h.elsewhere()
		case nap:
			answer = stopFor(cmd.Process, h.nap)
		default:
			last = line
			continue
		}
		text := ""
		if answer != nil {
			text = strings.ReplaceAll(answer.Error(), "\n", " ")
		}
		_, _ = fmt.Fprintln(in, text) // who does not hear it ends, and says why
	}
	if err := errors.Join(end(), cmd.Wait()); err != nil {
		return fmt.Errorf("the process ended: %w: %s%s", err, last, stderr.Bytes())
	}
	if err := json.Unmarshal([]byte(last), report); err != nil {
		return fmt.Errorf("the process said %q %s: %w", last, stderr.Bytes(), err)
	}
	return nil
}

// attach returns when all threads of the process are traced.
func (h held) attach(pid int) (end func() error, err error) {
	cmd := exec.Command(h.strace, append([]string{"-f", "-p", fmt.Sprint(pid), "-e", "signal=none"}, h.args...)...)
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		return func() error { return nil }, err
	}
	lines := bufio.NewReader(said)
	line, err := lines.ReadString('\n')
	gone := make(chan struct{})
	go func() {
		defer close(gone)
		_, _ = io.Copy(io.Discard, lines)
	}()
	end = func() error {
		_ = cmd.Process.Kill()
		<-gone
		_ = cmd.Wait() // it was killed
		return nil
	}
	if err == nil && !strings.Contains(line, "attached") {
		err = fmt.Errorf("strace says %s", line)
	}
	return end, err
}
