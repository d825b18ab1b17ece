package idemadmin

import (
	"context"
	"errors"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

const (
	countsAge   = 5 * time.Second // how long counts are kept at least
	countsShare = 10              // and this many times as long as it took to count

	// Counting that takes longer is given up. A page must not keep somebody waiting; a
	// program can wait.
	pageCounts = 5 * time.Second
	apiCounts  = 100 * time.Second
)

// counts keeps the last Stats, since counting walks over the whole store. One request
// counts at a time, and those that wait for it get what it found.
type counts struct {
	store *idem.Store
	turn  chan struct{} // guards what follows
	until time.Duration // elapsed time of the store's clock until which the answer is kept
	wait  time.Duration // 0: the answer is new; else how long one was waited for in vain
	stats operator.Stats
	err   error
}

func (c *counts) init(store *idem.Store) {
	c.store, c.turn, c.until = store, make(chan struct{}, 1), -1
}

// get returns counts that are new enough. It takes no longer than wait, and if that is not
// enough it returns older ones, if there are any.
func (c *counts) get(ctx context.Context, wait time.Duration) (operator.Stats, error) {
	bounded, cancel := context.WithTimeout(ctx, wait)
	defer cancel()
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-bounded.Done():
		return operator.Stats{}, bounded.Err()
	}
	clock := c.store.Options().Clock
	at, began := clock.Now()
	if began < c.until && (c.wait == 0 || wait <= c.wait) {
		return c.stats, c.err
	}
	stats, err := c.store.Stats(bounded)
	_, ended := clock.Now()
	if ctx.Err() != nil { // the request is gone; that says nothing about the store
		return operator.Stats{}, ctx.Err()
	}
	c.until, c.wait, c.err = ended+max(countsAge, countsShare*(ended-began)), 0, err
	switch {
	case err == nil:
		c.stats = operator.StatsOf(stats, at)
	case errors.Is(err, context.DeadlineExceeded):
		c.wait = wait
		if !c.stats.At.IsZero() { // they say when they were counted
			c.err = nil
		}
	}
	return c.stats, c.err
}
