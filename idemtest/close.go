package idemtest

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var closeCases = []testCase{
	{"Shutdown", shutdown},
	{"Shutdown ends with the last lease", shutdownLapse},
	{"its ctx bounds Shutdown", shutdownBounded},
	{"closing during traffic", closeInTraffic},
	{"closing in a loop over Records", closeInRecords},
	{"everything after Close", afterClose},
}

// startShutdown begins Shutdown and returns once claims are refused. key is in flight.
func (e *env) startShutdown(ctx context.Context, key string) *pending[error] {
	e.t.Helper()
	down := async(func() error { return e.s.Shutdown(ctx) })
	e.within("Shutdown refusing claims", func() {
		for {
			if _, err := e.s.Claim(e.ctx, idem.Request{Key: key}); errors.Is(err, idem.ErrClosed) {
				return
			}
			runtime.Gosched()
		}
	})
	return down
}

func shutdown(t *testing.T, e *env) {
	s := e.open(idem.Options{Lease: time.Minute})
	e.completed(idem.Request{Key: "done"}, []byte("r"))
	tokens := map[string]idem.Token{}
	for _, key := range []string{"complete", "fail", "release", "hold", "forget", "last"} {
		tokens[key] = e.claim(idem.Request{Key: key}).Token
	}
	down := e.startShutdown(e.ctx, "last")
	_, err := s.Claim(e.ctx, idem.Request{Key: "new"})
	require.ErrorIs(t, err, idem.ErrClosed)
	require.ErrorIs(t, s.ClaimMany(e.ctx, []idem.Request{{Key: "new"}})[0].Err, idem.ErrClosed)
	require.Equal(t, "r", string(e.get("done").Result), "reading goes on")
	require.NoError(t, s.Extend(e.ctx, tokens["last"], time.Hour))
	require.NoError(t, s.Checkpoint(e.ctx, tokens["last"], []byte("p")))
	require.NoError(t, s.Complete(e.ctx, tokens["complete"], []byte("r")))
	require.NoError(t, s.Fail(e.ctx, tokens["fail"], nil))
	require.NoError(t, s.Release(e.ctx, tokens["release"], nil))
	require.NoError(t, s.Hold(e.ctx, tokens["hold"], nil))
	require.NoError(t, s.Forget(e.ctx, idem.Token{Key: "forget"}))
	settle()
	require.False(t, down.isDone(), "a claim is open")
	require.NoError(t, s.Complete(e.ctx, tokens["last"], []byte("r")))
	require.NoError(t, down.wait(e, "Shutdown"))
	_, err = s.Get(e.ctx, "done")
	require.ErrorIs(t, err, idem.ErrClosed)
	require.NoError(t, s.Shutdown(e.ctx), "again")
	if !e.h.Volatile {
		e.open(idem.Options{})
		require.Equal(t, "r", string(e.get("last").Result))
		require.Equal(t, idem.Released, e.get("release").State)
		e.absent("new")
	} else {
		e.dir = t.TempDir()
		e.open(idem.Options{})
	}
	require.NoError(t, async(func() error { return e.s.Shutdown(e.ctx) }).wait(e, "Shutdown with nothing open"))
}

func shutdownLapse(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Minute})
	e.claim(idem.Request{Key: "k"})
	long := e.claim(idem.Request{Key: "long", Lease: time.Hour}).Token
	down := e.startShutdown(e.ctx, "k")
	e.timers(1) // Shutdown's own, for the longest lease
	e.clock.Advance(time.Minute)
	settle()
	require.False(t, down.isDone(), "one lease holds")
	require.NoError(t, e.s.Extend(e.ctx, long, 2*time.Hour))
	e.clock.Advance(time.Hour)
	e.started(2) // Shutdown has looked again
	require.False(t, down.isDone(), "it was extended")
	e.clock.Advance(time.Hour)
	require.NoError(t, down.wait(e, "Shutdown past the last lease"))
}

