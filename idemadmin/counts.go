package idemadmin

import (
	"context"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

const (
	countsAge   = 5 * time.Second  // how long counts are kept at least
	countsShare = 10               // and this many times as long as it took to count
	countsWait  = 10 * time.Second // counting that takes longer is given up
)

// counts keeps the last Stats, since counting walks over the whole store. One request
// counts at a time, and those that wait for it get what it found.
type counts struct {
	store *idem.Store
	turn  chan struct{} // guards what follows
	good  bool          // there is an answer
	until time.Duration // elapsed time of the store's clock until which it is good
	stats operator.Stats
	err   error
}

func (c *counts) init(store *idem.Store) {
	c.store, c.turn = store, make(chan struct{}, 1)
}

func (c *counts) get(ctx context.Context) (operator.Stats, error) {
	select {
	case c.turn <- struct{}{}:
		defer func() { <-c.turn }()
	case <-ctx.Done():
		return operator.Stats{}, ctx.Err()
	}
	clock := c.store.Options().Clock
	at, began := clock.Now()
	if c.good && began < c.until {
		return c.stats, c.err
	}
	bounded, cancel := context.WithTimeout(ctx, countsWait)
	defer cancel()
	stats, err := c.store.Stats(bounded)
	_, ended := clock.Now()
	if ctx.Err() != nil { // the request is gone; that says nothing about the store
		return operator.Stats{}, ctx.Err()
	}
	c.good, c.stats, c.err = true, operator.StatsOf(stats, at), err
	c.until = ended + max(countsAge, countsShare*(ended-began))
	return c.stats, c.err
}
