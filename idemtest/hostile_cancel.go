package idemtest

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"reflect"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// canceller is one of many callers, each with its own key, whose contexts end at
// random. Its clock stands still, so a record that nobody changed stays equal. After
// each call it knows which of two states its key is in.
type canceller struct {
	e      *env
	bad    *report
	rng    *rand.Rand
	key    string
	token  idem.Token
	record *idem.Record // nil: none

	done, cancelled atomic.Int64
}

// cancelling returns a context that ends soon: before the call, during it, or after it.
func (c *canceller) cancelling() (context.Context, func()) {
	ctx, cancel := context.WithCancel(c.e.ctx)
	yields := c.rng.IntN(4)
	switch c.rng.IntN(5) {
	case 0:
		cancel()
		return ctx, cancel
	case 1:
		return ctx, cancel
	case 2:
		yields = c.rng.IntN(400)
	}
	spin := c.rng.IntN(2000)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for range yields {
			runtime.Gosched()
		}
		for i := 0; i < spin && ctx.Err() == nil; i++ {
			runtime.Gosched()
		}
		cancel()
	}()
	return ctx, func() { cancel(); <-ended }
}

func (c *canceller) current() *idem.Record {
	r, err := c.e.s.Get(c.e.ctx, c.key)
	switch {
	case errors.Is(err, idem.ErrNotFound):
		return nil
	case err != nil:
		c.bad.errorf("%s: Get: %v", c.key, err)
		return nil
	}
	return &r
}

// call makes one call and checks its answer against the record before and after it.
// changes reports whether the record is now what a nil error means.
func (c *canceller) call(name string, f func(ctx context.Context) error, changes func(now *idem.Record) bool) {
	ctx, end := c.cancelling()
	err := f(ctx)
	end()
	now := c.current()
	same := reflect.DeepEqual(c.record, now)
	switch {
	case err == nil:
		c.done.Add(1)
		if !changes(now) {
			c.bad.errorf("%s: %s returned nil, and the record is %v after %v", c.key, name, now, c.record)
		}
	case errors.Is(err, context.Canceled):
		c.cancelled.Add(1)
		if !same {
			c.bad.errorf("%s: %s returned ctx's error, which says that nothing was done, and the record is %v after %v", c.key, name, now, c.record)
		}
	default: // a refusal
		if !same {
			c.bad.errorf("%s: %s was refused (%v), and the record is %v after %v", c.key, name, err, now, c.record)
		}
	}
	c.record = now
	if now != nil {
		c.token = now.Token()
	}
}

func (c *canceller) is(state idem.State) func(*idem.Record) bool {
	return func(now *idem.Record) bool { return now != nil && now.State == state }
}

// step makes a random call.
func (c *canceller) step(i int) {
	s, text := c.e.s, []byte(fmt.Sprint(i))
	claimed := func(now *idem.Record) bool {
		return now != nil && now.State == idem.InFlight && (c.record == nil || now.Fence > c.record.Fence)
	}
	r := idem.Request{Key: c.key, Fingerprint: printA}
	if c.token.Key == "" {
		c.token = idem.Token{Key: c.key, Fence: 1}
	}
	switch c.rng.IntN(14) {
	case 0, 1, 2:
		c.call("Claim", func(ctx context.Context) error { _, err := s.Claim(ctx, r); return err }, claimed)
	case 3:
		c.call("ClaimMany", func(ctx context.Context) error {
			rs := s.ClaimMany(ctx, []idem.Request{r, {Key: c.key + " other"}})
			return rs[0].Err
		}, claimed)
	case 4:
		c.call("Complete", func(ctx context.Context) error { return s.Complete(ctx, c.token, text) }, c.is(idem.Completed))
	case 5:
		c.call("CompleteMany", func(ctx context.Context) error {
			return s.CompleteMany(ctx, []idem.Completion{{Token: c.token, Result: text}})[0]
		}, c.is(idem.Completed))
	case 6:
		c.call("Fail", func(ctx context.Context) error { return s.Fail(ctx, c.token, text) }, c.is(idem.Failed))
	case 7:
		c.call("Release", func(ctx context.Context) error { return s.Release(ctx, c.token, nil) }, c.is(idem.Released))
	case 8:
		c.call("Hold", func(ctx context.Context) error { return s.Hold(ctx, c.token, text) }, c.is(idem.Held))
	case 9:
		lease := time.Duration(i+1) * time.Minute
		c.call("Extend", func(ctx context.Context) error { return s.Extend(ctx, c.token, lease) }, func(now *idem.Record) bool {
			return c.is(idem.InFlight)(now) && !now.LeaseUntil.Before(now.ClaimedAt.Add(lease))
		})
	case 10:
		c.call("Checkpoint", func(ctx context.Context) error { return s.Checkpoint(ctx, c.token, text) }, func(now *idem.Record) bool {
			return c.is(idem.InFlight)(now) && string(now.Checkpoint) == string(text)
		})
	case 11:
		c.call("Forget", func(ctx context.Context) error { return s.Forget(ctx, idem.Token{Key: c.key}) }, func(now *idem.Record) bool { return now == nil })
	case 12:
		c.do(text)
	case 13:
		c.look()
	}
}

