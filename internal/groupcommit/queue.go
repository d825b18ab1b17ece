// Package groupcommit is group commit without a timer. The first job to arrive is run at
// once; those that arrive while it runs wait and share the next run. A lone caller
// waits for nobody, and callers share what a commit costs as soon as there are
// several.
//
// Groups are run by a goroutine of the queue, which is there only while there is
// work. So callers can leave when a run hangs.
package groupcommit

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
)

// ErrStopped is returned by Do when the queue was stopped before the job had its
// answer: the job may have been run, and may be running still.
var ErrStopped = errors.New("the queue was stopped")

// Job is what a Queue takes: a pointer to a type that embeds Ticket.
type Job interface {
	comparable
	ticket() *Ticket
}

// Ticket is a job's place in a Queue. The zero value is ready, for one Do.
type Ticket struct {
	weight int
	index  int    // in the group, once that was taken
	after  func() // for the job's caller to call
}

func (t *Ticket) ticket() *Ticket { return t }

// Queue groups jobs of type J.
type Queue[J Job] struct {
	run   func(jobs []J) (answered int, after func())
	max   int
	stop  <-chan struct{}
	yield func() // runtime.Gosched, but in tests

	mu      sync.Mutex
	waiting []*group[J] // in the order of arrival; only the last grows
	working bool        // a worker is there
	several bool        // the last run answered several jobs
	idle    sync.Cond
}

// group is the jobs of one run.
type group[J Job] struct {
	jobs   []J
	weight int
	done   chan struct{} // closed when it has been run

	// Known when it has been run:
	answered int       // so many of the first jobs have their answers
	rest     *group[J] // of the others
}

// New returns a Queue. run gets the jobs of one group, one group at a time, and must
// not panic. It answers at least one job, or makes progress that lets a later run do
// so, and returns how many of the first jobs have their answers; the others are run
// again at once, before anybody else. What it returns besides, if not nil, is called
// by one of the callers, when the next group may be running.
//
// A group takes jobs until their weights exceed max, and at least one. When stop is
// closed nobody waits any longer.
func New[J Job](max int, stop <-chan struct{}, run func(jobs []J) (answered int, after func())) *Queue[J] {
	q := &Queue[J]{run: run, max: max, stop: stop, yield: runtime.Gosched}
	q.idle.L = &q.mu
	return q
}

// Do puts job into a group and returns nil when the job has its answer. It returns
// ctx's error if ctx ended before the job's group was taken: the job was not and will
// not be run. Afterwards ctx is not looked at. ErrStopped is returned when the queue
// is stopped.
func (q *Queue[J]) Do(ctx context.Context, job J, weight int) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	t := job.ticket()
	t.weight = weight
	g := q.join(job, t)
	left := ctx.Done()
	for run := 0; ; {
		select {
		case <-g.done:
		case <-q.stop:
			select {
			case <-g.done:
			default:
				q.leave(job)
				return ErrStopped
			}
		case <-left:
			if q.leave(job) {
				return ctx.Err()
			}
			left = nil
			continue
		}
		if run += g.answered; t.index < run {
			break
		}
		g = g.rest
	}
	if t.after != nil {
		t.after()
	}
	return nil
}

// join adds job to the last group that waits, or to a new one if that is full. Nobody
// goes past those who came earlier, however little they weigh.
func (q *Queue[J]) join(job J, t *Ticket) *group[J] {
	q.mu.Lock()
	defer q.mu.Unlock()
	var g *group[J]
	if n := len(q.waiting); n > 0 {
		g = q.waiting[n-1]
	}
	if g == nil || len(g.jobs) > 0 && g.weight+t.weight > q.max {
		g = &group[J]{done: make(chan struct{})}
		q.waiting = append(q.waiting, g)
	}
	g.jobs = append(g.jobs, job)
	g.weight += t.weight
	if !q.working {
		q.working = true
		go q.work()
	}
	return g
}

// leave takes job out of the queue; false if its group was taken already.
func (q *Queue[J]) leave(job J) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	for _, g := range q.waiting {
		for i, j := range g.jobs {
			if j == job {
				g.jobs = slices.Delete(g.jobs, i, i+1)
				g.weight -= job.ticket().weight
				return true
			}
		}
	}
	return false
}

// work runs groups until none waits.
func (q *Queue[J]) work() {
	for {
		if q.several {
			// Those who were just answered come with what they do next, and share this
			// run. Otherwise callers fall into two halves that take turns.
			q.yield()
			q.yield()
		}
		g := q.take()
		if g == nil {
			return
		}
		q.several = len(g.jobs) > 1
		for i, j := range g.jobs {
			j.ticket().index = i
		}
		for g != nil {
			g = q.do(g)
		}
	}
}

// take returns the next group. Without one the worker is gone.
func (q *Queue[J]) take() *group[J] {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) > 0 {
		g := q.waiting[0]
		q.waiting = slices.Delete(q.waiting, 0, 1)
		if len(g.jobs) > 0 { // all may have left
			return g
		}
	}
	q.working = false
	q.idle.Broadcast()
	return nil
}

// do runs g once and returns what is left of it, nil if nothing is.
func (q *Queue[J]) do(g *group[J]) *group[J] {
	first := g.jobs[0].ticket()
	var after func()
	g.answered, after = q.run(g.jobs)
	if before := first.after; before != nil && after != nil {
		last := after
		after = func() { before(); last() }
	}
	if after != nil {
		first.after = after
	}
	if g.answered < len(g.jobs) {
		g.rest = &group[J]{jobs: g.jobs[g.answered:], done: make(chan struct{})}
	}
	close(g.done)
	return g.rest
}

// Wait returns when nothing is being run. Jobs that come later are run all the same.
func (q *Queue[J]) Wait() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.working {
		q.idle.Wait()
	}
}
