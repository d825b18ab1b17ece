// Package commit is group commit without a timer: the first caller to arrive leads
// and commits at once; those who arrive while it does form the next group, led by
// one of them. A lone caller waits for nobody, and callers share what a commit
// costs as soon as there are several: just after a commit of several, the next
// leader lets those whom it answered come back first (gather).
package commit

import (
	"context"
	"runtime"
	"sync"
	"time"
)

// Queue groups jobs of type J.
type Queue[J comparable] struct {
	run    func(jobs []J) (after func())
	max    int
	leader chan struct{} // holds a token while somebody leads
	last   last          // the leader's
	hasty  int           // the leader's: groups that are not gathered for
	yield  func()        // runtime.Gosched, but in tests

	mu      sync.Mutex
	forming *group[J]
}

// group is the jobs of one commit.
type group[J comparable] struct {
	jobs   []J
	weight int
	full   bool          // somebody was turned away
	taken  chan struct{} // closed when it grows no more: its leader took it, or all left
	done   chan struct{} // closed when its jobs have their answers
}

// New returns a Queue. run gets the jobs of one group, one group at a time, and
// must not panic; what it returns, if not nil, is called afterwards by the same
// goroutine, when the next group may be running. A group takes jobs until their
// weights exceed max, and at least one.
func New[J comparable](max int, run func(jobs []J) (after func())) *Queue[J] {
	return &Queue[J]{run: run, max: max, leader: make(chan struct{}, 1), yield: runtime.Gosched, forming: newGroup[J]()}
}

func newGroup[J comparable]() *group[J] {
	return &group[J]{taken: make(chan struct{}), done: make(chan struct{})}
}

// Do puts job into a group and returns nil when the group has been run. It
// returns ctx's error if ctx ended before the job's group was taken or its caller
// led: the job is then in no group. Afterwards ctx is not looked at.
func (q *Queue[J]) Do(ctx context.Context, job J, weight int) error {
	g, err := q.join(ctx, job, weight)
	if err != nil {
		return err
	}
	select {
	case <-g.done:
		return nil
	case q.leader <- struct{}{}:
		q.lead(g)
		return nil
	case <-ctx.Done():
	}
	if q.leave(g, job, weight) {
		return ctx.Err()
	}
	<-g.done
	return nil
}

// join adds job to the group that is forming, or waits until that has been taken
// if it is full: a queue holds one group and no more.
func (q *Queue[J]) join(ctx context.Context, job J, weight int) (*group[J], error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		q.mu.Lock()
		g := q.forming
		if len(g.jobs) == 0 || g.weight+weight <= q.max {
			g.jobs = append(g.jobs, job)
			g.weight += weight
			q.mu.Unlock()
			return g, nil
		}
		g.full = true
		q.mu.Unlock()
		select {
		case <-g.taken:
		case <-ctx.Done():
		}
	}
}

// leave takes job out of its group; false if the group was taken already.
func (q *Queue[J]) leave(g *group[J], job J, weight int) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.forming != g {
		return false
	}
	for i, j := range g.jobs {
		if j == job {
			g.jobs = append(g.jobs[:i], g.jobs[i+1:]...)
			g.weight -= weight
			break
		}
	}
	if len(g.jobs) == 0 {
		// Nobody is left to lead g, and some may wait for it to be taken.
		q.forming = newGroup[J]()
		close(g.taken)
	}
	return true
}

// lead runs the group that formed, unless g, the caller's own, was run by another
// leader meanwhile. A group not yet run when the token is had is the one forming:
// only holders of the token take groups, and they run what they take.
func (q *Queue[J]) lead(g *group[J]) {
	after := func() func() {
		defer func() { <-q.leader }()
		select {
		case <-g.done:
			return nil
		default:
		}
		q.gather(g)
		q.mu.Lock()
		q.forming = newGroup[J]()
		q.mu.Unlock()
		close(g.taken)
		defer close(g.done)
		defer q.ran(g, time.Now())
		return q.run(g.jobs)
	}()
	if after != nil {
		after()
	}
}
