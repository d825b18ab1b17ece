package idem_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// piped hides that r can seek.
func piped(r io.Reader) io.Reader { return io.MultiReader(r) }

// many completes n operations, whose results together have so many bytes. A commit of an
// import takes 4 MiB.
func (p *place) many(t testing.TB, n, bytes int) {
	t.Helper()
	result := make([]byte, bytes/n)
	for i := range n {
		c, err := p.Claim(context.Background(), idem.Request{Key: fmt.Sprint("many/", i)})
		require.NoError(t, err)
		require.NoError(t, p.Complete(context.Background(), c.Token, result))
	}
}

// An import that ends early leaves a store that can be read and is not written to, also
// after it has been opened again. Another import of the same store starts over, and leaves
// nothing that the other store has lost since.
func TestImportThatEndsEarlyStartsOver(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	for to := range engines {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
			a.many(t, 100, 10<<20)
			first := a.export(t)
			gone := map[string]idem.Token{}
			for key, r := range a.all(t) {
				if len(gone) < 50 {
					gone[key] = r.Token()
					require.NoError(t, a.Forget(ctx, r.Token()))
				}
			}
			stays := mustClaim(t, a.Store, idem.Request{Key: "stays", Lease: time.Hour})

			b := newPlace(t, to, time.Unix(1_800_000_000, 0), idem.Options{})
			hash := b.KeyHash("k")
			_, err := b.Import(ctx, io.MultiReader(bytes.NewReader(first[:len(first)/2]), iotest.ErrReader(storetest.ErrDisk)))
			require.ErrorIs(t, err, storetest.ErrDisk)
			require.ErrorContains(t, err, "run it again")
			require.NotEqual(t, hash, b.KeyHash("k"))
			unfinished := func() {
				t.Helper()
				partly := b.all(t)
				require.NotEmpty(t, partly)
				require.Less(t, len(partly), 100)
				require.ErrorIs(t, b.Health(ctx), idem.ErrInvalid)
				require.ErrorIs(t, b.Export(ctx, io.Discard), idem.ErrInvalid, "it is not whole")
				_, err := b.Claim(ctx, idem.Request{Key: "new"})
				require.ErrorIs(t, err, idem.ErrInvalid)
				require.ErrorContains(t, err, "being imported")
				for key, r := range partly {
					_, err := b.Claim(ctx, idem.Request{Key: key})
					require.ErrorIs(t, err, idem.ErrCompleted, "it is known already")
					require.ErrorIs(t, b.Forget(ctx, r.Token()), idem.ErrInvalid)
					require.ErrorIs(t, b.Complete(ctx, r.Token(), r.Result), idem.ErrInvalid)
				}
				for _, r := range b.ClaimMany(ctx, []idem.Request{{Key: "x"}, {Key: "y"}}) {
					require.ErrorIs(t, r.Err, idem.ErrInvalid)
				}
				stranger := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
				_, err = b.Import(ctx, bytes.NewReader(stranger.export(t)))
				require.ErrorIs(t, err, idem.ErrInvalid)
				require.ErrorContains(t, err, "another store's export")
				require.Equal(t, partly, b.all(t))
			}
			unfinished()
			if to != "memory" {
				require.NoError(t, b.Close())
				b.Store = open(t, engines[to](t, b.dir), idem.Options{Clock: b.clock, SweepInterval: -1})
				unfinished()
				require.Equal(t, a.KeyHash("k"), b.KeyHash("k"))
			}
			ended, cancel := context.WithCancel(ctx)
			cancel()
			_, err = b.Import(ended, bytes.NewReader(a.export(t)))
			require.ErrorIs(t, err, context.Canceled)
			require.ErrorIs(t, b.Health(ctx), idem.ErrInvalid)

			report, err := b.Import(ctx, piped(bytes.NewReader(a.export(t))))
			require.NoError(t, err)
			require.Equal(t, 51, report.Records)
			require.Equal(t, a.all(t), b.all(t))
			require.NoError(t, b.Health(ctx))
			for key, token := range gone {
				require.ErrorIs(t, b.Complete(ctx, token, nil), idem.ErrFenced)
				mustClaim(t, b.Store, idem.Request{Key: key})
			}
			require.NoError(t, b.Complete(ctx, stays.Token, []byte("r")))
			if to != "memory" {
				require.NoError(t, b.Close())
				b.Store = open(t, engines[to](t, b.dir), idem.Options{Clock: b.clock, SweepInterval: -1})
				mustClaim(t, b.Store, idem.Request{Key: "new"})
			}
		})
	}
}

