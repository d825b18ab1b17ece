package idem_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/storetest"
)

// keeper is a stub whose commit, once it is stuck, is left behind with its operations,
// and goes on with them when their callers have long heard that it failed.
type keeper struct {
	storetest.Rich
	stuck bool
	kept  []engine.Op
	keys  []string
}

func (b *keeper) Apply(ctx context.Context, ops []engine.Op) error {
	if !b.stuck {
		return b.Rich.Apply(ctx, ops)
	}
	for _, op := range ops {
		b.kept, b.keys = append(b.kept, op), append(b.keys, op.Key())
	}
	err := fmt.Errorf("%w: %w", idem.ErrBroken, storetest.ErrDisk)
	b.Host.Broken(err)
	return err
}

// An operation that its caller has left belongs to the engine for as long as that has
// it: no other call gets it meanwhile. The race detector sees to the rest.
func TestOperationsLeftToTheEngineAreNotReused(t *testing.T) {
	t.Parallel()
	calls := map[string]func(s *idem.Store, b *keeper, t idem.Token) error{
		"Claim": func(s *idem.Store, _ *keeper, _ idem.Token) error {
			_, err := s.Claim(context.Background(), idem.Request{Key: "new"})
			return err
		},
		"ClaimMany": func(s *idem.Store, _ *keeper, _ idem.Token) error {
			return s.ClaimMany(context.Background(), []idem.Request{{Key: "new"}, {Key: "other"}})[1].Err
		},
		"a claim that was refused at first": func(s *idem.Store, b *keeper, _ idem.Token) error {
			b.Refuse = func(string) error { // until the sweep, whose commit is let through
				return fmt.Errorf("%w: the stub", idem.ErrFull)
			}
			b.stuck = false
			b.OnScan = func(string) error {
				b.OnShown = func() { b.stuck = true } // by the sweep
				return nil
			}
			_, err := s.Claim(context.Background(), idem.Request{Key: "new"})
			return err
		},
		"DoEffect": func(s *idem.Store, _ *keeper, _ idem.Token) error {
			_, _, err := s.DoEffect(context.Background(), idem.Request{Key: "new"}, neverRun)
			return err
		},
		"CompleteEffect": func(s *idem.Store, _ *keeper, t idem.Token) error {
			return s.CompleteEffect(context.Background(), t, neverRun)
		},
		"Complete": func(s *idem.Store, _ *keeper, t idem.Token) error {
			return s.Complete(context.Background(), t, []byte("r"))
		},
		"CompleteMany": func(s *idem.Store, _ *keeper, t idem.Token) error {
			return s.CompleteMany(context.Background(), []idem.Completion{{Token: t}, {Token: t}})[1]
		},
		"Forget": func(s *idem.Store, _ *keeper, t idem.Token) error { return s.Forget(context.Background(), t) },
		"Sweep": func(s *idem.Store, _ *keeper, _ idem.Token) error {
			_, err := s.Sweep(context.Background(), 10)
			return err
		},
	}
	for name, call := range calls {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := newClock()
			b := &keeper{Rich: storetest.NewRich()}
			s := open(t, b, idem.Options{SweepInterval: -1, Clock: clock, Lease: time.Hour})
			expired := mustClaim(t, s, idem.Request{Key: "expired", Retention: time.Second})
			require.NoError(t, s.Complete(t.Context(), expired.Token, nil))
			token := mustClaim(t, s, k).Token
			clock.Advance(time.Minute)
			b.stuck = true
			err := call(s, b, token)
			require.ErrorIs(t, err, idem.ErrBroken)
			require.NotEmpty(t, b.kept)

			var wg sync.WaitGroup
			wg.Go(func() { // the write comes back
				for i, op := range b.kept {
					assert.Equal(t, b.keys[i], op.Key(), "it is another call's")
					_, changed := op.Run(nil, nil)
					_ = op.Effect()
					if changed {
						op.Committed()
					}
				}
			})
			healthy := open(t, storetest.NewStub(), idem.Options{SweepInterval: -1})
			for i := range 50 {
				wg.Go(func() { // others take from the pool
					c, err := healthy.Claim(context.Background(), idem.Request{Key: fmt.Sprint(i)})
					assert.NoError(t, err)
					assert.NoError(t, healthy.Complete(context.Background(), c.Token, nil))
				})
			}
			wg.Wait()
			_ = s.Close()
		})
	}
}