// do calls Do on the canceller's own key. It skips a key in flight, which nobody would
// settle.
func (c *canceller) do(text []byte) {
	if c.record != nil && c.record.State == idem.InFlight {
		return // Do would wait for this very caller
	}
	ran := false
	before := c.record
	ctx, end := c.cancelling()
	value, replayed, err := idem.Do(ctx, c.e.s, idem.Request{Key: c.key, Fingerprint: printA}, func(context.Context, idem.Claim) ([]byte, error) {
		ran = true
		return text, nil
	})
	end()
	now := c.current()
	switch {
	case ran: // whether or not ctx ended
		if err != nil || replayed || string(value) != string(text) || !c.is(idem.Completed)(now) || string(now.Result) != string(text) {
			c.bad.errorf("%s: Do ran and returned %q, %v, %v; the record is %v", c.key, value, replayed, err, now)
		}
	case errors.Is(err, context.Canceled) && undone(before, now):
	case !reflect.DeepEqual(before, now):
		c.bad.errorf("%s: Do did not run and returned %v; the record is %v after %v", c.key, err, now, before)
	case err == nil && (!replayed || now == nil || string(value) != string(now.Result)):
		c.bad.errorf("%s: Do replayed %q; the record is %v", c.key, value, now)
	}
	c.record = now
	if now != nil {
		c.token = now.Token()
	}
}

// undone reports whether now is before, released, after a claim that was granted and
// undone because its ctx had ended. Only the fence and times show it.
func undone(before, now *idem.Record) bool {
	return before != nil && now != nil && before.State == idem.Released && now.State == idem.Released &&
		now.Fence > before.Fence && now.Attempt == before.Attempt && now.Fingerprint == before.Fingerprint &&
		string(now.Checkpoint) == string(before.Checkpoint) && string(now.Result) == string(before.Result)
}

// look makes the calls that change nothing.
func (c *canceller) look() {
	nothing := func(now *idem.Record) bool { return reflect.DeepEqual(c.record, now) }
	s := c.e.s
	c.call("Get", func(ctx context.Context) error { _, err := s.Get(ctx, c.key); return err }, nothing)
	if c.record == nil || c.record.State != idem.InFlight {
		c.call("Wait", func(ctx context.Context) error { _, err := s.Wait(ctx, c.key); return err }, nothing)
	} else {
		ctx, end := c.cancelling()
		go end() // or nobody would cancel it
		if _, err := s.Wait(ctx, c.key); !errors.Is(err, context.Canceled) {
			c.bad.errorf("%s: Wait on a claim in flight: %v", c.key, err)
		}
	}
	if c.e.canExpire() {
		c.call("Sweep", func(ctx context.Context) error { _, err := s.Sweep(ctx, 10); return err }, nothing)
	}
	if c.e.canScan() {
		c.call("Records", func(ctx context.Context) error {
			for r, err := range s.Records(ctx, idem.Filter{Prefix: c.key}) {
				if err != nil {
					return err
				}
				if r.Key == c.key && !reflect.DeepEqual(&r, c.record) {
					c.bad.errorf("%s: Records shows %v, it is %v", c.key, r, c.record)
				}
			}
			return nil
		}, nothing)
	}
}

func cancelAnywhere(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Hour, Retention: 1000 * time.Hour})
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	bad := &report{t: t}
	cs := make([]*canceller, 24)
	e.together(len(cs), func(i int) {
		c := &canceller{e: e, bad: bad, key: fmt.Sprint("caller ", i), rng: rand.New(rand.NewPCG(seed, uint64(i)))}
		cs[i] = c
		for n := range scaled(150) {
			c.step(n)
		}
	})
	var done, cancelled int64
	for _, c := range cs {
		done += c.done.Load()
		cancelled += c.cancelled.Load()
	}
	t.Logf("%d calls returned nil, %d ctx's error", done, cancelled)
	require.NotZero(t, done)
	require.NotZero(t, cancelled)
	if e.h.Volatile {
		return
	}
	want := map[string]*idem.Record{}
	for _, c := range cs {
		want[c.key] = c.record
	}
	e.reopen()
	for key, before := range want {
		r, err := e.s.Get(e.ctx, key)
		if before == nil {
			require.ErrorIs(t, err, idem.ErrNotFound, key)
			continue
		}
		require.NoError(t, err, key)
		e.same(*before, r)
	}
}