// If nothing was written yet, an import that fails leaves the store as it was.
func TestImportThatFailsBeforeItsFirstCommitIsUndone(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	mustClaim(t, a.Store, idem.Request{Key: "k"})
	export := a.export(t)
	b := newPlace(t, "bolt", time.Unix(1_800_000_000, 0), idem.Options{})
	hash := b.KeyHash("k")
	_, err := b.Import(ctx, piped(bytes.NewReader(export[:len(export)-1])))
	require.ErrorIs(t, err, idem.ErrCorrupt)
	require.NotContains(t, err.Error(), "run it again")
	require.Equal(t, hash, b.KeyHash("k"))
	b.untouched(t)
	_, err = b.Import(ctx, piped(bytes.NewReader(export)))
	require.NoError(t, err)
}

// An engine without room says so. With room, the import starts over.
func TestImportIntoAFullEngine(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	a.many(t, 20, 6<<20)
	export := a.export(t)
	s := open(t, memory.New(memory.Options{MaxRecords: 19}), idem.Options{SweepInterval: -1})
	_, err := s.Import(ctx, bytes.NewReader(export))
	require.ErrorIs(t, err, idem.ErrFull)
	require.ErrorContains(t, err, "run it again")
	_, err = s.Import(ctx, bytes.NewReader(export))
	require.ErrorIs(t, err, idem.ErrFull, "still")
	st, err := s.Stats(ctx)
	require.NoError(t, err)
	require.LessOrEqual(t, st.Completed, 19)

	s = open(t, memory.New(memory.Options{MaxRecords: 20}), idem.Options{SweepInterval: -1})
	_, err = s.Import(ctx, bytes.NewReader(export))
	require.NoError(t, err)
	_, err = s.Claim(ctx, idem.Request{Key: "one more"})
	require.ErrorIs(t, err, idem.ErrFull, "what was imported counts")
}

// A claim that was under way when the import began is waited for, and its record is in
// the way of the import. One that comes later is refused. So nothing is granted twice.
func TestImportMeetsClaimsUnderWay(t *testing.T) {
	bubble(t, func(t *testing.T) {
		ctx := t.Context()
		a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
		mustClaim(t, a.Store, idem.Request{Key: "k"})
		export := a.export(t)

		b := storetest.NewStub()
		reached, free := make(chan struct{}), make(chan struct{})
		b.OnCommit = func() error {
			close(reached)
			<-free
			return nil
		}
		s := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1})
		hash := s.KeyHash("k")
		claimed := make(chan error, 1)
		go func() {
			_, err := s.Claim(ctx, idem.Request{Key: "k"})
			claimed <- err
		}()
		<-reached
		imported := make(chan error, 1)
		go func() {
			_, err := s.Import(ctx, bytes.NewReader(export))
			imported <- err
		}()
		synctest.Wait()
		require.Empty(t, imported, "it waits")
		b.OnCommit = nil
		close(free)
		require.NoError(t, <-claimed)
		require.ErrorIs(t, <-imported, idem.ErrInvalid)
		require.Equal(t, hash, s.KeyHash("k"))
		require.NoError(t, s.Health(ctx))
		mustClaim(t, s, idem.Request{Key: "new"})
	})
}

// Claims and shutdowns that meet an import from all sides: an import that succeeds is
// whole, and none of its keys was granted before.
func TestImportRacesClaims(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	a.many(t, 10, 5<<20)
	export, want := a.export(t), a.all(t)
	for round := range 20 {
		b := newPlace(t, []string{"memory", "bolt"}[round%2], time.Unix(1_800_000_000, 0), idem.Options{})
		var wg sync.WaitGroup
		start := make(chan struct{})
		granted := make([]bool, 4)
		for i := range granted {
			wg.Go(func() {
				<-start
				for n := range 20 {
					_, err := b.Claim(ctx, idem.Request{Key: fmt.Sprint("many/", (i+n)%10)})
					if err == nil {
						granted[i] = true
						return
					}
					assert.True(t, errors.Is(err, idem.ErrInvalid) || errors.Is(err, idem.ErrCompleted) || errors.Is(err, idem.ErrInFlight), "%v", err)
				}
			})
		}
		var err error
		wg.Go(func() {
			<-start
			_, err = b.Import(ctx, bytes.NewReader(export))
		})
		close(start)
		wg.Wait()
		if err == nil {
			require.Equal(t, want, b.all(t))
			require.NotContains(t, granted, true)
		} else {
			require.ErrorIs(t, err, idem.ErrInvalid)
			require.Contains(t, granted, true)
			require.NoError(t, b.Health(ctx))
		}
	}
}

