package main

import (
	"context"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/robustness/oracle"
)

// run is one engine's soak.
type run struct {
	config
	subject oracle.Subject
	store   *idem.Store
	meter   *meter
	trouble trouble
	limiter *rate.Limiter

	left     atomic.Int64  // calls of this round, when calls are counted
	fence    atomic.Uint64 // the highest granted
	effects  atomic.Int64  // acknowledged
	recent   recent        // finished keys, most of them live
	lapsing  ring[open]    // claims that nobody will settle
	released ring[open]
	kept     ring[string] // finished in the warm-up, with a retention past the run
	warm     atomic.Bool
}

// open is a claim that another attempt is to have. It was granted at some time from
// from until until, on the clock.
type open struct {
	claim       idem.Claim
	from, until time.Duration
}

const (
	keptKeys      = 500
	keptRetention = 30 * 24 * time.Hour
)

func newRun(c config) *run {
	r := &run{config: c, meter: newMeter(), limiter: newLimiter(c.rate)}
	r.recent.keep = c.retention * 4 / 3
	r.lapsing.bound, r.released.bound, r.kept.bound = 256, 64, keptKeys
	return r
}

func (r *run) now() time.Duration {
	_, elapsed := r.clock.Now()
	return elapsed
}

// newLimiter spreads the calls of all workers evenly over time; 0: as they come. What fell
// behind by more than a second is not made good: the store is slower than the rate, and a
// rush would only show as latency.
func newLimiter(perSecond float64) *rate.Limiter {
	if perSecond == 0 {
		return rate.NewLimiter(rate.Inf, 0)
	}
	burst := max(1, int(perSecond))
	l := rate.NewLimiter(rate.Limit(perSecond), burst)
	l.AllowN(time.Now(), burst) // nothing to make good yet
	return l
}

// await returns when the next call is due, or stop has ended.
func await(stop context.Context, l *rate.Limiter) {
	if l.Wait(stop) != nil { // at once, where the call is due after the end
		<-stop.Done()
	}
}

// traffic runs the workers until stop ends, or the calls of the round are used up,
// and returns when the last of them has finished what it was at.
func (r *run) traffic(stop context.Context, ws []*worker) {
	var wg sync.WaitGroup
	for _, w := range ws {
		wg.Go(func() { w.work(stop) })
	}
	wg.Wait()
}

// drive runs the whole traffic, samples it as often as was planned and judges what
// was seen.
func (r *run) drive(ctx context.Context) *report {
	p := &report{config: r.config}
	start, last := time.Now(), sample{}
	warm := time.Duration(0)
	look := func(done float64) {
		last = r.look(start, last)
		p.samples = append(p.samples, last)
		if done < warmup {
			warm = last.at
		} else {
			r.warm.Store(true)
		}
	}
	ws := make([]*worker, r.workers)
	for i := range ws {
		ws[i] = newWorker(r, i)
	}
	if r.duration == 0 {
		r.count(ctx, ws, look)
	} else {
		r.time(ctx, ws, look)
	}
	p.verdicts = verdicts(p.samples, warm+1)
	p.calls, _ = r.meter.take()
	p.latency = r.meter.all()
	return p
}

// count runs the workers in rounds of so many calls, and looks after each.
func (r *run) count(ctx context.Context, ws []*worker, look func(done float64)) {
	for i := range r.samples {
		r.left.Store(r.calls / int64(r.samples))
		r.traffic(ctx, ws)
		if ctx.Err() != nil {
			return
		}
		r.between()
		look(float64(i+1) / float64(r.samples))
	}
}

// time runs the workers for so long, and looks as the time goes by.
func (r *run) time(ctx context.Context, ws []*worker, look func(done float64)) {
	ctx, cancel := context.WithTimeout(ctx, r.duration)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.traffic(ctx, ws)
	}()
	start, tick := time.Now(), time.NewTicker(r.duration/time.Duration(r.samples))
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			look(float64(time.Since(start)) / float64(r.duration))
		case <-done:
			return
		}
	}
}

// goOn reports whether there is anything left to do in this round.
func (r *run) goOn(stop context.Context) bool {
	return stop.Err() == nil && !r.trouble.much() && (r.duration > 0 || r.left.Load() > 0)
}

// trouble is what must not happen and did.
type trouble struct {
	mu    sync.Mutex
	count int
	said  []string
}

const maxTrouble = 20

func (t *trouble) add(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.count++; len(t.said) < maxTrouble {
		t.said = append(t.said, fmt.Sprintf(format, args...))
	}
}

// much reports whether it is pointless to go on.
func (t *trouble) much() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.count >= maxTrouble
}
