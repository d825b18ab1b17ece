package consume

import (
	"context"
	"fmt"
	"math"
	"time"

	"github.com/idemkv/idem"
)

// Options tells New about messages of type M. ID, MissingID and one of Body and
// Fingerprint are required; every other zero field means the default that its comment
// names. The functions may be called from many goroutines at once.
type Options[M any] struct {
	// ID returns the name of the operation that the message asks for: the same for
	// every delivery and every copy of it, another for every other message, "" if it
	// has none. Prefer the producer's ID to the broker's: if a producer sends a message
	// twice, the copies have two IDs of the broker's.
	ID func(M) string
	// MissingID is what to do with a message whose ID is "".
	MissingID MissingID
	// Body returns what the message says. The same ID with another body is a
	// Mismatch. The bytes are only read, and only while Handle runs.
	Body func(M) []byte
	// Fingerprint replaces Body if not every byte counts: if producers write JSON
	// fields in any order (idem.CanonicalJSON), or stamp each copy with the time. An
	// error makes the message Invalid. The zero Fingerprint is not compared.
	Fingerprint func(M) (idem.Fingerprint, error)
	// IssuedAt returns when the producer made the message, with what its clock may be
	// wrong by subtracted: a Kafka message's time, an SQS SentTimestamp, idem.KeyTime of
	// an ID that is a UUIDv7 or ULID. A message with no record is Dead with TooLate if it
	// is older than Retention, or than what the store has lost: it may have been
	// processed. The zero time is "unknown". Default: all are.
	IssuedAt func(M) time.Time
	// Lease is how long a claim outlives a process that died. It is extended while the
	// handler runs. Default: the store's.
	Lease time.Duration
	// Retention is how long a processed message is remembered. It must be longer than
	// the broker, or a person with a dead-letter queue, may take to deliver it again.
	// Default: the store's; idem.Forever is allowed.
	Retention time.Duration
	// HoldUnknown: if an attempt does not say how it ended, the message is held and not
	// run again until someone has settled it. That is so if the process died, the
	// handler panicked, or it returned an error without a mark. A handler that knows
	// that it has done nothing, because ctx ended for example, returns idem.Retryable.
	// Set it if the handler's effect can neither be repeated nor looked up. Each
	// message of a batch then takes two commits of its own. Default: the next delivery
	// runs the handler again.
	HoldUnknown bool
	// MaxAttempts is how often the handler is begun for a message before the message is
	// Dead with Exhausted. A message whose turn in a batch did not come has not been
	// begun. Each message of a batch then takes two commits of its own. Default: the
	// store's, which is unlimited by default.
	MaxAttempts int
	// Wait is how long one call of Handle or HandleBatch waits, in total, for messages
	// that are in flight elsewhere, on the store's clock. If the other delivery ends in
	// that time, the message is a Duplicate or Dead, or is run if it was released.
	// Otherwise, and by default at once, it is a Retry with InFlight. Waiting blocks
	// the worker, so keep it below the time after which the broker delivers again.
	Wait time.Duration
	// Order says whether a message that is not processed stops those behind it in its
	// batch. Default: AnyOrder. Handle has no order.
	Order Order
	// Group returns the group of a message, if a batch can hold several that are each
	// ordered: the Kafka partition, the SQS message group. A message then stops only
	// its own group. Default: the batch is one group.
	Group func(M) string
	// MaxRun bounds one run of the handler, on the store's clock. When it is over, the
	// handler's context is cancelled with ErrMaxRun as its cause, and the claim is no
	// longer extended. Once its lease has ended, another delivery may run the message,
	// even if this handler is still running; with HoldUnknown the message is held
	// instead. What the handler returns late is recorded if the claim is still its own.
	// Default: no bound, so a handler that hangs keeps its message forever.
	MaxRun time.Duration
}

// MissingID is a policy for messages without an ID. There is no default, because each
// choice costs something.
type MissingID uint8

const (
	// RejectMissing: the message is Dead with NoID, and not run.
	RejectMissing MissingID = iota + 1
	// DeriveMissing: the fingerprint stands in for the ID. Two messages that say the
	// same are then one, and the second is acknowledged without being run. That is right
	// if the body itself names the operation (an order number), and wrong if two equal
	// messages mean it twice ("add 1"). A message without a body is rejected.
	DeriveMissing
	// RunUnprotected: the handler runs for every delivery, duplicates included.
	RunUnprotected
)

// Consumer runs one handler for the messages of one consumer. Its methods may be
// called from many goroutines at once.
type Consumer[M any] struct {
	store  *idem.Store
	name   string
	handle func(context.Context, M) error
	opts   Options[M]
	limits idem.Options // of the store

	maxAttempts int // 0: unlimited
}

