package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/idemkv/idem/consume"
)

// queue is a broker that delivers at least once: in no order, again when it gets no
// answer in time, and with answers that get lost.
type queue struct {
	hidden time.Duration // how long it waits for an answer
	lost   float64       // share of the answers that get lost

	mu        sync.Mutex
	waiting   map[delivery]entry
	next      delivery
	delivered int
	parked    map[string]consume.Reason
	changed   chan struct{} // closed, and made anew, with every change
}

// delivery is a receipt: good for one delivery of a message.
type delivery int

type entry struct {
	message
	visible time.Time
}

func newQueue(hidden time.Duration, lost float64) *queue {
	return &queue{hidden: hidden, lost: lost, waiting: map[delivery]entry{}, parked: map[string]consume.Reason{}, changed: make(chan struct{})}
}

// Send puts a message into the queue.
func (q *queue) Send(m message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.put(m, 0)
}

// put is called with the lock.
func (q *queue) put(m message, hidden time.Duration) delivery {
	q.next++
	q.waiting[q.next] = entry{m, time.Now().Add(hidden)}
	q.change()
	return q.next
}

// change is called with the lock.
func (q *queue) change() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// Receive waits for a message that is visible.
func (q *queue) Receive(ctx context.Context) (delivery, message, error) {
	for {
		d, m, wait, changed := q.receive()
		if d != 0 {
			return d, m, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return 0, m, ctx.Err()
		}
	}
}

// receive returns a message, or how long to wait for one.
func (q *queue) receive() (d delivery, m message, wait time.Duration, changed chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait = time.Hour
	for old, e := range q.waiting { // in any order
		left := time.Until(e.visible)
		if left <= 0 {
			delete(q.waiting, old)
			q.delivered++
			return q.put(e.message, q.hidden), e.message, 0, nil
		}
		wait = min(wait, left)
	}
	return 0, m, wait, q.changed
}

// Ack removes the message of a delivery. Now and then it gets lost on its way.
func (q *queue) Ack(d delivery) error { return q.answer(d, func(message) {}) }

// Return has the message delivered again, not before after.
func (q *queue) Return(d delivery, after time.Duration) error {
	return q.answer(d, func(m message) { q.put(m, after) })
}

// Park puts the message aside.
func (q *queue) Park(d delivery, why consume.Reason, _ error) error {
	return q.answer(d, func(m message) { q.parked[m.ID] = why })
}

func (q *queue) answer(d delivery, then func(message)) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	e, ok := q.waiting[d]
	if !ok {
		return nil // too late, as brokers are wont to say nothing
	}
	if rand.Float64() < q.lost {
		return nil
	}
	delete(q.waiting, d)
	then(e.message)
	q.change()
	return nil
}

// Until waits until so many deliveries have been made, or nothing is left to deliver.
func (q *queue) Until(ctx context.Context, deliveries int) error {
	for {
		q.mu.Lock()
		reached, changed := q.delivered >= deliveries || len(q.waiting) == 0, q.changed
		q.mu.Unlock()
		if reached {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}
