package idemtest

import (
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

var recordCases = []testCase{
	{"Records by state and prefix", recordsFilter},
	{"each record once during writes", recordsOnce},
	{"List in parts", listInParts},
	{"the loop body may use the store", recordsReentrant},
	{"Stats", stats},
	{"Stats during writes", statsDuringWrites},
	{"readers never go back", readersNeverGoBack},
}

// records collects what Records yields, by key, and requires that nothing is yielded
// twice.
func (e *env) records(f idem.Filter) map[string]idem.Record {
	e.t.Helper()
	all := map[string]idem.Record{}
	for r, err := range e.s.Records(e.ctx, f) {
		require.NoError(e.t, err, "Records")
		require.NotContains(e.t, all, r.Key, "seen twice")
		all[r.Key] = r
	}
	return all
}

func recordsFilter(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Second, Retention: time.Hour})
	e.scanner()
	require.Empty(t, e.records(idem.Filter{}))
	states := map[idem.State]func(idem.Token) error{
		idem.InFlight:  func(tok idem.Token) error { return e.s.Checkpoint(e.ctx, tok, []byte("point")) },
		idem.Released:  func(tok idem.Token) error { return e.s.Release(e.ctx, tok, nil) },
		idem.Held:      func(tok idem.Token) error { return e.s.Hold(e.ctx, tok, []byte("note")) },
		idem.Completed: func(tok idem.Token) error { return e.s.Complete(e.ctx, tok, []byte("result")) },
		idem.Failed:    func(tok idem.Token) error { return e.s.Fail(e.ctx, tok, []byte("why")) },
	}
	prefixes := []string{"a/", "a/b/", "b/", "\xff", "\xff\xff"}
	want := map[string]idem.Record{}
	for _, p := range prefixes {
		for state, settle := range states {
			key := p + state.String()
			require.NoError(t, settle(e.claim(idem.Request{Key: key, Fingerprint: printA}).Token))
			want[key] = e.get(key)
			gone := e.claim(idem.Request{Key: key + " expired", Retention: 1, Lease: time.Millisecond})
			if state.Final() {
				require.NoError(t, settle(gone.Token))
			}
		}
	}
	e.clock.Advance(2 * time.Millisecond) // the expired records are there, and unswept
	check := func() {
		t.Helper()
		for _, p := range append(prefixes, "", "a", "absent", "a/b/completed", "a/b/completed2") {
			for state := idem.State(0); state <= idem.Failed; state++ {
				expect := map[string]idem.Record{}
				for key, r := range want {
					if strings.HasPrefix(key, p) && (state == 0 || r.State == state) {
						expect[key] = r
					}
				}
				got := e.records(idem.Filter{State: state, Prefix: p})
				require.Len(t, got, len(expect), "prefix %q, state %v", p, state)
				for key, r := range expect {
					e.same(r, got[key])
				}
			}
		}
	}
	e.alsoReopened(check)
	n := 0
	for _, err := range e.s.Records(e.ctx, idem.Filter{}) {
		require.NoError(t, err)
		if n++; n == 3 {
			break // leaves nothing behind
		}
	}
	require.Equal(t, 3, n)
}

