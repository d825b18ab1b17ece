// Package brokers shows package consume behind three kinds of broker, a file each. Kafka
// commits the offset up to which a partition is processed, RabbitMQ wants an answer to each
// delivery, and SQS delivers again what was not deleted in time. Copy the file that you
// need, and this one.
//
// Only one process can have a store open. Messages that the broker delivers to another
// process meet another store: see docs/CONSUMERS.md.
package brokers

import (
	"context"
	"errors"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

// delay is how long to wait before a message is handled again: until the attempt in its way
// has ended, or a time that doubles with each attempt.
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

// fatal returns the errors that end the worker: a closed store answers nothing more, and a
// broken one nothing until it is opened again.
func fatal(v consume.Verdict) error {
	if errors.Is(v.Err, idem.ErrBroken) || errors.Is(v.Err, idem.ErrClosed) {
		return v.Err
	}
	return nil
}
