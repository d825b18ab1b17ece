package idemprom

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/idemkv/idem"
)

// Watch has m show the state of store and count its records. store should be the one
// whose Observer is m.Observe. A later call replaces the store, for instance by the one
// that was opened after it broke; what m has counted goes on. Without a store, Watch(nil),
// only what was counted is shown.
//
// Scrapes ask the store in goroutines of their own, one for its health and one for a
// walk. Each ends with the store's answer; a closed store answers at once.
func (m *Metrics) Watch(store *idem.Store) {
	if store == nil {
		m.watched.Store(nil)
		return
	}
	clock := store.Options().Clock
	since, _ := clock.Now()
	w := &watched{clock: clock, since: since}
	w.health.ask = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), m.opts.ScrapeWait)
		defer cancel()
		return caught(func() error { return store.Health(ctx) })
	}
	w.walk.ask = func() walk {
		last := w.walk.answer()
		began, from := w.clock.Now()
		var stats idem.Stats
		err := caught(func() (err error) { stats, err = store.Stats(context.Background()); return err })
		_, until := w.clock.Now()
		now := walk{from: from, took: until - from, none: errors.Is(err, idem.ErrInvalid)}
		if err == nil {
			now.found = &counts{stats, began, now.took}
		} else if last != nil {
			now.found = last.found
		}
		return now
	}
	m.watched.Store(w)
}

// caught returns ask's error, or says that ask panicked. Nobody else would catch a panic
// of an engine on a goroutine of a scrape, and it would end the process.
func caught(ask func() error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("idemprom: the store panicked: %v", v)
		}
	}()
	return ask()
}

// watched is a store that is asked what its events do not tell.
type watched struct {
	clock  idem.Clock
	since  time.Time // when Watch was called
	health question[error]
	walk   question[walk]
}

// walk is a walk over the records.
type walk struct {
	from  time.Duration // when it began, by the clock's elapsed time
	took  time.Duration
	none  bool    // the engine cannot list its records
	found *counts // by the last walk that did not fail; nil if none did
}

// counts is what a walk found.
type counts struct {
	stats idem.Stats
	began time.Time
	took  time.Duration
}

// walkShare bounds the share of time that goes into walks, as one part of so many.
const walkShare = 20

// due reports whether the records should be counted again after last.
func (w *watched) due(last *walk, interval time.Duration) bool {
	if interval < 0 || last == nil {
		return interval >= 0
	}
	if last.none {
		return false
	}
	_, now := w.clock.Now()
	return now-last.from >= max(interval, walkShare*last.took)
}

// question is put to a store in a goroutine of its own, so the store may take its time
// and a scrape need not wait for it. It is put once at a time: an answer that does not
// come holds up one goroutine, however often it is asked for.
type question[T any] struct {
	ask func() T

	mu      sync.Mutex
	pending chan struct{} // closed when the answer is there; nil when none is awaited
	last    *T            // the last answer
}

// put puts the question if due agrees, unless it has been put and is not answered yet.
// It returns a channel that is closed once no answer is awaited.
func (q *question[T]) put(due func(last *T) bool) <-chan struct{} {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.pending != nil {
		return q.pending
	}
	answered := make(chan struct{})
	if !due(q.last) {
		close(answered)
		return answered
	}
	q.pending = answered
	go func() {
		answer := q.ask()
		q.mu.Lock()
		q.last, q.pending = &answer, nil
		q.mu.Unlock()
		close(answered)
	}()
	return answered
}

// answer returns the last answer, nil if there was none yet.
func (q *question[T]) answer() *T {
	q.mu.Lock()
	defer q.mu.Unlock()
	return q.last
}

// await reports whether the answer has come. It waits for it until late is closed.
func await(answered, late <-chan struct{}) bool {
	select {
	case <-answered:
	case <-late:
	}
	select { // both may have happened
	case <-answered:
		return true
	default:
		return false
	}
}

// collect asks the store and sends what it says within m.opts.ScrapeWait.
func (w *watched) collect(ch chan<- prometheus.Metric, m *Metrics) {
	health := w.health.put(func(*error) bool { return true })
	walked := w.walk.put(func(last *walk) bool { return w.due(last, m.opts.StatsInterval) })
	late := make(chan struct{})
	timer := time.AfterFunc(m.opts.ScrapeWait, func() { close(late) })
	defer timer.Stop()
	await(walked, late)
	state := "unknown"
	if await(health, late) {
		state = stateOf(*w.health.answer())
	}
	m.asked.sendState(ch, state)
	switch last := w.walk.answer(); {
	case last != nil && last.found != nil:
		m.asked.sendCounts(ch, last.found)
	case m.opts.StatsInterval >= 0 && (last == nil || !last.none):
		m.asked.sendStatsTimestamp(ch, w.since) // none has succeeded yet
	}
}

// states are the values of the label of idem_store_state.
var states = [...]string{"open", "full", "draining", "read_only", "broken", "unknown"}

// stateOf names what Store.Health answered.
func stateOf(err error) string {
	switch {
	case err == nil:
		return "open"
	case errors.Is(err, idem.ErrClosed): // before broken, which it outranks
		return "draining"
	case errors.Is(err, idem.ErrBroken):
		return "broken"
	case errors.Is(err, idem.ErrFull):
		return "full"
	case errors.Is(err, idem.ErrInvalid):
		return "read_only"
	}
	return "unknown"
}
