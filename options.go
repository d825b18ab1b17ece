package idem

import (
	"context"
	"math"
	"time"
)

// Options configures a Store. The zero value is good: each zero field means its
// default. Changing options leaves stored records as they are.
type Options struct {
	// Lease of a Request that names none. Default 30 s, at least 1 ms.
	Lease time.Duration
	// Retention of a Request that names none. Default 24 h; Forever is allowed.
	Retention time.Duration
	// MaxAttempts of a Request that names none: how many claims an operation is
	// granted before it answers ErrExhausted. Default 0: unlimited.
	MaxAttempts int
	// MaxResult bounds results, reasons, notes and checkpoints, in bytes. Default
	// 1 MiB, at most 256 MiB.
	MaxResult int
	// MaxBatch bounds the requests of one ClaimMany, CompleteMany or EndMany. Default
	// 1,000.
	MaxBatch int
	// CacheBytes bounds the cache of final records in front of an engine that reads from
	// disk. Keys, results and overhead count. Default 32 MiB; negative: no cache.
	CacheBytes int64
	// SweepInterval is the shortest time between two runs of the background sweep. It
	// keeps an idle or lightly used store from waking for each record. Default 1 s;
	// negative: no background sweep.
	SweepInterval time.Duration
	// SweepSlice is how many records one commit of the background sweep looks at.
	// Default 256.
	SweepSlice int
	// LapseOnOpen: claims granted before this opening, and not extended since, count as
	// lapsed. Set it if the work runs only in the process that opens the store: the
	// holders of those claims are then gone.
	LapseOnOpen bool
	// Stall is how long one commit may take. A longer one means that the disk is stuck:
	// the store breaks, and callers waiting for it get ErrBroken. Time when the process
	// is stopped or the machine asleep does not count. Default 30 s; negative: no bound.
	Stall time.Duration
	// Clock tells the time. Default SystemClock().
	Clock Clock
	// Observer is told what the store did; see Event. Default nil: no events are built.
	Observer func(context.Context, Event)
}

const (
	// minLease is the shortest lease. No real work is done in less, and Lease: 30 is a
	// mistake for 30 * time.Second.
	minLease             = time.Millisecond
	defaultLease         = 30 * time.Second
	defaultRetention     = 24 * time.Hour
	defaultMaxResult     = 1 << 20
	maxMaxResult         = 256 << 20
	defaultMaxBatch      = 1000
	defaultCacheBytes    = 32 << 20
	defaultStall         = 30 * time.Second
	defaultSweepInterval = time.Second
	defaultSweepSlice    = 256
)

// withDefaults checks o and fills in what is zero.
func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Lease != 0 && o.Lease < minLease:
		return o, invalid("Options.Lease is %v; it must be at least %v", o.Lease, minLease)
	case o.Retention < 0:
		return o, invalid("Options.Retention is %v; it cannot be negative", o.Retention)
	case o.MaxAttempts < 0 || int64(o.MaxAttempts) > math.MaxUint32:
		return o, invalid("Options.MaxAttempts is %d; 0 is unlimited, at most %d", o.MaxAttempts, uint32(math.MaxUint32))
	case o.MaxResult < 0 || o.MaxResult > maxMaxResult:
		return o, invalid("Options.MaxResult is %d; it must be from 1 to %d bytes", o.MaxResult, maxMaxResult)
	case o.MaxBatch < 0:
		return o, invalid("Options.MaxBatch is %d; it cannot be negative", o.MaxBatch)
	case o.SweepSlice < 0:
		return o, invalid("Options.SweepSlice is %d; it cannot be negative", o.SweepSlice)
	}
	setDefault(&o.Lease, defaultLease)
	setDefault(&o.Retention, defaultRetention)
	setDefault(&o.MaxResult, defaultMaxResult)
	setDefault(&o.MaxBatch, defaultMaxBatch)
	setDefault(&o.CacheBytes, defaultCacheBytes)
	setDefault(&o.Stall, defaultStall)
	setDefault(&o.SweepInterval, defaultSweepInterval)
	setDefault(&o.SweepSlice, defaultSweepSlice)
	if o.Clock == nil {
		o.Clock = SystemClock()
	}
	return o, nil
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Options returns the options in effect: those given to New, with defaults filled in.
func (s *Store) Options() Options { return s.opts }
