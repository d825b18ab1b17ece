package idem

import (
	"bytes"
	"context"
	"fmt"
	"reflect"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem/engine"
)

// Store is an idempotency store on one engine. Its methods may be called from many
// goroutines at once. Every method returns ErrClosed after Close and ErrBroken after a
// failed commit. If ctx ends before the operation has joined a commit, the method
// returns ctx's error; from then on it returns that commit's answer. Methods that
// settle a claim (Complete, CompleteMany, Fail, Release, Unclaim, Hold, End and EndMany)
// ignore the end of ctx, because the work is done whatever became of its caller.
// Options.Stall bounds them.
//
// A commit waits for its same-commit function, so the function must not call the store.
// If it does so with the context it was given, the call gets ErrInvalid at once.
type Store struct {
	handle
	lifecycle
	backend engine.Backend
	opts    Options
	time    *timeline
	tracker *tracker
	direct  bool // backend reads need no cache and may overlap Close

	readOnly error // what every change gets if the engine is open for reading only; nil if not

	leasesFrom uint64      // leases of earlier openings have lapsed
	effects    atomic.Bool // there have been same-commit functions

	imports   sync.Mutex  // held by Import
	importing atomic.Bool // an import has begun and not ended, perhaps in an earlier opening

	swept atomic.Pointer[engine.Due] // the last place that a sweep took; nil: begin at the first

	commits, commitOps atomic.Uint64
}

// handle lets engine.Of find the backend and exposes nothing to users.
type handle = engine.Handle

