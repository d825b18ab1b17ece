package main

import (
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/idemkv/idem/consume"
)

// broker is a queue that delivers at least once: in no order, again when it gets no answer
// in time, and with answers that get lost.
type broker struct {
	hidden time.Duration // how long it waits for an answer
	lost   float64       // share of the answers that get lost

	mu        sync.Mutex
	waiting   map[int]entry // by tag, a new one with each delivery
	tag       int
	delivered int
	parked    map[string]consume.Reason
	changed   chan struct{} // closed, and made anew, with every change
}

type entry struct {
	message
	visible time.Time
}

func newBroker(hidden time.Duration, lost float64) *broker {
	return &broker{hidden: hidden, lost: lost, waiting: map[int]entry{}, parked: map[string]consume.Reason{}, changed: make(chan struct{})}
}

func (q *broker) Send(id string, body string) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.put(message{ID: id, Body: []byte(body)}, 0)
}

// put is called with the lock.
func (q *broker) put(m message, hidden time.Duration) message {
	q.tag++
	m.Tag = q.tag
	q.waiting[m.Tag] = entry{m, time.Now().Add(hidden)}
	q.change()
	return m
}

// change is called with the lock.
func (q *broker) change() {
	close(q.changed)
	q.changed = make(chan struct{})
}

// Receive waits for a message that is visible.
func (q *broker) Receive(ctx context.Context) (message, error) {
	for {
		m, wait, changed := q.receive()
		if m.Tag != 0 {
			return m, nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-changed:
		case <-ctx.Done():
		}
		timer.Stop()
		if ctx.Err() != nil {
			return m, ctx.Err()
		}
	}
}

// receive returns a message, or how long to wait for one.
func (q *broker) receive() (m message, wait time.Duration, changed chan struct{}) {
	q.mu.Lock()
	defer q.mu.Unlock()
	wait = time.Hour
	for old, e := range q.waiting { // in any order
		left := time.Until(e.visible)
		if left <= 0 {
			delete(q.waiting, old)
			q.delivered++
			return q.put(e.message, q.hidden), 0, nil
		}
		wait = min(wait, left)
	}
	return m, wait, q.changed
}

func (q *broker) Ack(m message) error { return q.answer(m, func() {}) }

func (q *broker) Return(m message, after time.Duration) error {
	return q.answer(m, func() { q.put(m, after) })
}

func (q *broker) Park(m message, why consume.Reason) error {
	return q.answer(m, func() { q.parked[m.ID] = why })
}

func (q *broker) answer(m message, then func()) error {
	q.mu.Lock()
	defer q.mu.Unlock()
	if _, ok := q.waiting[m.Tag]; !ok || rand.Float64() < q.lost {
		return nil // too late, or lost: nobody is told
	}
	delete(q.waiting, m.Tag)
	then()
	q.change()
	return nil
}

// Until waits until so many deliveries have been made, or nothing is left to deliver.
func (q *broker) Until(ctx context.Context, deliveries int) error {
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