// recordsOnce: while records come, go and change around them, those that stay are seen
// exactly once by every listing.
func recordsOnce(t *testing.T, e *env) {
	const stay, writers, listings = 150, 3, 4
	e.open(idem.Options{Lease: time.Hour})
	e.scanner()
	var rs []idem.Request
	for i := range stay {
		rs = append(rs, idem.Request{Key: fmt.Sprintf("stay %03d", i)})
	}
	tokens := make([]idem.Token, stay)
	for i, c := range e.s.ClaimMany(e.ctx, rs) {
		require.NoError(t, c.Err)
		tokens[i] = c.Token
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	errs := make([]error, writers)
	for w := range writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := 0; !stop.Load() && errs[w] == nil; i++ {
				own := fmt.Sprintf("stay %03d comes and goes %d", (i*7)%stay, w)
				tok := tokens[(i*writers+w)%stay]
				switch i % 4 { // the same place grows, shrinks and moves in the expiry index
				case 0:
					_, errs[w] = e.s.Claim(e.ctx, idem.Request{Key: own})
				case 1:
					errs[w] = e.s.Extend(e.ctx, tok, time.Hour)
				case 2:
					errs[w] = e.s.Checkpoint(e.ctx, tok, make([]byte, i%2000))
				case 3:
					errs[w] = e.s.Forget(e.ctx, idem.Token{Key: fmt.Sprintf("stay %03d comes and goes %d", ((i-3)*7)%stay, w)})
				}
			}
		}()
	}
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { stop.Store(true) })
	for range listings {
		seen := map[string]int{}
		for r, err := range e.s.Records(e.ctx, idem.Filter{Prefix: "stay"}) {
			require.NoError(t, err)
			seen[r.Key]++
		}
		for _, r := range rs {
			require.Equal(t, 1, seen[r.Key], "%q was there throughout", r.Key)
		}
		for key, n := range seen {
			require.Equal(t, 1, n, "%q", key)
		}
	}
	stop.Store(true)
	e.within("the writers", wg.Wait)
	for _, err := range errs {
		require.NoError(t, err)
	}
}

// recordsReentrant: the engine holds nothing across the loop body.
func recordsReentrant(t *testing.T, e *env) {
	const n = 40
	e.open(idem.Options{Lease: time.Hour})
	e.scanner()
	for i := range n {
		e.claim(idem.Request{Key: fmt.Sprint("k", i)})
	}
	done := async(func() error {
		for r, err := range e.s.Records(e.ctx, idem.Filter{Prefix: "k"}) {
			if err != nil {
				return err
			}
			if err := e.s.Complete(e.ctx, r.Token(), []byte(r.Key)); err != nil {
				return err
			}
			if _, err := e.s.Claim(e.ctx, idem.Request{Key: "new " + r.Key}); err != nil {
				return err
			}
			if got, err := e.s.Get(e.ctx, r.Key); err != nil || got.State != idem.Completed {
				return fmt.Errorf("%q reads as %v, %w", r.Key, got, err)
			}
			inner := 0
			for _, err := range e.s.Records(e.ctx, idem.Filter{Prefix: "k"}) {
				if err != nil {
					return err
				}
				inner++
			}
			if inner != n {
				return fmt.Errorf("a listing within a listing has %d records, not %d", inner, n)
			}
			if err := e.s.Forget(e.ctx, idem.Token{Key: "new " + r.Key}); err != nil {
				return err
			}
		}
		return nil
	})
	require.NoError(t, done.wait(e, "a loop over Records that uses the store"))
	require.Len(t, e.records(idem.Filter{State: idem.Completed}), n)
}

func stats(t *testing.T, e *env) {
	e.open(idem.Options{Lease: time.Minute, Retention: time.Hour})
	e.scanner()
	get := func() idem.Stats {
		t.Helper()
		st := e.stats()
		return st
	}
	st := get()
	require.Zero(t, st.InFlight+st.Released+st.Held+st.Completed+st.Failed+st.Expired+st.Corrupt+st.Lapsed)
	settle := func(n int, key string, f func(idem.Token) error) {
		t.Helper()
		for i := range n {
			require.NoError(t, f(e.claim(idem.Request{Key: fmt.Sprint(key, i)}).Token))
		}
	}
	settle(2, "released", func(tok idem.Token) error { return e.s.Release(e.ctx, tok, nil) })
	settle(3, "held", func(tok idem.Token) error { return e.s.Hold(e.ctx, tok, nil) })
	settle(4, "completed", func(tok idem.Token) error { return e.s.Complete(e.ctx, tok, []byte("r")) })
	settle(5, "failed", func(tok idem.Token) error { return e.s.Fail(e.ctx, tok, nil) })
	settle(1, "lapsed", func(idem.Token) error { return nil })
	e.claim(idem.Request{Key: "expired", Lease: time.Millisecond, Retention: 1})
	e.clock.Advance(time.Minute)
	settle(2, "in flight", func(idem.Token) error { return nil })
	e.clock.Advance(time.Second)
	check := func() {
		t.Helper()
		st = get()
		require.Equal(t, [5]int{3, 2, 3, 4, 5}, [5]int{st.InFlight, st.Released, st.Held, st.Completed, st.Failed})
		require.Equal(t, 1, st.Lapsed)
		require.Equal(t, time.Minute+time.Second, st.OldestInFlight)
		require.Zero(t, st.Corrupt)
	}
	check()
	require.Equal(t, 1, st.Expired)
	if _, ok := e.backend.(engine.Sizer); ok {
		require.Positive(t, st.EngineBytes)
	}
	if !e.h.Volatile {
		require.Equal(t, uint64(18+14), st.CommittedOps, "each change of a record is counted once")
		require.LessOrEqual(t, st.Commits, st.CommittedOps)
		require.Positive(t, st.Commits)
		e.reopen()
		check()
		require.Zero(t, st.CommittedOps, "counted since the store was opened")
	}
	if e.canExpire() {
		require.Equal(t, 1, e.sweepAll())
		require.Zero(t, get().Expired)
		check()
	}
}