// New returns a Consumer that runs handle for messages of type M and keeps its
// records in s, which remains the caller's to close. name tells the consumers that share
// s apart: each runs a message once. If the name changes, all messages are new.
//
// What handle returns decides what becomes of the message: nil means processed, an
// idem.Permanent error "never", an idem.Unknown one "nobody knows", an idem.Retryable one
// "not now". An error without a mark counts as Retryable, or as Unknown with
// Options.HoldUnknown. FromContext gives handle its Operation.
//
// idem.ErrInvalid is returned when something required is missing, or an option is out
// of range.
func New[M any](s *idem.Store, name string, handle func(context.Context, M) error, o Options[M]) (*Consumer[M], error) {
	refuse := func(format string, args ...any) (*Consumer[M], error) {
		return nil, fmt.Errorf("%w: consume: %s", idem.ErrInvalid, fmt.Sprintf(format, args...))
	}
	switch {
	case s == nil:
		return refuse("the store is nil; open one with idem.New")
	case name == "":
		return refuse("the consumer has no name")
	case len(idem.JoinKey(name)) > maxName:
		return refuse("the consumer's name takes %d bytes in a key, at most %d are allowed", len(idem.JoinKey(name)), maxName)
	case handle == nil:
		return refuse("the handler is nil")
	case o.ID == nil:
		return refuse("Options.ID is nil; say where a message has its ID")
	case (o.Body == nil) == (o.Fingerprint == nil):
		return refuse("set one of Options.Body and Options.Fingerprint; it tells a redelivery from another message under the same ID")
	case o.MissingID < RejectMissing || o.MissingID > RunUnprotected:
		return refuse("Options.MissingID is not set; choose RejectMissing, DeriveMissing or RunUnprotected")
	case o.Lease != 0 && o.Lease < time.Millisecond: // the store would refuse every claim
		return refuse("Options.Lease is %v; it must be at least 1ms, or 0 for the store's", o.Lease)
	case o.Retention < 0 || o.MaxRun < 0 || o.Wait < 0:
		return refuse("Options.Retention is %v, Options.MaxRun %v and Options.Wait %v; none may be negative", o.Retention, o.MaxRun, o.Wait)
	case o.Order > StopAtDead:
		return refuse("Options.Order is %d; choose AnyOrder, StopAtRetry or StopAtDead", o.Order)
	case o.Group != nil && o.Order == AnyOrder:
		return refuse("Options.Group is set, and Options.Order is not; choose StopAtRetry or StopAtDead")
	case o.MaxAttempts < 0 || int64(o.MaxAttempts) > math.MaxUint32:
		return refuse("Options.MaxAttempts is %d; it must be from 1 to %d, or 0 for the store's", o.MaxAttempts, uint32(math.MaxUint32))
	}
	c := &Consumer[M]{store: s, name: name, handle: handle, opts: o, limits: s.Options(), maxAttempts: o.MaxAttempts}
	if c.maxAttempts == 0 {
		c.maxAttempts = c.limits.MaxAttempts
	}
	return c, nil
}

// maxName leaves three quarters of a key for the ID.
const maxName = idem.MaxKey / 4

// Key returns the key of the message's record in the store. Use it to settle a Held
// message, or to make the store forget one that should run again. It is
// idem.JoinKey("consume", name, ID): the records of one consumer share a prefix with each
// other and with no others. ErrNoID is returned when the message has no ID and gets none
// from DeriveMissing, idem.ErrInvalid when the key would be too long. Other errors are
// those of Options.Fingerprint.
func (c *Consumer[M]) Key(m M) (string, error) {
	r, _, err := c.request(m)
	return r.Key, err
}

// request returns what to claim for m. If err is not nil, reason says why there is nothing
// to claim: NoID, Invalid, or Unprotected for a message that runs without a claim.
func (c *Consumer[M]) request(m M) (r idem.Request, reason Reason, err error) {
	id := c.opts.ID(m)
	if id == "" && c.opts.MissingID == RunUnprotected {
		return r, Unprotected, ErrNoID
	}
	var empty bool
	if c.opts.Fingerprint == nil {
		body := c.opts.Body(m)
		r.Fingerprint, empty = idem.FingerprintOf(body), len(body) == 0
	} else if r.Fingerprint, err = c.opts.Fingerprint(m); err != nil {
		return r, Invalid, fmt.Errorf("idem: consumer %s: no fingerprint of the message: %w", c.name, err)
	} else {
		empty = r.Fingerprint.IsZero()
	}
	switch {
	case id != "":
		r.Key = idem.JoinKey("consume", c.name, id)
	case c.opts.MissingID == DeriveMissing && !empty:
		// It has one part more than a key with an ID, so the two never collide.
		r.Key = idem.JoinKey("consume", c.name, "content", idem.ContentKey(r.Fingerprint[:]))
	default:
		return r, NoID, ErrNoID
	}
	if len(r.Key) > idem.MaxKey {
		err := fmt.Errorf("%w: consumer %s: the message's ID makes a key of %d bytes, at most %d are allowed; let Options.ID hash it",
			idem.ErrInvalid, c.name, len(r.Key), idem.MaxKey)
		r.Key = ""
		return r, Invalid, err
	}
	r.Lease, r.Retention, r.HoldUnknown = c.opts.Lease, c.opts.Retention, c.opts.HoldUnknown
	r.MaxAttempts = c.opts.MaxAttempts
	if c.opts.IssuedAt != nil {
		r.IssuedAt = c.opts.IssuedAt(m)
	}
	return r, 0, nil
}