// Only one import at a time; Close and Shutdown end it, and wait for no reader.
func TestImportEndsWithItsStore(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*idem.Store) error{
		"Close":    func(s *idem.Store) error { return s.Close() },
		"Shutdown": func(s *idem.Store) error { return s.Shutdown(context.Background()) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
			a.many(t, 10, 5<<20)
			mustClaim(t, a.Store, idem.Request{Key: "in flight", Lease: time.Hour})
			export := a.export(t)
			b := newPlace(t, "bolt", time.Unix(1_800_000_000, 0), idem.Options{})
			r, w := io.Pipe()
			imported := make(chan error, 1)
			go func() {
				_, err := b.Import(ctx, r)
				imported <- err
			}()
			_, err := w.Write(export[:len(export)-1])
			require.NoError(t, err)
			_, err = b.Import(ctx, bytes.NewReader(export))
			require.ErrorIs(t, err, idem.ErrInvalid)
			require.ErrorContains(t, err, "another call")
			require.NoError(t, end(b.Store))
			written := make(chan struct{})
			go func() {
				defer close(written)
				_, _ = w.Write(export[len(export)-1:]) // unless it has ended by now
				_ = w.Close()
			}()
			require.ErrorIs(t, <-imported, idem.ErrClosed)
			require.NoError(t, r.Close())
			<-written
			b.Store = open(t, engines["bolt"](t, b.dir), idem.Options{Clock: b.clock})
			_, err = b.Import(ctx, bytes.NewReader(export))
			require.NoError(t, err)
			require.Equal(t, a.all(t), b.all(t))
		})
	}
}

// Records that were there before the export and stay are all in it, each as it was at some
// moment, whatever else goes on.
func TestExportDuringWrites(t *testing.T) {
	t.Parallel()
	for from := range engines {
		t.Run(from, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			a := newPlace(t, from, time.Unix(1_800_000_000, 0), idem.Options{})
			const before = 700 // more than a page of a scan
			for i := range before {
				c := mustClaim(t, a.Store, idem.Request{Key: fmt.Sprint("before/", i)})
				require.NoError(t, a.Complete(ctx, c.Token, fmt.Append(nil, i)))
			}
			stop := make(chan struct{})
			var wg sync.WaitGroup
			for w := range 3 {
				wg.Go(func() {
					for i := 0; ; i++ {
						select {
						case <-stop:
							return
						default:
						}
						key := fmt.Sprint("during/", w, "/", i)
						c, err := a.Claim(ctx, idem.Request{Key: key})
						if assert.NoError(t, err) {
							assert.NoError(t, a.Complete(ctx, c.Token, []byte(key)))
						}
					}
				})
			}
			var exports [][]byte
			for range 3 {
				exports = append(exports, a.export(t))
			}
			close(stop)
			wg.Wait()
			for _, export := range exports {
				b := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
				_, err := b.Import(ctx, bytes.NewReader(export))
				require.NoError(t, err)
				all := b.all(t)
				for i := range before {
					require.Equal(t, fmt.Append(nil, i), all[fmt.Sprint("before/", i)].Result)
				}
				for key, r := range all {
					if r.State == idem.Completed && strings.HasPrefix(key, "during/") {
						require.Equal(t, key, string(r.Result))
					}
				}
				claim := mustClaim(t, b.Store, idem.Request{Key: "new"})
				for key, r := range all {
					require.Greater(t, claim.Token.Fence, r.Fence, key)
				}
			}
		})
	}
}

