package formattest

import (
	"cmp"
	"context"
	"errors"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
)

// Check tests an engine on golden stores. Each call of open returns an engine on its
// own copy of one, and what was recorded when it was made.
func Check(t *testing.T, open func(t testing.TB) (engine.Backend, Made)) {
	for name, check := range map[string]func(*testing.T, engine.Backend, Made){
		"holds every record, place and number": checkContent,
		"replays and refuses":                  checkReplays,
		"knows its tokens":                     checkTokens,
		"grants greater fences":                checkFences,
		"time goes on":                         checkTime,
		"knows what it may have lost":          checkLost,
		"sweeps what has expired":              checkSweep,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, m := open(t)
			m.check(t)
			check(t, b, m)
		})
	}
}

// checkContent compares everything stored, in the engine's own terms.
func checkContent(t *testing.T, b engine.Backend, m Made) {
	ctx := context.Background()
	defer func() { must(t, b.Close()) }()
	var saved engine.Meta
	binding, err := b.Bind(engine.Host{Meta: func() engine.Meta { return saved }, Broken: func(err error) { t.Error(err) }, Group: func(int, time.Duration) {}})
	must(t, err)
	saved = binding.Saved
	m.checkSecret(t, saved.Secret)
	meta := m.Meta()
	meta.Secret = saved.Secret
	equal(t, "meta entry", meta, saved)

	want := m.Entries()
	for key, e := range want {
		got, err := b.Read(ctx, key)
		if err != nil {
			t.Errorf("record %q: %v", key, err)
			continue
		}
		equal(t, key, e, got)
	}
	if e, err := b.Read(ctx, KeyForgotten); e != nil || err != nil {
		t.Errorf("a forgotten record is there: %+v, %v", e, err)
	}
	var keys []string
	for cursor, more := "", true; more; more = cursor != "" {
		page, next, err := b.(engine.Scanner).Scan(ctx, "", cursor)
		must(t, err)
		for _, sc := range page {
			keys = append(keys, sc.Key)
			must(t, sc.Err)
			equal(t, "scanned "+sc.Key, want[sc.Key], sc.Entry)
		}
		cursor = next
	}
	slices.Sort(keys)
	equal(t, "keys", slices.Sorted(maps.Keys(want)), keys)

	places := make([]engine.Due, 0, len(want))
	for key, e := range want {
		if e.Due != 0 {
			places = append(places, engine.Due{At: e.Due, Key: key})
		}
	}
	slices.SortFunc(places, func(a, b engine.Due) int {
		return cmp.Or(cmp.Compare(a.At, b.At), strings.Compare(a.Key, b.Key))
	})
	got, err := b.(engine.Expirer).Expiring(ctx, engine.Due{}, engine.Never, 1000)
	must(t, err)
	equal(t, "places", places, got)
}

