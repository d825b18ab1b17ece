package consume_test

import (
	"context"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/internal/storetest"
)

// A permanent error in the last attempt is permanent.
func TestPermanentInTheLastAttempt(t *testing.T) {
	each(t, idem.Options{MaxAttempts: 1}, func(t *testing.T, e *env) {
		c := e.billing(&handler{err: idem.Permanent(errBank)})
		gets(t, consume.Dead, consume.Permanent, c.Handle(t.Context(), m1))
		assert.Equal(t, idem.Failed, e.record(key(t, c, m1)).State)
	})
}

// A broken, closed or full store: not run, not acknowledged.
func TestStoreUnavailable(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		ruin func(s *idem.Store, b storetest.Rich)
		err  error
	}{
		"breaks at the claim": {func(_ *idem.Store, b storetest.Rich) { b.Breaking.Store(true) }, idem.ErrBroken},
		"closed":              {func(s *idem.Store, _ storetest.Rich) { _ = s.Close() }, idem.ErrClosed},
		"full": {func(s *idem.Store, _ storetest.Rich) {
			_, err := s.Claim(context.Background(), idem.Request{Key: "another"})
			if err != nil {
				panic(err)
			}
		}, idem.ErrFull},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := storetest.NewRich()
			b.Most = 1
			s := storetest.Open(t, b, idem.Options{})
			consumer, err := consume.New(s, "billing", mustNotRun, messages())
			require.NoError(t, err)
			c.ruin(s, b)
			for range 2 {
				v := consumer.Handle(t.Context(), m1)
				gets(t, consume.Retry, consume.Unavailable, v)
				require.ErrorIs(t, v.Err, c.err)
			}
		})
	}
}

// A handler hears when its claim is lost, however long it has kept it until then, and its
// verdict says how it ended as well.
func TestHeartbeat(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		v := e.consumer("billing", messages(), func(ctx context.Context, _ message) error {
			op := consume.FromContext(ctx)
			for range 10 {
				e.clock.BlockUntil(1)
				until := e.record(op.Token().Key).LeaseUntil
				e.clock.Advance(lease / 3)
				for e.record(op.Token().Key).LeaseUntil.Equal(until) {
					runtime.Gosched()
				}
			}
			assert.NoError(t, ctx.Err())
			require.NoError(t, e.Forget(t.Context(), idem.Token{Key: op.Token().Key}))
			e.clock.BlockUntil(1)
			e.clock.Advance(lease / 3)
			<-ctx.Done()
			assert.Equal(t, idem.ErrFenced, context.Cause(ctx))
			return ctx.Err()
		}).Handle(t.Context(), m1)
		gets(t, consume.Retry, consume.Unrecorded, v)
		require.ErrorIs(t, v.Err, idem.ErrFenced)
		require.ErrorIs(t, v.Err, context.Canceled, "how the handler ended is told too")
		assert.Zero(t, e.clock.Pending(), "no heartbeat goes on")
	})
}

// Where the claim was lost or the store broke under the handler, nothing is acknowledged:
// the attempt that has the claim now decides.
func TestUnrecorded(t *testing.T) {
	t.Parallel()
	for how, ruin := range map[error]func(*testing.T, *idem.Store, storetest.Rich, idem.Token){
		idem.ErrBroken: func(_ *testing.T, _ *idem.Store, b storetest.Rich, _ idem.Token) { b.Breaking.Store(true) },
		idem.ErrFenced: func(t *testing.T, s *idem.Store, _ storetest.Rich, token idem.Token) {
			require.NoError(t, s.Forget(t.Context(), idem.Token{Key: token.Key}))
		},
	} {
		for name, ends := range map[string]error{
			"nil": nil, "error": errBank, "permanent": idem.Permanent(errBank), "unknown": idem.Unknown(errBank),
		} {
			t.Run(fmt.Sprint(how, ", ", name), func(t *testing.T) {
				t.Parallel()
				b := storetest.NewRich()
				s := storetest.Open(t, b, idem.Options{})
				c, err := consume.New(s, "billing", func(ctx context.Context, _ message) error {
					ruin(t, s, b, consume.FromContext(ctx).Token())
					return ends
				}, messages())
				require.NoError(t, err)
				v := c.Handle(t.Context(), m1)
				gets(t, consume.Retry, consume.Unrecorded, v)
				require.ErrorIs(t, v.Err, how)
				if ends != nil {
					require.ErrorIs(t, v.Err, ends)
				}
			})
		}
	}
}

// A panic or Goexit goes on. What was handled is recorded, the message that ended so is
// released or held, also if ctx has ended, and the rest is as if it had not been delivered.
func TestPanicAndGoexit(t *testing.T) {
	for name, change := range map[string]func(*consume.Options[message]){
		"runs again":  func(*consume.Options[message]) {},
		"HoldUnknown": func(o *consume.Options[message]) { o.HoldUnknown = true },
		"in order":    func(o *consume.Options[message]) { o.Order = consume.StopAtRetry },
	} {
		for how, c := range map[string]struct {
			end   func()
			value any
		}{"panic": {func() { panic("boom") }, "boom"}, "Goexit": {runtime.Goexit, nil}} {
			t.Run(name+", "+how, func(t *testing.T) {
				each(t, idem.Options{}, func(t *testing.T, e *env) {
					o := messages()
					o.MissingID = consume.RunUnprotected
					change(&o)
					handle := func(batch ...message) {
						ctx, cancel := context.WithCancel(t.Context())
						defer cancel()
						consumer := e.consumer("billing", o, func(_ context.Context, m message) error {
							if m.body == "poison" {
								cancel()
								c.end()
							}
							return nil
						})
						gone := make(chan any)
						go func() {
							defer func() { gone <- recover() }()
							consumer.HandleBatch(ctx, batch)
							t.Error("HandleBatch returned")
						}()
						assert.Equal(t, c.value, <-gone)
						assert.Zero(t, e.clock.Pending())
					}
					handle(message{"1", ""}, message{"2", "poison"}, message{"3", ""}, message{"", ""}, message{"4", ""})
					assert.Equal(t, idem.Completed, e.record("consume/billing/1").State)
					want := map[bool]idem.State{false: idem.Released, true: idem.Held}[o.HoldUnknown]
					assert.Equal(t, want, e.record("consume/billing/2").State)
					e.noRecord("consume/billing/3")
					e.noRecord("consume/billing/4")
					handle(message{"5", ""}, message{"", "poison"}) // also out of one that is unprotected
					assert.Equal(t, idem.Completed, e.record("consume/billing/5").State)
				})
			})
		}
	}
}
