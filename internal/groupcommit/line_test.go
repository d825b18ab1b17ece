package groupcommit_test

import (
	"context"
	"sync"
	"testing"

	"github.com/idemkv/idem/internal/groupcommit"
)

// named is a job with a name.
type named struct {
	groupcommit.Ticket
	name string
	runs int // that have begun
}

// line is a Queue whose runs stop until they are told to go on. It is used inside a
// synctest bubble: settle there means that everybody has come as far as they can.
type line struct {
	t     testing.TB
	queue *groupcommit.Queue[*named]
	ctx   context.Context
	stop  chan struct{}

	mu      sync.Mutex
	groups  [][]string // as run, in order
	running bool
	step    chan struct{} // one value lets one run end
	after   func()        // what each run returns
	partial bool          // a run answers only the first job
	calls   map[string]*call
}

// call is one Do under way.
type call struct {
	cancel context.CancelFunc
	done   bool
	err    error
}

func newLine(t testing.TB, max int) *line {
	l := &line{t: t, ctx: context.Background(), stop: make(chan struct{}), step: make(chan struct{}), calls: make(map[string]*call)}
	l.queue = groupcommit.New(max, l.stop, l.run)
	return l
}

func names(jobs []*named) (names []string) {
	for _, j := range jobs {
		names = append(names, j.name)
	}
	return names
}

func (l *line) run(jobs []*named) (answered int, after func()) {
	l.mu.Lock()
	if l.running {
		l.t.Error("two runs at once")
	}
	l.running = true
	l.groups = append(l.groups, names(jobs))
	l.mu.Unlock()
	<-l.step
	l.mu.Lock()
	defer l.mu.Unlock()
	l.running = false
	if l.partial {
		return 1, l.after
	}
	return len(jobs), l.after
}

// do starts Do of job in a goroutine of its own.
func (l *line) do(job string, weight int) *call {
	ctx, cancel := context.WithCancel(l.ctx)
	c := &call{cancel: cancel}
	l.mu.Lock()
	l.calls[job] = c
	l.mu.Unlock()
	go func() {
		defer cancel()
		err := l.queue.Do(ctx, &named{name: job}, weight)
		l.mu.Lock()
		defer l.mu.Unlock()
		c.done, c.err = true, err
	}()
	return c
}

// finish lets runs end until nothing runs any more; settle is synctest.Wait.
func (l *line) finish(settle func()) {
	for settle(); l.busy(); settle() {
		l.step <- struct{}{}
	}
}

func (l *line) busy() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.running
}

func (l *line) ran() [][]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return append([][]string(nil), l.groups...)
}

func (l *line) ended(c *call) (bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return c.done, c.err
}
