package progress

import (
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// These tests are not parallel: a watch looks at the whole process.

func TestACallThatWaitsForNobodyHangs(t *testing.T) {
	never := make(chan struct{})
	defer close(never)
	err := Watch{Patience: 200 * time.Millisecond}.Run("waiting", func() { <-never })
	require.ErrorContains(t, err, "waiting hangs")
	require.ErrorContains(t, err, "TestACallThatWaitsForNobodyHangs", "the stack of the call")
}

func TestACallThatReturnsDoesNotHang(t *testing.T) {
	require.NoError(t, Watch{}.Run("nothing", func() {}))
}

func ended(stop <-chan struct{}) bool {
	select {
	case <-stop:
		return true
	default:
		return false
	}
}

// The call takes many times as long as the patience, and moves.
func TestASlowCallDoesNotHang(t *testing.T) {
	watch := Watch{Patience: time.Millisecond}
	for name, moves := range map[string]func(stop <-chan struct{}){
		"computing": func(stop <-chan struct{}) {
			for !ended(stop) {
			}
		},
		"yielding": func(stop <-chan struct{}) {
			for {
				select {
				case <-stop:
					return
				default:
					runtime.Gosched()
				}
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := watch.Start()
			defer s.Stop()
			stop, done := make(chan struct{}), make(chan struct{})
			go func() { defer close(done); moves(stop) }()
			for range 100 { // many times the looks that it takes
				require.False(t, waits(Stacks(), 0))
			}
			select {
			case <-s.Stalled():
				t.Error("it moves")
			default:
			}
			close(stop)
			<-done
		})
	}
}

// A goroutine in a system call moves, unless it is one that is expected there.
func TestASystemCallMoves(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("reading a pipe is no system call that blocks")
	}
	r, w, err := os.Pipe()
	require.NoError(t, err)
	r.Fd() // which makes it block
	done := make(chan struct{})
	go func() {
		defer close(done)
		_, _ = r.Read(make([]byte, 1))
	}()
	for !strings.Contains(string(Stacks()), "[syscall") {
		runtime.Gosched()
	}
	require.False(t, waits(Stacks(), 0))
	s := Watch{Patience: 20 * time.Millisecond, InKernel: 1}.Start()
	defer s.Stop()
	<-s.Stalled()
	require.NoError(t, w.Close())
	<-done
	require.NoError(t, r.Close())
}

func TestWhatAGoroutineDoes(t *testing.T) {
	const first = "goroutine 1 [running]:\nmain()\n\n"
	for state, still := range map[string]bool{
		"chan receive":                    true,
		"chan send, 3 minutes":            true,
		"select":                          true,
		"select (no cases)":               true,
		"sync.Mutex.Lock":                 true,
		"sync.Cond.Wait":                  true,
		"sleep":                           true,
		"running":                         false,
		"runnable":                        false,
		"syscall, locked to thread":       false,
		"IO wait":                         false, // another process, or the network, may have its turn
		"GC assist wait":                  false,
		"something of a later Go version": false,
	} {
		require.Equal(t, still, waits([]byte(first+"goroutine 7 ["+state+"]:\nf()\n"), 0), state)
	}
	require.True(t, waits([]byte(first), 0))
	require.False(t, waits([]byte(first+"gorout"), 0), "cut off")
	require.True(t, waits([]byte(first+"goroutine 7 [syscall]:\nos/signal.signal_recv()\n"), 0))
}
