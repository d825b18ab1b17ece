package main

import (
	"context"
	"time"
)

// pace spreads calls evenly over time. One goroutine uses it.
type pace struct {
	every time.Duration // zero: as they come
	next  time.Time
}

func newPace(rate float64, workers int) pace {
	if rate == 0 {
		return pace{}
	}
	return pace{every: time.Duration(float64(workers) / rate * float64(time.Second))}
}

// wait returns when the next call is due, or ctx has ended. What fell behind by more
// than a second is not made good: the store is slower than the rate, and a rush
// would only show as latency.
func (p *pace) wait(ctx context.Context) {
	if p.every == 0 {
		return
	}
	now := time.Now()
	if p.next.IsZero() || now.Sub(p.next) > time.Second {
		p.next = now
	}
	if d := p.next.Sub(now); d > 0 {
		t := time.NewTimer(d)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
		}
	}
	p.next = p.next.Add(p.every)
}