// checkReplays asks the store for every record, byte for byte.
func checkReplays(t *testing.T, b engine.Backend, m Made) {
	ctx := context.Background()
	clock := idemtest.NewClock(Start().Add(110 * time.Second))
	s := openStore(t, b, clock)
	defer func() { must(t, s.Close()) }()
	for key, e := range m.Entries() {
		r, err := s.Get(ctx, key)
		if key == KeyExpired {
			is(t, "Get of an expired record", err, idem.ErrNotFound)
			continue
		}
		must(t, err)
		equal(t, key, [5]any{e.State, e.Fence, int(e.Attempt), e.Fingerprint, e.ResultDropped},
			[5]any{r.State, r.Fence, r.Attempt, r.Fingerprint, r.ResultDropped})
		equal(t, key, [2][]byte{e.Checkpoint, e.Result}, [2][]byte{r.Checkpoint, r.Result})
		if !r.ClaimedAt.Equal(time.Unix(0, int64(e.ClaimedAt))) {
			t.Errorf("%q was claimed at %v, shown as %v", key, time.Unix(0, int64(e.ClaimedAt)), r.ClaimedAt)
		}
	}
	for key, want := range map[string]error{
		KeyCompleted: idem.ErrCompleted, KeyNil: idem.ErrCompleted, KeyEmpty: idem.ErrCompleted, KeyBinary: idem.ErrCompleted,
		KeyDropped: idem.ErrCompleted, KeyForever: idem.ErrCompleted, KeyNUL: idem.ErrCompleted, KeyNotUTF8: idem.ErrCompleted,
		KeyLong(): idem.ErrCompleted, KeySameCommit: idem.ErrCompleted, KeyFailed: idem.ErrFailed, KeyHeld: idem.ErrHeld,
		KeyFailDropped: idem.ErrFailed, KeyHoldUnknown: idem.ErrHeld, KeyExtended: idem.ErrInFlight, KeySecondOpening: idem.ErrInFlight,
	} {
		c, err := s.Claim(ctx, idem.Request{Key: key})
		is(t, "Claim of "+key, err, want)
		equal(t, "result of "+key, m.Entries()[key].Result, c.Record.Result)
	}
	_, err := s.Claim(ctx, idem.Request{Key: KeyCompleted, Fingerprint: idem.FingerprintOf([]byte("another"))})
	is(t, "Claim with another fingerprint", err, idem.ErrMismatch)
	c, err := s.Claim(ctx, idem.Request{Key: KeyTakenOver, Fingerprint: Fingerprint()})
	must(t, err)
	equal(t, "the next attempt", [2]any{3, []byte("step 1")}, [2]any{c.Record.Attempt, c.Record.Checkpoint})

	another := idem.FingerprintOf([]byte("another"))
	_, err = s.Claim(ctx, idem.Request{Key: KeyBound, Fingerprint: another})
	is(t, "Claim of what an undone claim has bound", err, idem.ErrMismatch)
	for key, want := range map[string]struct {
		request engine.Fingerprint
		attempt int
		reason  []byte
	}{
		KeyBound: {Fingerprint(), 2, Reason()}, KeyRetried: {attempt: 3, reason: Reason()},
		KeyReason: {attempt: 2, reason: Reason()}, KeyReleased: {attempt: 2},
	} {
		c, err := s.Claim(ctx, idem.Request{Key: key, Fingerprint: want.request})
		must(t, err)
		equal(t, "the next attempt of "+key, [2]any{want.attempt, want.reason}, [2]any{c.Record.Attempt, c.Record.Result})
	}
	equal(t, "hash of "+KeyCompleted, m.KeyHash, s.KeyHash(KeyCompleted))
}

// checkTokens uses tokens that were granted before. Good ones work, and stale ones are
// fenced, whatever made them stale.
func checkTokens(t *testing.T, b engine.Backend, m Made) {
	ctx := context.Background()
	s := openStore(t, b, idemtest.NewClock(Start().Add(110*time.Second)))
	defer func() { must(t, s.Close()) }()
	isStale := map[int]bool{}
	for name, claim := range stale() {
		isStale[claim] = true
		is(t, "Complete, "+name, s.Complete(ctx, m.Tokens[claim], []byte("stale")), idem.ErrFenced)
	}
	is(t, "Unclaim again", s.Unclaim(ctx, m.Tokens[23]), nil)
	is(t, "Release again", s.Release(ctx, m.Tokens[19], nil), nil)
	for claim, token := range m.Tokens {
		key, e := token.Key, m.Entries()[token.Key]
		switch {
		case isStale[claim]:
		case e.State == engine.Completed && e.ResultDropped:
			is(t, key, s.Complete(ctx, token, []byte("new")), idem.ErrCompleted)
		case e.State == engine.Completed:
			is(t, key+" again", s.Complete(ctx, token, e.Result), nil)
			is(t, key, s.Complete(ctx, token, []byte("new")), idem.ErrCompleted)
		case e.State == engine.Failed:
			is(t, key, s.Complete(ctx, token, []byte("new")), idem.ErrFailed)
		default: // in flight, lapsed or not, or held
			is(t, key, s.Complete(ctx, token, []byte("late")), nil)
			r, err := s.Get(ctx, key)
			must(t, err)
			equal(t, key, "late", string(r.Result))
		}
	}
}

// checkFences: new fences are above all granted ones, whatever the clock says.
func checkFences(t *testing.T, b engine.Backend, m Made) {
	ctx := context.Background()
	s := openStore(t, b, idemtest.NewClock(Start().Add(-24*time.Hour)))
	defer func() { must(t, s.Close()) }()
	last := m.Meta().Fence
	for _, key := range []string{"new", KeyForgotten, KeyExpired, KeyUndone} {
		c, err := s.Claim(ctx, idem.Request{Key: key})
		must(t, err)
		if c.Token.Fence <= last {
			t.Errorf("fence of %s is %d, after %d", key, c.Token.Fence, last)
		}
		last = c.Token.Fence
		equal(t, "attempt of "+key, 1, c.Record.Attempt)
	}
}