// Whatever was done to a store, it comes back: all records are as they were, and each
// claim gets at the new place what it gets at the old one.
func TestAnyStoreMoves(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		ctx := context.Background()
		clock := idemtest.NewClock(time.Unix(1_800_000_000, 0))
		o := idem.Options{Clock: clock, SweepInterval: -1, MaxResult: 64, MaxAttempts: 3}
		s, err := idem.New(memory.New(memory.Options{}), o)
		require.NoError(rt, err)
		defer s.Close()
		keys := []string{"a", "b", "c", "\x00", "\xff/d"}
		prints := []idem.Fingerprint{{}, printA, printB}
		durations := []time.Duration{time.Millisecond, time.Second, time.Hour, idem.Forever}
		tokens := map[string][]idem.Token{}
		for range rapid.IntRange(0, 40).Draw(rt, "steps") {
			key := rapid.SampledFrom(keys).Draw(rt, "key")
			var token idem.Token
			if of := tokens[key]; len(of) > 0 {
				token = rapid.SampledFrom(of).Draw(rt, "token")
			}
			b := rapid.OneOf(rapid.Just[[]byte](nil), rapid.SliceOfN(rapid.Byte(), 0, 70)).Draw(rt, "bytes")
			switch rapid.IntRange(0, 9).Draw(rt, "step") {
			case 0, 1, 2:
				c, err := s.Claim(ctx, idem.Request{
					Key: key, Fingerprint: rapid.SampledFrom(prints).Draw(rt, "print"), HoldUnknown: rapid.Bool().Draw(rt, "hold"),
					Lease: rapid.SampledFrom(durations).Draw(rt, "lease"), Retention: rapid.SampledFrom(durations).Draw(rt, "retention"),
				})
				if err == nil {
					tokens[key] = append(tokens[key], c.Token)
				}
			case 3:
				_ = s.Complete(ctx, token, b)
			case 4:
				_ = s.Fail(ctx, token, b)
			case 5:
				_ = s.Release(ctx, token, b)
			case 6:
				_ = s.Hold(ctx, token, b)
			case 7:
				_ = s.Checkpoint(ctx, token, b)
			case 8:
				_ = s.Unclaim(ctx, token)
			case 9:
				clock.Advance(rapid.SampledFrom(durations[:3]).Draw(rt, "wait"))
			}
		}
		var export bytes.Buffer
		require.NoError(rt, s.Export(ctx, &export))
		other := o
		other.Clock = clock // the same moment: what remains can be compared
		to, err := idem.New(memory.New(memory.Options{}), other)
		require.NoError(rt, err)
		defer to.Close()
		_, err = to.Import(ctx, iotest.HalfReader(&export))
		require.NoError(rt, err)
		for round := range 3 {
			for _, key := range keys {
				was, errWas := s.Get(ctx, key)
				is, errIs := to.Get(ctx, key)
				require.Equal(rt, errWas, errIs)
				require.True(rt, same(was, is), "%+v\n%+v", was, is)
			}
			clock.Advance(durations[round])
		}
		for _, key := range keys {
			for _, token := range slices.Backward(tokens[key]) {
				for name, ask := range map[string]func(*idem.Store) error{
					"extend":   func(s *idem.Store) error { return s.Extend(ctx, token, 0) },
					"complete": func(s *idem.Store) error { return s.Complete(ctx, token, []byte("r")) },
				} {
					require.Equal(rt, ask(s), ask(to), name)
				}
			}
			r := idem.Request{Key: key, Fingerprint: printA}
			was, errWas := s.Claim(ctx, r)
			is, errIs := to.Claim(ctx, r)
			require.Equal(rt, errWas, errIs)
			require.Equal(rt, was.Record.Attempt, is.Record.Attempt)
			require.Equal(rt, was.Record.Result, is.Record.Result)
		}
	})
}

// same compares records of one moment.
func same(a, b idem.Record) bool {
	at := a.ClaimedAt.Equal(b.ClaimedAt) && a.LeaseUntil.Equal(b.LeaseUntil) && a.FinishedAt.Equal(b.FinishedAt) && a.ExpiresAt.Equal(b.ExpiresAt)
	nilness := (a.Result == nil) == (b.Result == nil) && (a.Checkpoint == nil) == (b.Checkpoint == nil)
	return at && nilness && a.Key == b.Key && a.State == b.State && a.Fingerprint == b.Fingerprint && a.Fence == b.Fence && a.Attempt == b.Attempt &&
		bytes.Equal(a.Result, b.Result) && bytes.Equal(a.Checkpoint, b.Checkpoint) &&
		a.ResultDropped == b.ResultDropped && a.HoldUnknown == b.HoldUnknown && a.Lapsed == b.Lapsed
}

// Import takes anything. What it takes can be exported again, and comes out the same;
// what it refuses leaves the store empty and in use.
func FuzzImport(f *testing.F) {
	ctx := context.Background()
	clock := idemtest.NewClock(time.Unix(1_800_000_000, 0))
	newStore := func() *idem.Store {
		s, err := idem.New(memory.New(memory.Options{}), idem.Options{Clock: clock, SweepInterval: -1})
		if err != nil {
			f.Fatal(err)
		}
		return s
	}
	seed := newStore()
	for _, r := range []idem.Request{{Key: "a"}, {Key: "b", HoldUnknown: true, Fingerprint: printA}} {
		_, _ = seed.Claim(ctx, r)
		var b bytes.Buffer
		if err := seed.Export(ctx, &b); err != nil {
			f.Fatal(err)
		}
		f.Add(b.Bytes())
	}
	_ = seed.Close()
	f.Fuzz(func(t *testing.T, export []byte) {
		s := newStore()
		defer s.Close()
		report, err := s.Import(ctx, bytes.NewReader(export))
		if err != nil {
			if !errors.Is(err, idem.ErrInvalid) && !errors.Is(err, idem.ErrCorrupt) && !errors.Is(err, idem.ErrVersion) {
				t.Fatalf("an error of its own: %v", err)
			}
			if err := s.Health(ctx); err != nil {
				t.Fatal(err)
			}
			return
		}
		var again bytes.Buffer
		require.NoError(t, s.Export(ctx, &again))
		to := newStore()
		defer to.Close()
		second, err := to.Import(ctx, &again)
		require.NoError(t, err)
		require.LessOrEqual(t, second.Records, report.Records, "a key may come twice")
		for r, err := range s.Records(ctx, idem.Filter{}) {
			require.NoError(t, err)
			got, err := to.Get(ctx, r.Key)
			require.NoError(t, err)
			require.True(t, same(r, got), "%+v\n%+v", r, got)
		}
	})
}
