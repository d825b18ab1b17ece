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
)

// goroutineMark finds the goroutines that one case started, among those of all the
// cases that run beside it: profiler labels are inherited by every goroutine that
// a marked one starts.
type goroutineMark string

var marks atomic.Int64

// markGoroutines marks the calling goroutine.
func markGoroutines(name string) goroutineMark {
	m := goroutineMark(fmt.Sprintf("%s#%d", name, marks.Add(1)))
	pprof.SetGoroutineLabels(pprof.WithLabels(context.Background(), pprof.Labels("idemtest", string(m))))
	return m
}

// verifyNone takes the mark off the calling goroutine and fails the test if others
// bear it. Those about to end are given time.
func (m goroutineMark) verifyNone(t testing.TB, patience time.Duration) {
	pprof.SetGoroutineLabels(context.Background())
	var left string
	pause := 100 * time.Microsecond
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		if left = m.find(); left == "" {
			return
		}
		time.Sleep(pause)
		pause = min(2*pause, 100*time.Millisecond)
	}
	t.Errorf("goroutines stay after Close:\n%s", left)
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
