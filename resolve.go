package idem

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Resolve calls fn for each operation whose outcome somebody has to find out: those that
// are Held, and those in flight whose lease no longer holds (Record.Lapsed). fn asks, for
// example, the bank by the DownstreamKey of the operation, and settles it with
// rec.Token(): Complete, Fail, or Release if it was not done. If it cannot tell, it leaves
// the record alone. A service calls Resolve from time to time, or a tool once.
//
// Records are looked at one after the other, at most a hundred in a second; fn waits to
// make it fewer. Each is read again before fn is called. One that is settled or taken over
// in between is skipped, and so is the error of an fn that comes too late with its token.
// A lapsed attempt may still be running: fn should leave alone what has lapsed only just
// (Record.LeaseUntil).
//
// An error of fn does not stop the walk, nor does a record that cannot be read. Resolve
// returns them in the end, each with its key's hash; errors.Is finds the causes of the
// first hundred. The end of ctx stops it, and what else Records ends with.
func Resolve(ctx context.Context, s *Store, fn func(ctx context.Context, rec Record) error) error {
	var failed unresolved
	pace := pacer{clock: s.opts.Clock, every: resolvePace}
	for rec, err := range s.Records(ctx, Filter{}) {
		switch {
		case err != nil && rec.Key == "":
			return failed.with(err)
		case err != nil:
			failed.add(s, rec.Key, err)
			continue
		case !rec.open():
			continue
		}
		if err := pace.wait(ctx, s); err != nil {
			return failed.with(err)
		}
		cur, err := s.Get(ctx, rec.Key)
		switch {
		case err == ErrNotFound || err == nil && (cur.Fence != rec.Fence || !cur.open()):
			continue
		case err != nil && s.admit(ctx) != nil:
			return failed.with(err)
		case err == nil:
			err = fn(ctx, cur)
		}
		if err != nil && !s.settledSince(ctx, cur, err) {
			failed.add(s, rec.Key, err)
		}
	}
	return failed.err()
}

// open reports whether somebody has to find out how the operation ended.
func (r *Record) open() bool { return r.State == Held || r.Lapsed }

// settledSince reports whether err, of what was done with rec's token, says that somebody
// else was faster.
func (s *Store) settledSince(ctx context.Context, rec Record, err error) bool {
	if !errors.Is(err, ErrFenced) && !errors.Is(err, ErrCompleted) && !errors.Is(err, ErrFailed) {
		return false
	}
	cur, err := s.Get(context.WithoutCancel(ctx), rec.Key)
	return err == ErrNotFound || err == nil && (cur.Fence != rec.Fence || cur.State.Final() || cur.State == Released)
}

// resolvePace is the shortest time between two records.
const resolvePace = 10 * time.Millisecond

// pacer keeps a distance between calls of wait.
type pacer struct {
	clock Clock
	every time.Duration
	next  time.Duration // elapsed time
}

func (p *pacer) wait(ctx context.Context, s *Store) error {
	_, now := p.clock.Now()
	if left := p.next - now; left > 0 {
		due := make(chan struct{})
		stop := p.clock.AfterFunc(left, func() { close(due) })
		defer stop()
		select {
		case <-due:
		case <-ctx.Done():
			return ctx.Err()
		case <-s.down.c:
			return s.endedErr()
		}
		now = p.next
	}
	p.next = now + p.every
	return nil
}

// unresolved is the errors of a walk.
type unresolved struct {
	errs []error
	more int // that are not kept
}

// maxUnresolved bounds the errors that are kept.
const maxUnresolved = 100

func (u *unresolved) add(s *Store, key string, err error) {
	if len(u.errs) == maxUnresolved {
		u.more++
		return
	}
	u.errs = append(u.errs, fmt.Errorf("key %s: %w", s.KeyHash(key), err))
}

// with returns the errors so far and err, which ended the walk.
func (u *unresolved) with(err error) error {
	if len(u.errs) == 0 {
		return err
	}
	return fmt.Errorf("%w; %w", err, u)
}

func (u *unresolved) err() error {
	if len(u.errs) == 0 {
		return nil
	}
	return u
}

// Error tells the first few on one line.
func (u *unresolved) Error() string {
	const told = 5
	var b strings.Builder
	b.WriteString("idem: 1 record is not resolved")
	if n := len(u.errs) + u.more; n > 1 {
		b.Reset()
		fmt.Fprintf(&b, "idem: %d records are not resolved", n)
	}
	sep := ": "
	for _, err := range u.errs[:min(len(u.errs), told)] {
		b.WriteString(sep)
		b.WriteString(strings.ReplaceAll(errorText(err), "\n", "; ")) // one that was joined
		sep = "; "
	}
	if len(u.errs) > told {
		fmt.Fprintf(&b, "; and %d more", len(u.errs)+u.more-told)
	}
	return b.String()
}

// Unwrap returns the errors that are kept.
func (u *unresolved) Unwrap() []error { return u.errs }