// checkLost: an operation issued before the store lost records does not pass for a new
// one.
func checkLost(t *testing.T, b engine.Backend, _ Made) {
	ctx := context.Background()
	s := openStore(t, b, idemtest.NewClock(Start().Add(110*time.Second)))
	defer func() { must(t, s.Close()) }()
	_, err := s.Claim(ctx, idem.Request{Key: "new", IssuedAt: time.Unix(0, LostUntil)})
	is(t, "Claim of an operation that may have been lost", err, idem.ErrTooLate)
	_, err = s.Claim(ctx, idem.Request{Key: "new", IssuedAt: time.Unix(0, LostUntil+1)})
	is(t, "Claim of an operation issued later", err, nil)
}

// checkTime: store time continues even though the wall clock reads ten days before the
// store was closed.
func checkTime(t *testing.T, b engine.Backend, m Made) {
	ctx := context.Background()
	clock := idemtest.NewClock(Start().Add(-10 * 24 * time.Hour))
	s := openStore(t, b, clock)
	defer func() { must(t, s.Close()) }()
	lapses := m.Entries()[KeySecondOpening].LeaseUntil
	clock.Advance(time.Duration(lapses-m.Meta().Time) - 1)
	_, err := s.Claim(ctx, idem.Request{Key: KeySecondOpening})
	is(t, "Claim 1 ns before the lease lapses", err, idem.ErrInFlight)
	clock.Advance(1)
	_, err = s.Claim(ctx, idem.Request{Key: KeySecondOpening})
	is(t, "Claim when the lease lapses", err, nil)

	expires := m.Entries()[KeySameCommit].ExpiresAt
	clock.Advance(time.Duration(expires-lapses) - 1)
	_, err = s.Get(ctx, KeySameCommit)
	is(t, "Get 1 ns before the record expires", err, nil)
	clock.Advance(1)
	_, err = s.Get(ctx, KeySameCommit)
	is(t, "Get when the record expires", err, idem.ErrNotFound)
	clock.Advance(1000 * 24 * time.Hour)
	r, err := s.Get(ctx, KeyForever)
	must(t, err)
	equal(t, "what is kept for ever", "ok", string(r.Result))
}

// checkSweep: places written by an earlier library lead the sweep to everything that
// has expired, and to nothing else.
func checkSweep(t *testing.T, b engine.Backend, m Made) {
	ctx := context.Background()
	clock := idemtest.NewClock(Start().Add(110 * time.Second))
	s := openStore(t, b, clock)
	defer func() { must(t, s.Close()) }()
	sweep := func(want []string) {
		t.Helper()
		before := keys(t, b)
		removed, err := s.Sweep(ctx, 1000)
		must(t, err)
		left := keys(t, b)
		equal(t, "removed", len(want), removed)
		gone := slices.DeleteFunc(before, func(key string) bool { return slices.Contains(left, key) })
		slices.Sort(want)
		equal(t, "gone", want, gone)
	}
	sweep([]string{KeyExpired})
	clock.Advance(24*time.Hour - 110*time.Second) // places of live records are moved
	sweep([]string{})
	clock.Advance(24 * 365 * time.Hour)
	var mortal []string
	for key, e := range m.Entries() {
		if e.ExpiresAt != engine.Never && key != KeyExpired {
			mortal = append(mortal, key)
		}
	}
	sweep(mortal)
	equal(t, "left", []string{KeyForever, KeyHeld, KeyHoldUnknown}, keys(t, b))
}

// keys returns the keys of all records, in order.
func keys(t *testing.T, b engine.Backend) []string {
	t.Helper()
	var keys []string
	for cursor, more := "", true; more; more = cursor != "" {
		page, next, err := b.(engine.Scanner).Scan(context.Background(), "", cursor)
		must(t, err)
		for _, sc := range page {
			keys = append(keys, sc.Key)
		}
		cursor = next
	}
	slices.Sort(keys)
	return keys
}

// equal treats nil and empty slices as different.
func equal(t testing.TB, what string, want, got any) {
	t.Helper()
	if !reflect.DeepEqual(want, got) {
		t.Errorf("%q:\nwant %+v\ngot  %+v", what, want, got)
	}
}

func is(t testing.TB, what string, got, want error) {
	t.Helper()
	if want == nil && got != nil || want != nil && !errors.Is(got, want) {
		t.Errorf("%q: got %v, want %v", what, got, want)
	}
}