// New returns a store on b. The store then owns b: Close closes it. ErrInvalid is
// returned when b is nil or in use by another store, or when an option is out of range;
// b is then still the caller's to close.
//
// On an engine that was opened read-only the store changes nothing, not even at Close, and
// does not sweep. Every call that would change something gets ErrInvalid at once.
func New(b engine.Backend, o Options) (*Store, error) {
	if v := reflect.ValueOf(b); b == nil || v.Kind() == reflect.Pointer && v.IsNil() {
		return nil, invalid("the backend is nil; open one with memory.New, bolt.Open or pebble.Open")
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	s := &Store{handle: engine.HandleOf(b), backend: b, opts: o}
	s.lifecycle.init()
	// The engine asks for the time only when it commits. Before New returns, only the
	// caller's own writes commit, and those wait here for the timeline.
	ready := make(chan struct{})
	defer close(ready)
	binding, err := b.Bind(engine.Host{
		Meta:    func() engine.Meta { <-ready; return s.time.meta() },
		Broken:  s.end,
		Group:   s.groupDone,
		Clock:   o.Clock,
		Stall:   o.Stall,
		KeyHash: func(key string) string { <-ready; return s.KeyHash(key) },
		Within:  s.markCommit,
	})
	if err != nil {
		return nil, err
	}
	s.time = newTimeline(o.Clock, binding.Saved)
	s.importing.Store(s.time.unfinished.Load())
	s.direct = binding.Direct
	s.tracker = newTracker(s.time, s.direct, o.CacheBytes)
	if o.LapseOnOpen {
		s.leasesFrom = s.time.epoch
	}
	if binding.ReadOnly {
		s.readOnly = invalid("the store was opened read-only; open it for writing to change it")
		return s, nil
	}
	s.startSweeper(ready)
	return s, nil
}

// Claim asks for the right to run one attempt of the operation r.Key. Run it only if
// the error is nil. When the work ends, call Complete, Fail, Release or Hold with the
// claim's token.
//
// ErrCompleted, ErrFailed, ErrInFlight, ErrHeld and ErrExhausted are returned with the
// record in the way, ErrMismatch with the key alone. ErrTooLate is returned when there
// is no record and r.IssuedAt says that there may have been one, ErrFull when a new
// record does not fit, ErrInvalid when r is out of range, ErrCorrupt when the key's
// record cannot be read. The record's slices are shared: do not change them.
//
// If ctx ends while the claim is being committed, the claim is granted anyway. Check
// ctx before the work begins, and call Unclaim if the work will not run.
func (s *Store) Claim(ctx context.Context, r Request) (c Claim, err error) {
	var act action
	snap, now, toWall, err := s.readClaim(ctx, &r, &act)
	if err != nil { // refused without waiting for a commit
		c.Record = s.record(r.Key, disclosed(snap.entry, err), now, toWall)
		s.observeRefused(ctx, &c.Record, err)
		return c, err
	}
	op := s.newOp(r.Key, act)
	defer op.free()
	op.before = snap
	if err := s.applyClaims(ctx, op.one()); err != nil {
		return c, err
	}
	err = s.claimed(ctx, op, &c)
	return c, err
}

// readClaim fills act with the claim r and decides it by what is stored now. snap is
// what was read, at now; it is set on a refusal too. A nil error means that the claim may be
// granted and that a commit must decide it again, starting from snap.
func (s *Store) readClaim(ctx context.Context, r *Request, act *action) (snap snapshot, now engine.Instant, toWall int64, err error) {
	if err := s.admitClaim(ctx, r); err != nil {
		return snap, 0, 0, err
	}
	s.claimAction(r, act)
	now, toWall = s.time.now() // first, as in Get
	e, snap, err := s.lookup(ctx, r.Key)
	if err != nil {
		return snapshot{}, 0, 0, err
	}
	if act.issuedAt != 0 {
		act.wall, act.lostUntil = s.time.wall(now, toWall), s.time.lost(now, toWall)
	}
	if err = refuseClaim(e, act, now); err == ErrTooLate && s.importing.Load() {
		err = importing() // its record may be about to come
	}
	return snap, now, toWall, err
}

// ClaimMany claims each request on its own merits and in order, all in one commit: of
// two requests for one key the second is refused. Requests past Options.MaxBatch get
// ErrInvalid. The answers are in the order of rs.
func (s *Store) ClaimMany(ctx context.Context, rs []Request) []ClaimResult {
	out := make([]ClaimResult, len(rs))
	ops := make([]engine.Op, 0, min(len(rs), s.opts.MaxBatch))
	index := make([]int, 0, cap(ops))
	batched := make(map[string]bool, cap(ops))
	for i := range rs {
		if i >= s.opts.MaxBatch {
			out[i].Err = invalid("request %d is over Options.MaxBatch, %d; send it in another call", i+1, s.opts.MaxBatch)
			continue
		}
		var act action
		var snap snapshot
		var now engine.Instant
		var toWall int64
		var err error
		if batched[rs[i].Key] { // what is stored now is not what this request will meet
			if err = s.admitClaim(ctx, &rs[i]); err == nil {
				s.claimAction(&rs[i], &act)
			}
		} else {
			snap, now, toWall, err = s.readClaim(ctx, &rs[i], &act)
		}
		if out[i].Err = err; err != nil {
			out[i].Claim.Record = s.record(rs[i].Key, disclosed(snap.entry, err), now, toWall)
			s.observeRefused(ctx, &out[i].Claim.Record, err)
		} else {
			batched[rs[i].Key] = true
			op := s.newOp(rs[i].Key, act)
			op.before = snap
			ops = append(ops, op)
			index = append(index, i)
		}
	}
	err := s.applyClaims(ctx, ops)
	for n, i := range index {
		if err != nil {
			out[i].Err = err
		} else {
			out[i].Err = s.claimed(ctx, own(ops[n]), &out[i].Claim)
		}
		own(ops[n]).free()
	}
	return out
}

// Complete records the operation as done. result replays to every later claim of the
// key until the claim's retention ends. The store copies result.
//
// ErrFenced is returned when t is stale, ErrCompleted or ErrFailed when the claim was
// settled otherwise. ErrTooLarge is returned when result is over Options.MaxResult: the
// operation is then recorded as completed and its result dropped. Completing again with
// the same result returns nil.
func (s *Store) Complete(ctx context.Context, t Token, result []byte) error {
	act := action{kind: actComplete}
	s.setBytes(&act, result)
	return s.tokenOp(ctx, t, act)
}

// CompleteMany completes each operation on its own merits and in order, all in one
// commit, or in a few if the results are very large. The answers are in the order of
// cs. Those past Options.MaxBatch are ErrInvalid.
func (s *Store) CompleteMany(ctx context.Context, cs []Completion) []error {
	return s.settleMany(ctx, len(cs), func(i int) (Token, action, error) {
		act := action{kind: actComplete}
		s.setBytes(&act, cs[i].Result)
		return cs[i].Token, act, nil
	})
}

// settleMany applies n actions that settle claims, in one commit.
func (s *Store) settleMany(ctx context.Context, n int, get func(i int) (Token, action, error)) []error {
	out := make([]error, n)
	ops := make([]engine.Op, 0, min(n, s.opts.MaxBatch))
	index := make([]int, 0, cap(ops))
	for i := range n {
		if i >= s.opts.MaxBatch {
			out[i] = invalid("item %d is over Options.MaxBatch, %d; send it in another call", i+1, s.opts.MaxBatch)
			continue
		}
		t, act, err := get(i)
		if err == nil {
			err = s.admitToken(ctx, t, true)
		}
		if out[i] = err; err == nil {
			act.fence, act.epoch = t.Fence, s.time.epoch
			ops = append(ops, s.newTokenOp(t, act))
			index = append(index, i)
		}
	}
	err := s.apply(context.Background(), ops)
	for n, i := range index {
		if out[i] = err; err == nil {
			out[i] = s.settled(ctx, own(ops[n]))
		}
		own(ops[n]).free()
	}
	return out
}

// Fail records that the operation failed for good. reason replays with ErrFailed. The
// store copies reason. ErrFenced is returned when t is stale, ErrCompleted or ErrFailed
// when the claim was settled otherwise. ErrTooLarge is returned when reason is over
// Options.MaxResult: the failure is then recorded and its reason dropped.
func (s *Store) Fail(ctx context.Context, t Token, reason []byte) error {
	act := action{kind: actFail}
	s.setBytes(&act, reason)
	return s.tokenOp(ctx, t, act)
}

// Release gives up the claim after an attempt that failed in a retryable way. The
// operation can be claimed again at once. The checkpoint is kept. reason is for people
// reading the record, and the next claim keeps it until the record is final. The store
// copies it, up to Options.MaxResult. ErrFenced is returned when t is stale,
// ErrCompleted or ErrFailed when the claim was settled otherwise.
func (s *Store) Release(ctx context.Context, t Token, reason []byte) error {
	return s.tokenOp(ctx, t, action{kind: actRelease, bytes: bytes.Clone(s.cut(reason))})
}

// Unclaim undoes a claim whose work has not begun. The attempt does not count. A first
// attempt that saved no checkpoint leaves nothing behind. Otherwise the same request
// can claim the operation again at once. Unclaim returns nil if the claim was undone or
// released before, or its record is gone. ErrFenced is returned when t is stale,
// ErrHeld, ErrCompleted or ErrFailed when the claim was settled otherwise.
func (s *Store) Unclaim(ctx context.Context, t Token) error {
	return s.tokenOp(ctx, t, action{kind: actUnclaim})
}

// Hold records that the outcome is unknown. Claims get ErrHeld, and the record does not
// expire, until t settles it with Complete, Fail or Release. The store copies note, up
// to Options.MaxResult. ErrFenced is returned when t is stale, ErrCompleted or
// ErrFailed when the claim was settled otherwise.
func (s *Store) Hold(ctx context.Context, t Token, note []byte) error {
	return s.tokenOp(ctx, t, action{kind: actHold, bytes: bytes.Clone(s.cut(note))})
}

// Extend renews the lease to end after lease from now, and never shortens it; 0 means
// the claim's own lease. A lapsed claim that was not taken over is extended too.
// ErrFenced is returned when t is stale, ErrHeld, ErrCompleted or ErrFailed when the
// claim was settled, ErrInvalid when lease is under 1 ms.
func (s *Store) Extend(ctx context.Context, t Token, lease time.Duration) error {
	if lease != 0 && lease < minLease {
		if err := s.admitToken(ctx, t, false); err != nil {
			return err
		}
		return invalid("a lease of %v; it must be at least %v, or 0 for the claim's own", lease, minLease)
	}
	return s.tokenOp(ctx, t, action{kind: actExtend, lease: lease})
}

// Checkpoint saves point for this attempt and later ones, replacing the previous
// checkpoint. The store copies it; nil means none. ErrFenced is returned when t is
// stale, ErrHeld, ErrCompleted or ErrFailed when the claim was settled. ErrTooLarge is
// returned when point is over Options.MaxResult; nothing is then changed.
func (s *Store) Checkpoint(ctx context.Context, t Token, point []byte) error {
	if len(point) > s.opts.MaxResult {
		if err := s.admitToken(ctx, t, false); err != nil {
			return err
		}
		return fmt.Errorf("%w: a checkpoint of %d bytes, Options.MaxResult is %d; nothing was changed",
			ErrTooLarge, len(point), s.opts.MaxResult)
	}
	return s.tokenOp(ctx, t, action{kind: actCheckpoint, bytes: bytes.Clone(point)})
}

// Get returns the live record of key and never writes. ErrNotFound is returned
// when there is none or it has expired, ErrCorrupt when it cannot be read. The
// record's slices are shared: do not change them.
func (s *Store) Get(ctx context.Context, key string) (Record, error) {
	if err := s.admitKey(ctx, key); err != nil {
		return Record{}, err
	}
	// The time comes first: a record found later was live at that time, or was written
	// since. In the other order, a stalled reader could miss an Extend between the two
	// and report a live record as gone.
	now, toWall := s.time.now()
	e, _, err := s.lookup(ctx, key)
	if err == nil && !live(e, now) {
		err = ErrNotFound
	}
	if err != nil {
		return Record{}, err
	}
	return s.record(key, e, now, toWall), nil
}

// Forget removes the record of t. With a zero fence it removes any record of the key,
// even one that cannot be read. It returns nil if there is none. It is for operators: a
// forgotten operation can run again, and its tokens are stale from then on. ErrFenced
// is returned when the record belongs to another claim than t.
func (s *Store) Forget(ctx context.Context, t Token) error {
	if err := s.admitKey(ctx, t.Key); err != nil {
		return err
	}
	op := s.newOp(t.Key, action{kind: actForget, fence: t.Fence})
	defer op.free()
	if err := s.apply(ctx, op.one()); err != nil {
		return err
	}
	return s.settled(ctx, op)
}

// admit checks the store and ctx before anything else.
func (s *Store) admit(ctx context.Context) error {
	if s.ended.Load() != nil {
		return s.endedErr()
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	return s.inCommit(ctx)
}

// admitKey is admit for calls that name a key.
func (s *Store) admitKey(ctx context.Context, key string) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	return checkKey(key)
}

func (s *Store) admitClaim(ctx context.Context, r *Request) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	if s.readOnly != nil {
		return s.readOnly
	}
	if s.draining.Load() {
		return ErrClosed
	}
	return r.check()
}

