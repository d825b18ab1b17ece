package idemtest

import (
	"bytes"
	"context"
	"fmt"
	"runtime/pprof"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/idemkv/idem/internal/progress"
)

// goroutineMark finds the goroutines that one case started among those of all cases
// running at the same time. Profiler labels are inherited by every goroutine that a
// marked one starts.
type goroutineMark string

var marks atomic.Int64

// markGoroutines marks the calling goroutine.
func markGoroutines(name string) goroutineMark {
	m := goroutineMark(fmt.Sprintf("%s#%d", name, marks.Add(1)))
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("idemtest", string(m))))
	return m
}

// verifyNone unmarks the calling goroutine. It fails the test if other marked
// goroutines remain and none can move any more. Those that are about to end can.
func (m goroutineMark) verifyNone(t testing.TB, patience time.Duration) {
	pprof.SetGoroutineLabels(context.Background())
	stall := progress.Watch{Patience: patience}.Start()
	defer stall.Stop()
	for pause := 100 * time.Microsecond; ; pause = min(2*pause, 100*time.Millisecond) {
		left := m.find()
		if left == "" {
			return
		}
		select {
		case <-stall.Stalled():
			t.Errorf("goroutines stay after Close:\n%s", left)
			return
		case <-time.After(pause):
		}
	}
}

// find returns the stacks of the goroutines with the mark.
func (m goroutineMark) find() string {
	var all bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&all, 1); err != nil {
		return err.Error()
	}
	label := fmt.Sprintf("%q:%q", "idemtest", string(m))
	var found []string
	for _, stack := range strings.Split(all.String(), "\n\n") {
		if strings.Contains(stack, label) {
			found = append(found, stack)
		}
	}
	return strings.Join(found, "\n\n")
}