func statsDuringWrites(t *testing.T, e *env) {
	const keys = 60
	e.open(idem.Options{})
	e.scanner()
	for i := range keys {
		e.claim(idem.Request{Key: fmt.Sprint("k", i)})
	}
	var errs [3]error
	e.together(3, func(n int) {
		for i := range 30 {
			key := fmt.Sprint("k", (2*i+n)%keys)
			switch n {
			case 0:
				var st idem.Stats
				if st, errs[n] = e.s.Stats(e.ctx); errs[n] == nil && st.InFlight+st.Completed != keys {
					errs[n] = fmt.Errorf("%d in flight and %d completed, %d were there throughout", st.InFlight, st.Completed, keys)
				}
			default:
				var r idem.Record
				if r, errs[n] = e.s.Get(e.ctx, key); errs[n] == nil {
					errs[n] = e.s.Complete(e.ctx, r.Token(), nil)
				}
			}
			if errs[n] != nil {
				return
			}
		}
	})
	for _, err := range errs {
		require.NoError(t, err)
	}
}

// readersNeverGoBack: a reader that has seen a record sees that or a later one from
// then on, whichever way it reads. The writer sees what it wrote.
func readersNeverGoBack(t *testing.T, e *env) {
	const readers, rounds = 3, 60
	e.open(idem.Options{})
	var stop atomic.Bool
	all := make([]*pending[error], readers)
	for n := range all {
		all[n] = async(func() error {
			var last idem.Record
			for !stop.Load() {
				r, err := e.s.Get(e.ctx, "k")
				if n == 1 && e.canScan() {
					err = idem.ErrNotFound
					for r, err = range e.s.Records(e.ctx, idem.Filter{Prefix: "k"}) {
						if err != nil {
							break
						}
					}
				}
				switch {
				case err == idem.ErrNotFound:
				case err != nil:
					return err
				case r.Fence < last.Fence, r.Fence == last.Fence && r.State < last.State:
					return fmt.Errorf("a reader saw %v after %v", r, last)
				default:
					last = r
				}
			}
			return nil
		})
	}
	t.Cleanup(func() { stop.Store(true) })
	fence := uint64(0)
	for i := range rounds {
		if i%3 == 2 {
			require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: "k"}))
		}
		c, err := e.s.Claim(e.ctx, idem.Request{Key: "k"})
		if err != nil {
			require.ErrorIs(t, err, idem.ErrCompleted)
			require.Equal(t, fence, c.Record.Fence)
			continue
		}
		fence = c.Token.Fence
		require.Equal(t, fence, e.get("k").Fence)
		require.NoError(t, e.s.Complete(e.ctx, c.Token, []byte("r")))
		require.Equal(t, idem.Completed, e.get("k").State)
	}
	stop.Store(true)
	for _, p := range all {
		require.NoError(t, p.wait(e, "a reader"))
	}
}