func shutdownBounded(t *testing.T, e *env) {
	e.open(idem.Options{})
	tok := e.claim(idem.Request{Key: "k"}).Token
	ctx, cancel := context.WithCancel(e.ctx)
	down := e.startShutdown(ctx, "k")
	require.False(t, down.isDone())
	cancel()
	require.ErrorIs(t, down.wait(e, "Shutdown"), context.Canceled)
	require.ErrorIs(t, e.s.Complete(e.ctx, tok, nil), idem.ErrClosed)
	if !e.h.Volatile {
		e.open(idem.Options{})
		require.NoError(t, e.s.Complete(e.ctx, tok, nil), "the token outlives it")
	}
}

func closeInTraffic(t *testing.T, e *env) {
	const workers = 8
	for round := range 3 {
		e.dir = t.TempDir()
		s := e.open(idem.Options{SweepInterval: time.Second, Retention: time.Hour})
		e.claim(idem.Request{Key: "waited for"})
		var begun atomic.Int64
		tokens := make([][]idem.Token, workers)
		errs := make([]error, workers)
		traffic := async(func() struct{} {
			inParallel(workers, func(w int) {
				for i := 0; errs[w] == nil; i++ {
					begun.Add(1)
					key := fmt.Sprintf("%d %d", w, i)
					switch w {
					case 0:
						_, errs[w] = s.Wait(e.ctx, "waited for")
					case 1:
						for _, errs[w] = range s.Records(e.ctx, idem.Filter{}) {
							if errs[w] != nil {
								break
							}
						}
						if !e.canScan() {
							_, errs[w] = s.Get(e.ctx, "waited for")
						}
					default:
						var c idem.Claim
						if c, errs[w] = s.Claim(e.ctx, idem.Request{Key: key}); errs[w] == nil {
							tokens[w] = append(tokens[w], c.Token)
							errs[w] = s.Release(e.ctx, c.Token, nil)
						}
					}
				}
			})
			return struct{}{}
		})
		e.within("traffic", func() {
			for begun.Load() < int64(workers*(1+3*round)) {
				runtime.Gosched()
			}
		})
		closers := make([]error, 3)
		e.together(len(closers), func(i int) { closers[i] = s.Close() })
		traffic.wait(e, "traffic on a store that is closed")
		for _, err := range closers {
			require.NoError(t, err)
		}
		for w, err := range errs {
			require.ErrorIs(t, err, idem.ErrClosed, "worker %d", w)
		}
		if !e.h.Volatile {
			e.open(e.opts)
			for _, all := range tokens {
				for _, tok := range all {
					require.Equal(t, tok.Fence, e.get(tok.Key).Fence, "granted, so it is there")
				}
			}
			e.close()
		}
	}
}

func closeInRecords(t *testing.T, e *env) {
	e.open(idem.Options{})
	e.scanner()
	for i := range 50 {
		e.claim(idem.Request{Key: fmt.Sprint("k", i)})
	}
	e.within("a loop over Records of a store that is closed", func() {
		closed := false
		var last error
		for _, err := range e.s.Records(e.ctx, idem.Filter{}) {
			if last = err; err != nil {
				break
			}
			if !closed {
				closed = true
				require.NoError(t, e.s.Close(), "nothing of the engine is held across the loop body")
			}
		}
		if last != nil { // otherwise its page held all the rest
			require.ErrorIs(t, last, idem.ErrClosed)
		}
	})
}

func afterClose(t *testing.T, e *env) {
	s := e.open(idem.Options{})
	tok := e.claim(idem.Request{Key: "k"}).Token
	e.close()
	require.NoError(t, e.closeStore(s), "again")
	e.within("a closed store", func() {
		for name, err := range e.everything(tok) {
			require.ErrorIs(t, err, idem.ErrClosed, name)
		}
	})
	require.NoError(t, s.Shutdown(e.ctx))
	_, err := idem.New(e.backend, idem.Options{Clock: e.clock})
	require.ErrorIs(t, err, idem.ErrClosed, "its engine is closed too")
}
