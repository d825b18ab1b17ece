package robustness

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// stoppedIn returns when a tracer has held a thread of this process in one of the calls
// for a while.
func stoppedIn(calls ...string) {
	numbers := map[string]int{"pwrite64": syscall.SYS_PWRITE64, "fdatasync": syscall.SYS_FDATASYNC, "fsync": syscall.SYS_FSYNC}
	held := func(thread string) bool {
		stat, _ := os.ReadFile(thread + "/stat")
		in, err := os.ReadFile(thread + "/syscall")
		_, state, _ := strings.Cut(string(stat), ") ")
		return err == nil && strings.HasPrefix(state, "t") && slices.ContainsFunc(calls, func(call string) bool {
			number, known := numbers[call]
			return known && strings.HasPrefix(string(in), fmt.Sprint(number, " "))
		})
	}
	looks := map[string]int{}
	for {
		threads, _ := filepath.Glob("/proc/self/task/*")
		for _, thread := range threads {
			if !held(thread) { // every traced call stops a thread for a moment
				delete(looks, thread)
			} else if looks[thread]++; looks[thread] == 20 {
				return
			}
		}
		time.Sleep(time.Millisecond)
	}
}

// naps: stopFor stops processes.
const naps = true

// stopFor stops a process for a while.
func stopFor(p *os.Process, d time.Duration) error {
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		return err
	}
	<-time.After(d)
	return p.Signal(syscall.SIGCONT)
}

// limitFiles bounds the size of the files that this process writes.
func limitFiles(size uint64) error {
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size})
}
