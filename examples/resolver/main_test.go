package main

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var errSilence = errors.New("no answer")

// ledger is a bank that a test can make lose requests, or answers.
type ledger struct {
	mu           sync.Mutex
	paid         map[string]string
	times        map[string]int
	loses, quiet bool // requests; answers
	closed       bool // for questions
}

func newLedger() *ledger { return &ledger{paid: map[string]string{}, times: map[string]int{}} }

func (l *ledger) Pay(_ context.Context, key string, _ int) (string, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.loses {
		return "", errSilence
	}
	l.times[key]++
	l.paid[key] = "receipt"
	if l.quiet {
		return "", errSilence
	}
	return "receipt", nil
}

func (l *ledger) Find(_ context.Context, key string) (string, bool, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return "", false, errSilence
	}
	receipt, found := l.paid[key]
	return receipt, found, nil
}

func newStore(t *testing.T, clock idem.Clock) *idem.Store {
	t.Helper()
	s, err := idem.New(memory.New(memory.Options{}), idem.Options{Clock: clock, SweepInterval: -1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

// Whether the request or the answer was lost, the order is paid once in the end.
func TestUnknownPaymentsAreSettled(t *testing.T) {
	t.Parallel()
	for name, requests := range map[string]bool{"request": true, "answer": false} {
		clock := idemtest.NewClock(time.Unix(1_800_000_000, 0))
		s, b := newStore(t, clock), newLedger()
		ctx := t.Context()
		b.loses, b.quiet = requests, !requests
		_, err := pay(ctx, s, b, "1", 100)
		require.ErrorIs(t, err, errSilence)
		b.loses, b.quiet = false, false
		_, err = pay(ctx, s, b, "1", 100)
		require.ErrorIs(t, err, idem.ErrHeld, name)

		b.closed = true
		now := func() time.Time { wall, _ := clock.Now(); return wall }
		require.ErrorIs(t, idem.Resolve(ctx, s, settle(s, b, now)), errSilence)
		b.closed = false
		require.NoError(t, idem.Resolve(ctx, s, settle(s, b, now)))
		receipt, err := pay(ctx, s, b, "1", 100)
		require.NoError(t, err)
		require.Equal(t, "receipt", receipt)
		for _, n := range b.times {
			require.Equal(t, 1, n, name)
		}
		require.Len(t, b.times, 1)
	}
}

// What has lapsed only just, or is another's, is left alone.
func TestOthersAreLeftAlone(t *testing.T) {
	t.Parallel()
	clock := idemtest.NewClock(time.Unix(1_800_000_000, 0))
	s, b := newStore(t, clock), newLedger()
	ctx := t.Context()
	now := func() time.Time { wall, _ := clock.Now(); return wall }
	_, err := s.Claim(ctx, idem.Request{Key: prefix + "1", Lease: time.Second, HoldUnknown: true})
	require.NoError(t, err)
	rec := func(key string) idem.Record {
		r, err := s.Get(ctx, key)
		require.NoError(t, err)
		return r
	}
	clock.Advance(time.Minute)
	require.NoError(t, idem.Resolve(ctx, s, settle(s, b, now)))
	require.Equal(t, idem.InFlight, rec(prefix+"1").State)
	clock.Advance(time.Second)
	require.NoError(t, idem.Resolve(ctx, s, settle(s, b, now)))
	require.Equal(t, idem.Released, rec(prefix+"1").State)

	c, err := s.Claim(ctx, idem.Request{Key: "mail/1"})
	require.NoError(t, err)
	require.NoError(t, s.Hold(ctx, c.Token, nil))
	require.NoError(t, idem.Resolve(ctx, s, settle(s, b, now)))
	require.Equal(t, idem.Held, rec("mail/1").State)
}

// The service asks in rounds until it is told to end.
func TestResolveInRounds(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s, b := newStore(t, nil), newLedger()
		ctx, cancel := context.WithCancel(t.Context())
		b.quiet, b.closed = true, true
		_, err := pay(ctx, s, b, "1", 100)
		require.ErrorIs(t, err, errSilence)
		ended := make(chan struct{})
		go func() { defer close(ended); resolve(ctx, s, b, time.Minute) }()
		synctest.Wait()
		b.mu.Lock()
		b.closed = false
		b.mu.Unlock()
		<-time.After(time.Minute + time.Second)
		receipt, err := pay(ctx, s, b, "1", 100)
		require.NoError(t, err)
		require.Equal(t, "receipt", receipt)
		cancel()
		<-ended
	})
}

// The first run pays and settles, the second replays.
func TestRun(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolver.db")
	first := output(t, func() { require.NoError(t, run(t.Context(), path)) })
	require.Equal(t, `"" the bank did not answer: context deadline exceeded
"" idem: operation is held, its outcome is unknown
"receipt for 1250 cents" <nil>
`, first)
	require.Equal(t, `"receipt for 1250 cents" <nil>
"receipt for 1250 cents" <nil>
"receipt for 1250 cents" <nil>
`, output(t, func() { require.NoError(t, run(t.Context(), path)) }))
	require.Error(t, run(t.Context(), filepath.Dir(path)), "a folder is no store")
}

// output returns what run writes to standard output.
func output(t *testing.T, run func()) string {
	t.Helper()
	stdout := os.Stdout
	defer func() { os.Stdout = stdout }()
	path := filepath.Join(t.TempDir(), "stdout")
	file, err := os.Create(path)
	require.NoError(t, err)
	os.Stdout = file
	run()
	require.NoError(t, file.Close())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
