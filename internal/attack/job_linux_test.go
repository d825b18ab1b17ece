package attack

import (
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"
	"time"
)

// stoppedIn keeps the goroutine on its thread, and returns a function for others that
// returns when that thread has been stopped in the call for a while.
func stoppedIn(call string) func() {
	number, known := map[string]int{"pwrite64": syscall.SYS_PWRITE64, "fdatasync": syscall.SYS_FDATASYNC}[call]
	runtime.LockOSThread()
	if !known {
		return func() {}
	}
	of := fmt.Sprintf("/proc/self/task/%d/", syscall.Gettid())
	return func() {
		// Every traced call stops the thread for a moment.
		for seen := 0; seen < 20; time.Sleep(time.Millisecond) {
			stat, _ := os.ReadFile(of + "stat")
			in, err := os.ReadFile(of + "syscall")
			seen++
			_, state, _ := strings.Cut(string(stat), ") ")
			if !strings.HasPrefix(state, "t") || err == nil && !strings.HasPrefix(string(in), fmt.Sprint(number, " ")) {
				seen = 0
			}
		}
	}
}

// limitFiles bounds the size of the files that this process writes.
func limitFiles(size uint64) error {
	return syscall.Setrlimit(syscall.RLIMIT_FSIZE, &syscall.Rlimit{Cur: size, Max: size})
}
