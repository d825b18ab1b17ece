// Package brokers shows how a consumer of package consume stands behind three kinds
// of broker: Kafka, which commits the place up to which a partition is processed;
// RabbitMQ, which wants a word on each delivery; and SQS, which delivers again what
// was not deleted in time. Copy what you need.
//
// One process has a store open. Messages that the broker delivers to another process
// meet another store: see docs/CONSUMERS.md.
package brokers

import (
	"context"
	"errors"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

// delay is how long to wait before a message is handled again: until the attempt in
// the way has ended, or a time that doubles with each attempt.
func delay(v consume.Verdict) time.Duration {
	if v.After > 0 {
		return v.After
	}
	return min(100*time.Millisecond<<min(v.Attempt, 10), 30*time.Second)
}

// pause waits for d, or for the end of ctx.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// fatal returns the error over which to end the worker: a store that is closed, or
// broken until it is opened again, answers nothing more.
func fatal(v consume.Verdict) error {
	if errors.Is(v.Err, idem.ErrBroken) || errors.Is(v.Err, idem.ErrClosed) {
		return v.Err
	}
	return nil
}
