// Package groupcommit is group commit without a timer. The first job to arrive runs at
// once. Jobs that arrive while it runs wait and share the next run. A lone caller waits
// for nobody, and as soon as there are several callers they share the cost of a commit.
//
// A goroutine of the queue runs the groups; it exists only while there is work. Callers
// can therefore leave when a run hangs.
package groupcommit

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
)

// ErrStopped is returned by Do when the queue was stopped before the job had its
// answer. The job may have run, and may still be running.
var ErrStopped = errors.New("the queue was stopped")

// Job is the type constraint of a Queue: a pointer to a type that embeds Ticket.
type Job interface {
	comparable
	ticket() *Ticket
}

// Ticket is a job's place in a Queue. The zero value is ready, for one Do.
type Ticket struct {
	weight int
	index  int    // in the group, once the group was taken
	after  func() // for the job's caller to call
}

func (t *Ticket) ticket() *Ticket { return t }

// Queue groups jobs of type J.
type Queue[J Job] struct {
	run   func(jobs []J) (answered int, after func())
	max   int
	stop  <-chan struct{}
	yield func() // runtime.Gosched, except in tests

	mu      sync.Mutex
	waiting []*group[J] // in the order of arrival; only the last grows
	working bool        // there is a worker
	several bool        // the last run answered several jobs
	idle    sync.Cond
}

// group is the jobs of one run.
type group[J Job] struct {
	jobs   []J
	weight int
	done   chan struct{} // closed after the run

	// Known after the run:
	answered int       // how many of the first jobs have their answers
	rest     *group[J] // the others
}

// New returns a Queue. run gets the jobs of one group, one group at a time, and must
// not panic. It answers at least one job, or makes progress that lets a later run do
// so, and returns how many of the first jobs have their answers. The others run again
// at once, before anyone else. after, if not nil, is called by one of the callers,
// possibly while the next group is running.
//
// A group takes jobs while their weights do not exceed max, and at least one job. Once
// stop is closed, callers no longer wait.
func New[J Job](max int, stop <-chan struct{}, run func(jobs []J) (answered int, after func())) *Queue[J] {
	q := &Queue[J]{run: run, max: max, stop: stop, yield: runtime.Gosched}
	q.idle.L = &q.mu
	return q
}

// Do adds job to a group and returns nil when the job has its answer. If ctx ends
// before the job's group is taken, Do returns ctx's error, and the job has not run and
// will not. After that ctx is ignored. ErrStopped is returned when the queue is
// stopped.
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

// join adds job to the last waiting group, or to a new one if that is full. No job
// overtakes an earlier one, however light it is.
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

// leave removes job from the queue. It returns false if the job's group was taken
// already.
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

// work runs groups until none is waiting.
func (q *Queue[J]) work() {
	for {
		if q.several {
			// Yield: callers from the last group can then bring their next jobs to this
			// one. Otherwise the callers split into two halves that take turns.
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

// take returns the next group. If there is none, it ends the worker.
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

// do runs g once and returns the jobs left over, nil if there are none.
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

// Wait returns when nothing is running. Jobs that come later run anyway.
func (q *Queue[J]) Wait() {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.working {
		q.idle.Wait()
	}
}
