package consume_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

// What a handler returns, or does to its claim by itself, and what comes of it.

// returns are the ways of a handler to end, with the record and the decision that they
// lead to, without and with HoldUnknown.
var returns = map[string]struct {
	err  error
	want [2]idem.State
}{
	"nothing":         {nil, [2]idem.State{idem.Completed, idem.Completed}},
	"a plain error":   {errBank, [2]idem.State{idem.Released, idem.Held}},
	"a retryable one": {idem.Retryable(errBank), [2]idem.State{idem.Released, idem.Released}},
	"a permanent one": {idem.Permanent(errBank), [2]idem.State{idem.Failed, idem.Failed}},
	"an unknown one":  {idem.Unknown(errBank), [2]idem.State{idem.Held, idem.Held}},
	"ctx's error":     {context.Canceled, [2]idem.State{idem.Released, idem.Held}},
	"a mark, wrapped": {fmt.Errorf("bill: %w", idem.Retryable(errBank)), [2]idem.State{idem.Released, idem.Released}},
	"two marks":       {errors.Join(idem.Permanent(errBank), idem.Unknown(errBank)), [2]idem.State{idem.Held, idem.Held}},
}

// verdictsOf are the verdicts over an attempt whose record is then so, and over the next delivery
// to a handler that goes well.
var verdictsOf = map[idem.State][2]string{
	idem.Completed: {"ack: processed", "ack: duplicate"},
	idem.Failed:    {"dead: permanent", "dead: permanent"},
	idem.Held:      {"dead: held", "dead: held"},
	idem.Released:  {"retry: failed", "ack: processed"},
}

// byItself are what a handler can do with its own token.
var byItself = map[idem.State]func(context.Context, *idem.Store, idem.Token) error{
	idem.Completed: func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Complete(ctx, t, []byte("why")) },
	idem.Failed:    func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Fail(ctx, t, []byte("why")) },
	idem.Held:      func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Hold(ctx, t, []byte("why")) },
	idem.Released:  func(ctx context.Context, s *idem.Store, t idem.Token) error { return s.Release(ctx, t, []byte("why")) },
}

// holding runs f without and with HoldUnknown.
func holding(t *testing.T, f func(t *testing.T, e *env, n int, o consume.Options[message])) {
	for n, name := range []string{"runs again", "HoldUnknown"} {
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{}, func(t *testing.T, e *env) {
				o := messages()
				o.HoldUnknown = n == 1
				f(t, e, n, o)
			})
		})
	}
}

// The mark of the handler's error decides; an error without one does by HoldUnknown. What the
// handler has settled, held or released by itself stays so, whatever it returns then.
func TestMarksDecide(t *testing.T) {
	holding(t, func(t *testing.T, e *env, n int, o consume.Options[message]) {
		settles := maps.Clone(byItself)
		settles[0] = nil
		for itself, settle := range settles {
			for name, r := range returns {
				m, state, reason := message{fmt.Sprint(name, itself), ""}, itself, "why"
				if settle == nil {
					state, reason = r.want[n], fmt.Sprint(r.err)
				}
				want := verdictsOf[state]
				ctx, cancel := context.WithCancel(t.Context())
				v := e.consumer("billing", o, func(ctx context.Context, _ message) error {
					if settle != nil {
						require.NoError(t, settle(ctx, e.Store, consume.FromContext(ctx).Token()))
					}
					cancel() // which does not keep it from being found out
					return r.err
				}).Handle(ctx, m)
				assert.Equal(t, want[0], fmt.Sprint(v.Decision, ": ", v.Reason), m.id)
				assert.Equal(t, 1, v.Attempt)
				if r.err != nil || state == idem.Completed {
					assert.Equal(t, r.err, v.Err, m.id)
				} else {
					assert.ErrorContains(t, v.Err, reason, "what the record says")
				}
				rec := e.record("consume/billing/" + m.id)
				assert.Equal(t, state, rec.State, m.id)
				if settle != nil || r.err != nil {
					assert.Equal(t, reason, string(rec.Result), "the record says why")
				}

				v = e.billing(&handler{}).Handle(t.Context(), m)
				assert.Equal(t, want[1], fmt.Sprint(v.Decision, ": ", v.Reason), m.id)
				if v.Decision == consume.Dead {
					assert.ErrorIs(t, v.Err, map[idem.State]error{idem.Failed: idem.ErrFailed, idem.Held: idem.ErrHeld}[state])
					assert.ErrorContains(t, v.Err, reason, "the next delivery hears why")
				}
			}
		}
	})
}

// In a batch the same holds of each message.
func TestBatchOfSettledMessages(t *testing.T) {
	holding(t, func(t *testing.T, e *env, n int, o consume.Options[message]) {
		ends := map[string]func(context.Context) error{}
		var batch []message
		var want []string
		add := func(id, verdict string, end func(context.Context) error) {
			ends[id] = end
			batch, want = append(batch, message{id, ""}), append(want, verdict)
		}
		for state, settle := range byItself {
			for name, r := range returns {
				add(state.String()+" "+name, verdictsOf[state][0], func(ctx context.Context) error {
					return errors.Join(settle(ctx, e.Store, consume.FromContext(ctx).Token()), r.err)
				})
			}
		}
		for name, r := range returns {
			add(name, verdictsOf[r.want[n]][0], func(context.Context) error { return r.err })
		}
		c := e.consumer("billing", o, func(ctx context.Context, m message) error { return ends[m.id](ctx) })
		assert.Equal(t, want, decisions(c.HandleBatch(t.Context(), batch)))
		assert.Zero(t, e.clock.Pending())
	})
}

