package main

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"sync"
)

// child is this program as the server, in a process of its own. It lives as long as its
// standard input: if the supervisor dies, in whatever way, the pipe breaks and the child
// ends too, on every system.
type child struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	ended chan struct{} // closed when it has ended and its output is read
	err   error         // then: how it ended
	once  sync.Once
}

// startChild starts this program with args. onLine gets each line of its output, in
// order, on one goroutine.
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
		for lines := bufio.NewScanner(stdout); lines.Scan(); {
			onLine(lines.Text())
		}
		c.err = c.cmd.Wait()
	}()
	return c, nil
}

// kill is SIGKILL, or what the system has for it. It waits until the child is dead.
func (c *child) kill() {
	_ = c.cmd.Process.Kill() // fails only if it is dead already
	<-c.ended
}

// stop asks the child to end in order, and returns how it did.
func (c *child) stop() error {
	c.once.Do(func() { _ = c.stdin.Close() })
	<-c.ended
	return c.err
}
