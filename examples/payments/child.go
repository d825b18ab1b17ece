package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"sync"
)

// child is this program in another part, as a process. It lives as long as its
// standard input: should the supervisor die in whatever way, the pipe breaks and
// the child ends by itself, on every system.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{} // closed when it has ended and its output is read
	err   error         // then: how it ended
	once  sync.Once
}

// startChild starts this program with args. onLine gets each line of its standard
// output, in order, on one goroutine; what it says on standard error is passed on.
func startChild(onLine func(string), args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.Command(self, args...), ended: make(chan struct{})}
	c.cmd.Stderr = os.Stderr
	if c.stdin, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	stdout, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		defer close(c.ended)
		lines := bufio.NewScanner(stdout)
		lines.Buffer(nil, 1<<20)
		for lines.Scan() {
			onLine(lines.Text())
		}
		io.Copy(io.Discard, stdout) // or a line too long would block the child
		c.err = c.cmd.Wait()
	}()
	return c, nil
}

// tell writes a line to the child; one that has ended does not hear it.
func (c *child) tell(line string) { io.WriteString(c.stdin, line+"\n") }

// kill is SIGKILL, or what the system has for it, and waits until the child is dead.
func (c *child) kill() {
	c.cmd.Process.Kill() // fails only if it is dead already
	<-c.ended
}

// stop asks the child to end in order and returns how it did.
func (c *child) stop() error {
	c.once.Do(func() { c.stdin.Close() })
	<-c.ended
	return c.err
}