// admitToken is admit for calls that pass a token. Those that settle its claim ignore
// the end of ctx.
func (s *Store) admitToken(ctx context.Context, t Token, settles bool) error {
	err := s.admit(ctx)
	if settles && err != nil && err == ctx.Err() {
		err = s.inCommit(ctx)
	}
	if err != nil {
		return err
	}
	return checkToken(t)
}

// claimAction fills act from r and the store's defaults, in the form transition takes.
// It fills act in place, because copying it would cost as much as a look-up.
func (s *Store) claimAction(r *Request, act *action) {
	act.kind = actClaim
	act.fingerprint, act.lease, act.retention, act.holdUnknown = r.Fingerprint, r.Lease, r.Retention, r.HoldUnknown
	act.maxAttempts = uint32(r.MaxAttempts)
	setDefault(&act.maxAttempts, uint32(s.opts.MaxAttempts))
	if !r.IssuedAt.IsZero() {
		act.issuedAt = max(wallNanos(r.IssuedAt), 1)
	}
	act.epoch, act.leasesFrom = s.time.epoch, s.leasesFrom
	setDefault(&act.lease, s.opts.Lease)
	setDefault(&act.retention, s.opts.Retention)
}

// setBytes gives the action its own copy of a result, or drops one that is too large.
func (s *Store) setBytes(a *action, b []byte) {
	if a.dropped = len(b) > s.opts.MaxResult; !a.dropped {
		a.bytes = bytes.Clone(b)
	}
}

// cut limits a text for people to what fits.
func (s *Store) cut(text []byte) []byte { return text[:min(len(text), s.opts.MaxResult)] }

func (s *Store) tokenOp(ctx context.Context, t Token, act action) error {
	settles := act.kind != actExtend && act.kind != actCheckpoint
	if err := s.admitToken(ctx, t, settles); err != nil {
		return err
	}
	act.fence, act.epoch = t.Fence, s.time.epoch
	op := s.newTokenOp(t, act)
	defer op.free()
	commit := ctx
	if settles {
		commit = context.Background()
	}
	if err := s.apply(commit, op.one()); err != nil {
		return err
	}
	return s.settled(ctx, op)
}

// newTokenOp is newOp for an action under the token t.
func (s *Store) newTokenOp(t Token, act action) *operation {
	op := s.newOp(t.Key, act)
	op.before = s.tracker.claimed(t)
	return op
}
