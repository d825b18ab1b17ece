package commit

import "time"

// last is what is known of the group that ran before.
type last struct {
	jobs   int           // it had
	took   time.Duration // to run
	expect int           // as many as it answered, and as many as waited then
	ended  time.Time
}

// How long a leader gathers: until all are back who were just answered, or nobody has
// come for a moment, or a part of the time has passed that the last commit took. The
// limits are looked at after each yield.
//
// Measured against two yields and no more, on 2 processors. Callers in a loop on Pebble:
// 16 shared a commit by 14.1 to 14.9 instead of 11.3, and a claim and completion took
// 0.92 and 0.97 of the time (9 and 11 interleaved runs of each, medians), 64 by 45 to 47
// instead of 42; 16 on bolt by 15.3 to 15.9 instead of 14; 256 as before. Arrivals on a
// schedule, 8,000 to 24,000 a second: no difference beyond the noise, but 1.1 to 1.2 times
// the median latency without gatherWorth, because who was answered was waited for in vain.
const (
	// gatherQuiet is the moment. gatherYields is its length where time stands still,
	// which is so in tests.
	gatherQuiet  = 40 * time.Microsecond
	gatherYields = 512
	// gatherShare is the part of the last commit's time that gathering takes at most.
	gatherShare = 4
	// gatherWorth is the part of those answered, one in so many, who may be missing when
	// gathering ends. If more are, gatherAgain groups go without.
	gatherWorth = 3
	gatherAgain = 5
)

// gather lets those run whom the last group has just answered: they come with what they
// do next. Otherwise callers fall into two halves that take turns, and share half as
// much. After a commit of one it waits for nobody, nor when the last commit is longer
// ago than it took. And where callers are others
// each time, so that who was answered does not come back, it only yields, and tries
// again later.
func (q *Queue[J]) gather(g *group[J]) {
	start := time.Now()
	if q.last.jobs <= 1 || start.Sub(q.last.ended) > q.last.took {
		return
	}
	if q.hasty > 0 {
		q.hasty--
		q.yield()
		q.yield()
		return
	}
	came, size := start, 0
	for fruitless := 0; fruitless < gatherYields; fruitless++ {
		q.yield()
		q.mu.Lock()
		jobs, full := len(g.jobs), g.full
		q.mu.Unlock()
		now := time.Now()
		if full || jobs >= q.last.expect || now.Sub(start) > q.last.took/gatherShare {
			return
		}
		if jobs > size {
			came, fruitless = now, 0
		}
		if size = jobs; now.Sub(came) > gatherQuiet {
			break
		}
	}
	if gatherWorth*(q.last.expect-size) > q.last.jobs {
		q.hasty = gatherAgain
	}
}

// ran notes what became of g, which has run since start and is not answered yet.
func (q *Queue[J]) ran(g *group[J], start time.Time) {
	q.mu.Lock()
	waiting := len(q.forming.jobs)
	q.mu.Unlock()
	now := time.Now()
	q.last = last{jobs: len(g.jobs), took: now.Sub(start), expect: waiting + len(g.jobs), ended: now}
}
