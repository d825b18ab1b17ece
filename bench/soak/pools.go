package main

import (
	"sync"
	"time"
)

// ring holds the latest values that were put, up to its bound.
type ring[T any] struct {
	bound int
	mu    sync.Mutex
	kept  []T
	next  int // place of the next value in a full ring
}

func (r *ring[T]) put(v T) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.kept) < r.bound {
		r.kept = append(r.kept, v)
		return
	}
	r.kept[r.next] = v
	r.next = (r.next + 1) % r.bound
}

func (r *ring[T]) full() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.kept) >= r.bound
}

// takeIf removes and returns the first value that ok accepts, looking at all.
func (r *ring[T]) takeIf(ok func(T) bool) (v T, found bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for i, k := range r.kept {
		if ok(k) {
			last := len(r.kept) - 1
			r.kept[i] = r.kept[last]
			r.kept, r.next = r.kept[:last], 0
			return k, true
		}
	}
	return v, false
}

func (r *ring[T]) all() []T {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]T(nil), r.kept...)
}

// recent holds finished keys for some time, the oldest first.
type recent struct {
	keep time.Duration
	mu   sync.Mutex
	keys []finished
}

type finished struct {
	key string
	at  time.Duration
}

const maxRecent = 1 << 14

func (r *recent) put(key string, now time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.keys = append(r.keys, finished{key, now})
	old := max(len(r.keys)-maxRecent, 0)
	for r.keys[old].at < now-r.keep {
		old++
	}
	r.keys = r.keys[old:]
}

// pick returns one of the keys, as random says, which gets their number.
func (r *recent) pick(random func(n int) int) (key string, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.keys) == 0 {
		return "", false
	}
	return r.keys[random(len(r.keys))].key, true
}

func (r *recent) all() []finished {
	r.mu.Lock()
	defer r.mu.Unlock()
	return append([]finished(nil), r.keys...)
}