// A handler that releases its message in its last attempt has used that up.
func TestReleasedByItselfInTheLastAttempt(t *testing.T) {
	each(t, idem.Options{MaxAttempts: 1}, func(t *testing.T, e *env) {
		c := e.consumer("billing", messages(), func(ctx context.Context, _ message) error {
			return e.Release(ctx, consume.FromContext(ctx).Token(), []byte("no stock"))
		})
		for range 2 {
			v := c.Handle(t.Context(), m1)
			gets(t, consume.Dead, consume.Exhausted, v)
			require.ErrorIs(t, v.Err, idem.ErrExhausted)
			assert.ErrorContains(t, v.Err, "no stock")
		}
	})
}

// One that finds that it should not have begun may undo its claim: the attempt does not
// count.
func TestUnclaimedByItself(t *testing.T) {
	each(t, idem.Options{MaxAttempts: 2}, func(t *testing.T, e *env) {
		h := &handler{err: errBank}
		gets(t, consume.Retry, consume.Failed, e.billing(h).Handle(t.Context(), m1))
		v := e.consumer("billing", messages(), func(ctx context.Context, _ message) error {
			return e.Unclaim(ctx, consume.FromContext(ctx).Token())
		}).Handle(t.Context(), m1)
		gets(t, consume.Retry, consume.Failed, v)
		assert.Equal(t, 1, v.Attempt)
		h.err = nil
		gets(t, consume.Ack, consume.Processed, e.billing(h).Handle(t.Context(), m1))
	})
}

// Nor is the message put aside for an attempt that was undone, whatever the handler
// returns then: the store would grant the next one.
func TestUnclaimedByItselfInTheLastAttempt(t *testing.T) {
	for name, r := range returns {
		for max, before := range map[int]string{1: "its checkpoint is left", 2: "an attempt was before it"} {
			t.Run(name+", "+before, func(t *testing.T) {
				each(t, idem.Options{MaxAttempts: max}, func(t *testing.T, e *env) {
					for range max - 1 {
						gets(t, consume.Retry, consume.Failed, e.billing(&handler{err: errBank}).Handle(t.Context(), m1))
					}
					v := e.consumer("billing", messages(), func(ctx context.Context, _ message) error {
						op := consume.FromContext(ctx)
						require.NoError(t, op.SaveCheckpoint(ctx, []byte("half")))
						require.NoError(t, e.Unclaim(ctx, op.Token()))
						return r.err
					}).Handle(t.Context(), m1)
					gets(t, consume.Retry, consume.Failed, v)
					assert.Equal(t, max-1, v.Attempt)
					gets(t, consume.Ack, consume.Processed, e.billing(&handler{}).Handle(t.Context(), m1))
				})
			})
		}
	}
}

// Without protection the decision is the same.
func TestMarksDecideUnprotected(t *testing.T) {
	holding(t, func(t *testing.T, e *env, n int, o consume.Options[message]) {
		o.MissingID = consume.RunUnprotected
		for name, r := range returns {
			c := e.consumer("billing", o, func(context.Context, message) error { return r.err })
			v := c.Handle(t.Context(), message{"", name})
			decision, _, _ := strings.Cut(verdictsOf[r.want[n]][0], ":")
			assert.Equal(t, decision+": unprotected", fmt.Sprint(v.Decision, ": ", v.Reason), name)
			assert.Equal(t, r.err, v.Err)
		}
	})
}

// nothing is an error whose text panics if it is nil.
type nothing struct{ cause error }

func (n *nothing) Error() string { return n.cause.Error() }

// nobody is one whose cause panics, too.
type nobody struct{ nothing }

func (n *nobody) Unwrap() error { return n.cause }

// An error that is a nil pointer is an error: the message is not processed, and the
// consumer lives on.
func TestErrorThatIsANilPointer(t *testing.T) {
	holding(t, func(t *testing.T, e *env, n int, o consume.Options[message]) {
		c := e.consumer("billing", o, func(context.Context, message) error { return (*nothing)(nil) })
		state := [...]idem.State{idem.Released, idem.Held}[n]
		want := verdictsOf[state][0]
		verdicts := c.HandleBatch(t.Context(), []message{m1, {"evt-2", ""}})
		assert.Equal(t, []string{want, want}, decisions(verdicts))
		assert.Equal(t, want+": the error's text panicked", verdicts[0].String())
		rec := e.record(key(t, c, m1))
		assert.Equal(t, state, rec.State)
		assert.Equal(t, "the error's text panicked", string(rec.Result))
	})
}

// Nor is it processed if nothing at all can be learned of its error.
func TestErrorThatCannotBeLookedInto(t *testing.T) {
	holding(t, func(t *testing.T, e *env, n int, o consume.Options[message]) {
		c := e.consumer("billing", o, func(context.Context, message) error { return (*nobody)(nil) })
		func() {
			defer func() { _ = recover() }()
			c.HandleBatch(t.Context(), []message{m1, {"evt-2", ""}})
		}()
		assert.Equal(t, [...]idem.State{idem.Released, idem.Held}[n], e.record(key(t, c, m1)).State)
	})
}

// Where a lapsed lease has a message held, nobody has said why: the reason that an earlier
// attempt gave is not shown for it.
func TestHeldByALapsedLease(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		o := messages()
		o.HoldUnknown = true
		c := e.consumer("billing", o, func(context.Context, message) error { return idem.Retryable(errBank) })
		gets(t, consume.Retry, consume.Failed, c.Handle(t.Context(), m1))
		_, err := e.Claim(t.Context(), idem.Request{Key: key(t, c, m1), HoldUnknown: true, Fingerprint: idem.FingerprintOf([]byte(m1.body))})
		require.NoError(t, err)
		e.clock.Advance(lease)
		v := c.Handle(t.Context(), m1)
		gets(t, consume.Dead, consume.Held, v)
		assert.Equal(t, idem.ErrHeld, v.Err)
	})
}
