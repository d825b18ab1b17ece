// Package progress tells a call that hangs from one that is slow, for tests that have to
// hold on a busy machine. It does not judge by the time a call takes. It looks at what
// the goroutines of the process do, and says that the process stalls when all of them
// have been waiting for each other in every look for a while.
package progress

import (
	"bytes"
	"fmt"
	"runtime"
	"sync"
	"time"
)

// Watch sets how long the process has to stand still. The looks are counted by the
// process itself: one that is stopped, or gets no CPU, takes none.
type Watch struct {
	// Patience is the least time that a row of looks takes in which nobody moves.
	// Zero: 30 s.
	Patience time.Duration
	// InKernel is how many goroutines may sit in a system call in all that time. Any
	// more count as moving, because a disk may be slow.
	InKernel int
}

// looks in a row that have to find nobody moving.
const looks = 20

// Stall is a Watch under way.
type Stall struct {
	w     Watch
	c     chan struct{}
	mu    sync.Mutex // of what follows
	timer *time.Timer
	nap   time.Duration
	still int // looks in a row in which nobody moved
	over  bool
}

// Start begins to watch.
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

// Stop ends the watching.
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
	// All goroutines stand still for a look. It must not slow down what it watches.
	s.nap = max(s.w.Patience/looks, 20*cost)
	s.timer.Reset(s.nap)
}

// Run calls f in a goroutine of its own. It returns an error with the stacks of all
// goroutines if the process stalls before f returns.
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

// one looker at a time: those that wait for it wait for a mutex, and count as such.
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

// What a dump says of a goroutine that somebody else has to wake.
var waiting = [][]byte{
	[]byte("chan "), []byte("select"), []byte("sync."), []byte("semacquire"), []byte("sleep"), []byte("coroutine"),
}

// waits reports whether all goroutines of a dump but the first wait, and at most
// inKernel sit in a system call.
func waits(dump []byte, inKernel int) bool {
	for i, g := range bytes.Split(bytes.TrimSpace(dump), []byte("\n\n")) {
		if i == 0 {
			continue
		}
		_, state, ok := bytes.Cut(g, []byte("["))
		if !ok {
			return false // cut off: there are too many
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
