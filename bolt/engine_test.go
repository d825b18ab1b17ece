package bolt

import (
	"context"
	"fmt"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

func TestOnAnotherEngine(t *testing.T) {
	t.Parallel()
	s, err := idem.New(memory.New(memory.Options{}), idem.Options{})
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	never := func(context.Context, *bbolt.Tx) ([]byte, error) { t.Error("the function ran"); return nil, nil }
	for _, s := range []*idem.Store{s, nil} {
		_, _, err = Do(context.Background(), s, idem.Request{Key: "k"}, never)
		require.ErrorIs(t, err, idem.ErrInvalid)
		require.ErrorIs(t, Complete(context.Background(), s, idem.Token{Key: "k", Fence: 1}, never), idem.ErrInvalid)
	}
}

// The bound is on what is in use: what a sweep frees can be claimed again, while
// the file stays as large as it was.
func TestMaxSize(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	clock := idemtest.NewClock(start)
	s, err := idem.New(mustOpen(t, filepath.Join(t.TempDir(), fileName), Options{MaxSize: 1 << 20}),
		idem.Options{Clock: clock, SweepInterval: -1, SweepSlice: 1000})
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	fill := func(life int) (open []idem.Token) {
		for i := range 10_000 {
			c, err := s.Claim(ctx, idem.Request{Key: fmt.Sprint(life, "/", i)})
			if err != nil {
				require.ErrorIs(t, err, idem.ErrFull)
				require.ErrorContains(t, err, "MaxSize")
				return open
			}
			require.NoError(t, s.Checkpoint(ctx, c.Token, make([]byte, 4000)))
			open = append(open, c.Token)
		}
		t.Fatal("the store never was full")
		return nil
	}
	open := fill(0)
	require.Greater(t, len(open), 50)
	for _, token := range open { // token operations pass, over the bound too
		require.NoError(t, s.Complete(ctx, token, make([]byte, 5000)))
	}
	storetest.Refused(t, s, "no room", idem.ErrFull)
	_, err = s.Get(ctx, "no room")
	require.ErrorIs(t, err, idem.ErrNotFound)
	clock.Advance(48 * 3600e9)
	require.Greater(t, len(fill(1)), 50, "claims after the first life expired")
}

func TestMinFree(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, Options{MinFree: math.MaxInt64}, idem.Options{})
	_, err := s.Claim(context.Background(), idem.Request{Key: "k"})
	if err != nil { // nil where free space cannot be told
		require.ErrorIs(t, err, idem.ErrFull)
		require.ErrorContains(t, err, "MinFree")
	}
	st, err := s.Stats(context.Background())
	require.NoError(t, err)
	require.Zero(t, st.Commits)

	off, _ := newStore(t, Options{MinFree: -1}, idem.Options{})
	storetest.Claim(t, off, "k")
}

// Callers who arrive while a commit is stalled share the next: far fewer commits
// than operations.
func TestGroupCommit(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	s, _ := newStore(t, Options{}, idem.Options{})
	storetest.Claim(t, s, "alone")
	st, err := s.Stats(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 1, st.Commits, "a lone caller commits at once")

	rs := make([]idem.Request, 100)
	for i := range rs {
		rs[i].Key = fmt.Sprint(i)
	}
	for _, r := range s.ClaimMany(ctx, rs) {
		require.NoError(t, r.Err)
	}
	st, err = s.Stats(ctx)
	require.NoError(t, err)
	require.EqualValues(t, 2, st.Commits)
	require.EqualValues(t, 101, st.CommittedOps)
}

func TestWrongFunction(t *testing.T) {
	t.Parallel()
	s, _ := newStore(t, Options{}, idem.Options{})
	_, _, err := s.DoEffect(context.Background(), idem.Request{Key: "k"}, func() {})
	require.ErrorIs(t, err, idem.ErrInvalid)
	storetest.Claim(t, s, "k") // the store lives
}

func TestNilEngine(t *testing.T) {
	t.Parallel()
	var b *Backend // what is left of an Open whose error was dropped
	_, err := idem.New(b, idem.Options{})
	require.ErrorIs(t, err, idem.ErrInvalid)
}

// An Observer that shuts the store down is told by a commit that Shutdown waits for.
func TestObserverShutsDown(t *testing.T) {
	t.Parallel()
	var s *idem.Store
	ended := make(chan error, 1)
	b := mustOpen(t, filepath.Join(t.TempDir(), fileName), Options{})
	var once sync.Once
	s, err := idem.New(b, idem.Options{Lease: time.Millisecond, Observer: func(_ context.Context, e idem.Event) {
		if e.Kind == idem.CommitDone {
			once.Do(func() { ended <- s.Shutdown(context.Background()) })
		}
	}})
	require.NoError(t, err)
	storetest.Claim(t, s, "k")
	require.NoError(t, <-ended)
	_, err = s.Get(context.Background(), "k")
	require.ErrorIs(t, err, idem.ErrClosed)
}
