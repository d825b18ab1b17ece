// Package progress tells a call that hangs from one that is slow, for tests that must
// hold on a busy machine. It does not go by the time a call takes. It looks at what the
// process's goroutines are doing. The process has stalled when, for a while, every look
// finds all of them waiting for each other.
package progress

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// Watch configures how long the process must stand still. The process counts the looks
// itself: while it is stopped, or gets no CPU, there are none.
type Watch struct {
	// Patience is the least time that a row of looks without movement takes. Zero: 30 s.
	Patience time.Duration
	// InKernel is how many goroutines may sit in a system call all that time. Any more
	// count as moving, because a disk may be slow.
	InKernel int
}

// looks is how many looks in a row must find no movement.
const looks = 20

// Stall is a running Watch.
type Stall struct {
	w     Watch
	c     chan struct{}
	mu    sync.Mutex // guards the fields below
	timer *time.Timer
	nap   time.Duration
	still int // looks in a row without movement
	over  bool
}

// Start starts watching.
func (w Watch) Start() *Stall {
	if w.Patience <= 0 {
		w.Patience = 30 * time.Second
	}
	s := &Stall{w: w, c: make(chan struct{}), nap: w.Patience / looks}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.timer = time.AfterFunc(s.nap, s.look)
	return s
}

// Stalled is closed when the process stalls.
func (s *Stall) Stalled() <-chan struct{} { return s.c }

// Stop stops watching.
func (s *Stall) Stop() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.over = true
	s.timer.Stop()
}

func (s *Stall) look() {
	begun := time.Now()
	still := waits(Stacks(), s.w.InKernel)
	cost := time.Since(begun)
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.over:
		return
	case !still:
		s.still = 0
	default:
		if s.still++; s.still == looks {
			s.over = true
			close(s.c)
			return
		}
	}
	// A look stops all goroutines. It must not slow down what it watches.
	s.nap = max(s.w.Patience/looks, 20*cost)
	s.timer.Reset(s.nap)
}

// Run calls f in its own goroutine. If the process stalls before f returns, Run returns
// an error with the stacks of all goroutines.
func (w Watch) Run(what string, f func()) error {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	s := w.Start()
	defer s.Stop()
	select {
	case <-done:
		return nil
	case <-s.c:
		return fmt.Errorf("%s hangs: every goroutine waits\n%s", what, Stacks())
	}
}

// looking lets in one looker at a time. The others wait for a mutex, and count as
// waiting.
var looking sync.Mutex

// Stacks returns the stacks of all goroutines at one moment, the caller's first.
func Stacks() []byte {
	looking.Lock()
	defer looking.Unlock()
	for size := 64 << 10; ; size *= 4 {
		b := make([]byte, size)
		if n := runtime.Stack(b, true); n < size || size >= 64<<20 {
			return b[:n]
		}
	}
}

// waiting lists the states, in a dump, of goroutines that someone else must wake.
var waiting = [][]byte{
	[]byte("chan "), []byte("select"), []byte("sync."), []byte("semacquire"), []byte("sleep"), []byte("coroutine"),
}

// waits reports whether all goroutines of a dump except the first are waiting, with at
// most inKernel of them in a system call.
func waits(dump []byte, inKernel int) bool {
	for i, g := range bytes.Split(bytes.TrimSpace(dump), []byte("\n\n")) {
		if i == 0 {
			continue
		}
		_, state, ok := bytes.Cut(g, []byte("["))
		if !ok {
			return false // truncated: there are too many
		}
		switch {
		case hasPrefix(state, waiting):
		case bytes.Contains(g, []byte("os/signal.signal_recv")):
		case bytes.HasPrefix(state, []byte("syscall")) && inKernel > 0:
			inKernel--
		default:
			return false
		}
	}
	return true
}

func hasPrefix(s []byte, prefixes [][]byte) bool {
	for _, p := range prefixes {
		if bytes.HasPrefix(s, p) {
			return true
		}
	}
	return false
}
