package idem_test

import (
	"bytes"
	"context"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// export returns the place's export.
func (p *place) export(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	require.NoError(t, p.Export(context.Background(), &b))
	return b.Bytes()
}

const keptResult = 70_000 // longer than what is read at once

// fill makes a record of each kind, and returns the tokens of the latest claims.
func (p *place) fill(t testing.TB) map[string]idem.Token {
	t.Helper()
	ctx := context.Background()
	tokens := map[string]idem.Token{}
	claim := func(key string, r idem.Request) idem.Token {
		t.Helper()
		r.Key = key
		c, err := p.Claim(ctx, r)
		require.NoError(t, err, key)
		tokens[key] = c.Token
		return c.Token
	}
	r := idem.Request{Lease: time.Minute, Retention: time.Hour, Fingerprint: printA}
	unknown := r
	unknown.HoldUnknown = true
	for name, b := range map[string][]byte{"nil": nil, "empty": {}, "bytes": []byte("\x00\xff"), "large": bytes.Repeat([]byte{7}, keptResult)} {
		require.NoError(t, p.Checkpoint(ctx, claim("checkpoint/"+name, r), b))
		require.NoError(t, p.Complete(ctx, claim("completed/"+name, r), b))
		require.NoError(t, p.Fail(ctx, claim("failed/"+name, r), b))
		require.NoError(t, p.Hold(ctx, claim("held/"+name, r), b))
		require.NoError(t, p.Release(ctx, claim("released/"+name, r), b))
		require.NoError(t, p.Release(ctx, claim("again/"+name, r), b))
		claim("again/"+name, r)
		require.NoError(t, p.Release(ctx, claim("undone/"+name, r), b))
		require.NoError(t, p.Unclaim(ctx, claim("undone/"+name, r)))
	}
	require.ErrorIs(t, p.Complete(ctx, claim("dropped", r), make([]byte, keptResult+1)), idem.ErrTooLarge)
	claim("unknown", unknown)
	claim("\x00\xff/", r)
	claim(strings.Repeat("k", idem.MaxKey), r)
	forever := r
	forever.Retention = idem.Forever
	require.NoError(t, p.Complete(ctx, claim("forever", forever), []byte("ok")))
	claim("anyone", idem.Request{Retention: time.Hour})
	brief := idem.Request{Lease: time.Second, Retention: time.Hour}
	claim("lapsed", brief)
	brief.HoldUnknown = true
	claim("lapsed, unknown", brief)
	require.NoError(t, p.Complete(ctx, claim("expired", idem.Request{Retention: time.Second}), nil))
	p.clock.Advance(2 * time.Second)
	claim("later", r)
	return tokens
}

// What a store of any engine exports, a store of any engine takes in: every field of every
// record, the tokens, and the hashes of keys.
func TestMoveBetweenEngines(t *testing.T) {
	t.Parallel()
	o := idem.Options{MaxResult: keptResult}
	for from := range engines {
		for to := range engines {
			t.Run(from+" to "+to, func(t *testing.T) {
				t.Parallel()
				ctx := t.Context()
				a := newPlace(t, from, time.Unix(1_800_000_000, 0), o)
				tokens := a.fill(t)
				want := a.all(t)
				export := a.export(t)
				require.Equal(t, export, a.export(t), "exporting changes nothing")

				b := newPlace(t, to, time.Unix(1_700_000_000, 5), o)
				b.clock.Advance(time.Hour)
				report, err := b.Import(ctx, bytes.NewReader(export))
				require.NoError(t, err)
				require.Equal(t, want, b.all(t))
				require.Equal(t, len(want), report.Records)
				require.Zero(t, report.Expired)
				require.False(t, report.Stopped)
				require.True(t, report.ExportedAt.Equal(a.now()))
				require.Equal(t, a.KeyHash("k"), b.KeyHash("k"))
				require.NoError(t, b.Health(ctx))

				claim, err := b.Claim(ctx, idem.Request{Key: "new"})
				require.NoError(t, err)
				for key, token := range tokens {
					require.Greater(t, claim.Token.Fence, token.Fence, key)
				}
				checkMoved(t, b, tokens, want)
			})
		}
	}
}

// checkMoved settles and claims at the new place what was begun at the old one.
func checkMoved(t *testing.T, p *place, tokens map[string]idem.Token, was map[string]idem.Record) {
	t.Helper()
	ctx := t.Context()
	ask := func(key string, print idem.Fingerprint) (idem.Claim, error) {
		return p.Claim(ctx, idem.Request{Key: key, Fingerprint: print})
	}
	for _, name := range []string{"nil", "empty", "bytes", "large"} {
		c, err := ask("completed/"+name, printA)
		require.ErrorIs(t, err, idem.ErrCompleted)
		require.Equal(t, was["completed/"+name].Result, c.Record.Result)
		_, err = ask("completed/"+name, printB)
		require.ErrorIs(t, err, idem.ErrMismatch)
		_, err = ask("failed/"+name, printA)
		require.ErrorIs(t, err, idem.ErrFailed)
		_, err = ask("held/"+name, printA)
		require.ErrorIs(t, err, idem.ErrHeld)
		_, err = ask("checkpoint/"+name, printA)
		require.ErrorIs(t, err, idem.ErrInFlight)
		require.NoError(t, p.Complete(ctx, tokens["held/"+name], []byte("it was done")))
		require.NoError(t, p.Complete(ctx, tokens["checkpoint/"+name], []byte("done here")))
		require.NoError(t, p.Complete(ctx, tokens["completed/"+name], was["completed/"+name].Result), "the same again")

		stale := tokens["undone/"+name]
		stale.Fence--
		require.ErrorIs(t, p.Complete(ctx, stale, nil), idem.ErrFenced)
		_, err = ask("undone/"+name, printB)
		require.ErrorIs(t, err, idem.ErrMismatch, "a claim that was undone keeps its fingerprint in force")
		c, err = ask("undone/"+name, printA)
		require.NoError(t, err)
		require.Equal(t, 2, c.Record.Attempt)
		c, err = ask("released/"+name, printB)
		require.NoError(t, err, "one that was released does not")
		require.Equal(t, 1, c.Record.Attempt)
	}
	_, err := ask("lapsed, unknown", idem.Fingerprint{})
	require.ErrorIs(t, err, idem.ErrHeld)
	c, err := ask("lapsed", idem.Fingerprint{})
	require.NoError(t, err)
	require.Equal(t, 2, c.Record.Attempt, "a takeover")
	require.ErrorIs(t, p.Complete(ctx, tokens["lapsed"], nil), idem.ErrFenced)
	_, err = p.Get(ctx, "expired")
	require.ErrorIs(t, err, idem.ErrNotFound)
}

// Leases and retention go on with what remained of them, whatever time has passed between
// the two stores, and under whatever clock.
func TestTimesGoOnAfterAMove(t *testing.T) {
	t.Parallel()
	for to := range engines {
		t.Run(to, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
			_, err := a.Claim(ctx, idem.Request{Key: "in flight", Lease: time.Minute, Retention: time.Hour})
			require.NoError(t, err)
			c, err := a.Claim(ctx, idem.Request{Key: "done", Retention: time.Hour})
			require.NoError(t, err)
			require.NoError(t, a.Complete(ctx, c.Token, nil))
			a.clock.Advance(20 * time.Second)
			export := a.export(t)

			b := newPlace(t, to, time.Unix(1_750_000_000, 0), idem.Options{})
			_, err = b.Import(ctx, bytes.NewReader(export))
			require.NoError(t, err)
			ask := func(key string) error {
				_, err := b.Claim(ctx, idem.Request{Key: key})
				return err
			}
			b.clock.Advance(40*time.Second - 1)
			require.ErrorIs(t, ask("in flight"), idem.ErrInFlight)
			b.clock.Advance(1)
			rec, err := b.Get(ctx, "in flight")
			require.NoError(t, err)
			require.True(t, rec.Lapsed)
			require.NoError(t, ask("in flight"))
			b.clock.Advance(59*time.Minute - 1)
			require.ErrorIs(t, ask("done"), idem.ErrCompleted)
			b.clock.Advance(1)
			require.NoError(t, ask("done"), "its hour is over")
			removed, err := b.Sweep(ctx, 100)
			require.NoError(t, err)
			require.Zero(t, removed, "both live again")
			b.clock.Advance(48 * time.Hour)
			removed, err = b.Sweep(ctx, 100)
			require.NoError(t, err)
			require.Equal(t, 2, removed, "what was imported is in the index of what expires")
		})
	}
}

// What went on at the old place after the export is not known at the new one, which says
// so where a request tells its age. If the old one was stopped, nothing did.
func TestImportKnowsWhatMayBeMissing(t *testing.T) {
	t.Parallel()
	for name, stopped := range map[string]bool{"stopped": true, "running": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			start := time.Unix(1_800_000_000, 0)
			old := newPlace(t, "bolt", start, idem.Options{})
			mustClaim(t, old.Store, idem.Request{Key: "k"})
			if stopped {
				require.NoError(t, old.Close())
				old.Store = open(t, readOnly{engines["bolt"](t, old.dir)}, idem.Options{Clock: old.clock})
			}
			export := old.export(t)

			b := newPlace(t, "pebble", start.Add(time.Hour), idem.Options{})
			report, err := b.Import(ctx, bytes.NewReader(export))
			require.NoError(t, err)
			require.Equal(t, stopped, report.Stopped)
			check := func() {
				_, err := b.Claim(ctx, idem.Request{Key: "other", IssuedAt: start.Add(time.Hour)})
				if stopped {
					require.NoError(t, err)
					return
				}
				require.ErrorIs(t, err, idem.ErrTooLate)
			}
			if stopped {
				require.Zero(t, report.LostUntil)
			} else {
				require.True(t, report.LostUntil.Equal(start.Add(time.Hour)), report.LostUntil)
			}
			check()
			b.clock.Advance(1)
			mustClaim(t, b.Store, idem.Request{Key: "now", IssuedAt: b.now()})
			require.NoError(t, b.Close())
			b.Store = open(t, engines["pebble"](t, b.dir), idem.Options{Clock: b.clock})
			require.NoError(t, b.Forget(ctx, idem.Token{Key: "other"}))
			check()
		})
	}
}

// readOnly is an engine that says that it was opened read-only.
type readOnly struct{ engine.Backend }

func (r readOnly) Bind(h engine.Host) (engine.Binding, error) {
	b, err := r.Backend.Bind(h)
	b.ReadOnly = true
	return b, err
}

func (r readOnly) Scan(ctx context.Context, prefix, cursor string) ([]engine.Scanned, string, error) {
	return r.Backend.(engine.Scanner).Scan(ctx, prefix, cursor)
}

// What the old place had lost is lost at the new one, too. A memory store cannot know
// what was before it.
func TestImportInheritsWhatWasLost(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	start := time.Unix(1_800_000_000, 0)
	old := memory.New(memory.Options{})
	a := &place{clock: idemtest.NewClock(start)}
	a.Store = open(t, readOnly{old}, idem.Options{Clock: a.clock})
	b := newPlace(t, "bolt", start.Add(-time.Hour), idem.Options{})
	report, err := b.Import(ctx, bytes.NewReader(a.export(t)))
	require.NoError(t, err)
	require.True(t, report.Stopped)
	require.True(t, report.LostUntil.Equal(start), report.LostUntil)
	_, err = b.Claim(ctx, idem.Request{Key: "k", IssuedAt: b.now()})
	require.ErrorIs(t, err, idem.ErrTooLate)
	b.clock.Advance(2 * time.Hour)
	mustClaim(t, b.Store, idem.Request{Key: "k", IssuedAt: start.Add(1)})
}

// Before the clock is set nobody knows when the import was. Once it is, what was issued
// before the import is too late.
func TestImportBeforeTheClockIsSet(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	export := a.export(t)
	b := newPlace(t, "bolt", time.Unix(3, 0), idem.Options{})
	b.clock.Advance(time.Minute)
	_, err := b.Import(ctx, bytes.NewReader(export))
	require.NoError(t, err)
	ask := func(issued time.Time) error {
		c, err := b.Claim(ctx, idem.Request{Key: "k", IssuedAt: issued})
		if err == nil {
			require.NoError(t, b.Unclaim(ctx, c.Token))
		}
		return err
	}
	require.ErrorIs(t, ask(time.Unix(1_800_000_000, 0)), idem.ErrTooLate)
	b.clock.Advance(time.Minute)
	b.clock.StepWall(time.Unix(1_800_000_000, 0).Sub(b.now()))
	require.ErrorIs(t, ask(b.now().Add(-time.Minute)), idem.ErrTooLate, "the import")
	require.NoError(t, ask(b.now().Add(-time.Minute+1)))
}

// untouched requires that p is as a new store is.
func (p *place) untouched(t testing.TB) {
	t.Helper()
	require.Empty(t, p.all(t))
	require.NoError(t, p.Health(context.Background()))
}

// An export that is damaged anywhere is refused, and nothing is changed if it is a file.
// From a pipe the store may have begun: it is then not used before an import has ended.
func TestDamagedExportsAreRefused(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	ctx := t.Context()
	a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{MaxResult: keptResult})
	a.fill(t)
	whole := a.export(t)
	b := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	step := len(whole)/100 + 1
	for n := 0; n < len(whole); n += step {
		_, err := b.Import(ctx, bytes.NewReader(whole[:n]))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "\n")
		flipped := bytes.Clone(whole)
		flipped[n] ^= 1 << (n % 8)
		_, err = b.Import(ctx, bytes.NewReader(flipped))
		require.Error(t, err)
		require.NotContains(t, err.Error(), "\n")
	}
	b.untouched(t)
	require.Equal(t, len(a.all(t)), func() int {
		report, err := b.Import(ctx, bytes.NewReader(whole))
		require.NoError(t, err)
		return report.Records
	}())
}

// What is in the way of an import is said, and stays as it was.
func TestImportsThatAreRefused(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	mustClaim(t, a.Store, idem.Request{Key: "k"})
	export := a.export(t)
	newer := bytes.Clone(export)
	newer[12]++
	for name, c := range map[string]struct {
		export []byte
		ready  func(p *place)
		want   error
		says   string
	}{
		"nothing":       {export: nil, want: idem.ErrInvalid, says: "no export"},
		"another file":  {export: []byte("SQLite format 3\x00"), want: idem.ErrInvalid, says: "no export"},
		"version flips": {export: newer, want: idem.ErrCorrupt, says: "header"},
		"in use": {export: export, ready: func(p *place) {
			mustClaim(t, p.Store, idem.Request{Key: "mine"})
		}, want: idem.ErrInvalid, says: "records of its own"},
		"shut down": {export: export, ready: func(p *place) { require.NoError(t, p.Shutdown(ctx)) }, want: idem.ErrClosed},
		"closed":    {export: export, ready: func(p *place) { require.NoError(t, p.Close()) }, want: idem.ErrClosed},
	} {
		b := newPlace(t, "bolt", time.Unix(1_800_000_000, 0), idem.Options{})
		if c.ready != nil {
			c.ready(b)
		}
		report, err := b.Import(ctx, bytes.NewReader(c.export))
		require.ErrorIs(t, err, c.want, name)
		require.ErrorContains(t, err, c.says, name)
		require.NotContains(t, err.Error(), "\n")
		require.Zero(t, report)
		if c.want != idem.ErrClosed {
			require.NoError(t, b.Health(ctx), name)
			mustClaim(t, b.Store, idem.Request{Key: "new"})
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	b := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	_, err := b.Import(ended, bytes.NewReader(export))
	require.ErrorIs(t, err, context.Canceled)
	b.untouched(t)
	require.ErrorIs(t, a.Export(ended, io.Discard), context.Canceled)
	require.NoError(t, a.Close())
	require.ErrorIs(t, a.Export(ctx, io.Discard), idem.ErrClosed)
}

// A store whose only records have expired is empty.
func TestImportIntoAStoreThatIsEmptyAgain(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	a := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	mustClaim(t, a.Store, idem.Request{Key: "k"})
	export := a.export(t)
	b := newPlace(t, "bolt", time.Unix(1_800_000_000, 0), idem.Options{})
	for _, key := range []string{"k", "mine"} {
		c := mustClaim(t, b.Store, idem.Request{Key: key, Retention: time.Second})
		require.NoError(t, b.Complete(ctx, c.Token, []byte("old")))
	}
	b.clock.Advance(time.Second)
	_, err := b.Import(ctx, bytes.NewReader(export))
	require.NoError(t, err)
	require.Equal(t, a.all(t), b.all(t))
}

// A record that cannot be read would be missing, so there is no export without it.
func TestExportStopsAtADamagedRecord(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	b := storetest.NewStub()
	s := open(t, storetest.Rich{Stub: b}, idem.Options{SweepInterval: -1})
	for _, key := range []string{"a", "b", "c"} {
		mustClaim(t, s, idem.Request{Key: key})
	}
	b.Damage("b")
	var out bytes.Buffer
	err := s.Export(ctx, &out)
	require.ErrorIs(t, err, idem.ErrCorrupt)
	require.ErrorContains(t, err, s.KeyHash("b"))
	require.ErrorContains(t, err, "Forget")
	require.NotContains(t, err.Error(), "\n")
	to := newPlace(t, "memory", time.Unix(1_800_000_000, 0), idem.Options{})
	_, err = to.Import(ctx, &out)
	require.Error(t, err, "what was written by then is no export")

	b.Damage()
	require.ErrorIs(t, s.Export(ctx, failingWriter{}), storetest.ErrDisk)
	b.Blind.Store(true)
	require.ErrorIs(t, s.Export(ctx, io.Discard), idem.ErrCorrupt)
	plain := open(t, storetest.NewStub(), idem.Options{SweepInterval: -1})
	require.ErrorIs(t, plain.Export(ctx, io.Discard), idem.ErrInvalid, "it cannot list its records")
	_, err = plain.Import(ctx, bytes.NewReader(to.export(t)))
	require.ErrorIs(t, err, idem.ErrInvalid)
}

type failingWriter struct{}

func (failingWriter) Write([]byte) (int, error) { return 0, storetest.ErrDisk }

// However far off either clock is, records move with their state, their tokens settle them,
// and a store that was imported into can be exported again.
func TestMoveUnderStrangeClocks(t *testing.T) {
	t.Parallel()
	clocks := []time.Time{
		{},
		time.Unix(-1, 0), time.Unix(3, 0), time.Unix(1_800_000_000, 0),
		time.Unix(0, 1<<63-1), time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	for _, from := range clocks {
		for _, to := range clocks {
			ctx := t.Context()
			a := newPlace(t, "memory", from, idem.Options{Retention: time.Hour})
			held := mustClaim(t, a.Store, idem.Request{Key: "held"})
			require.NoError(t, a.Hold(ctx, held.Token, []byte("note")))
			inFlight := mustClaim(t, a.Store, idem.Request{Key: "in flight"})
			done := mustClaim(t, a.Store, idem.Request{Key: "done"})
			require.NoError(t, a.Complete(ctx, done.Token, []byte("r")))

			b := newPlace(t, "memory", to, idem.Options{})
			report, err := b.Import(ctx, bytes.NewReader(a.export(t)))
			require.NoError(t, err, "from %v to %v", from, to)
			require.Equal(t, 3, report.Records)
			require.False(t, report.LostUntil.IsZero())
			c := newPlace(t, "memory", from, idem.Options{})
			_, err = c.Import(ctx, bytes.NewReader(b.export(t)))
			require.NoError(t, err, "from %v to %v, and back", from, to)
			for _, p := range []*place{b, c} {
				require.NoError(t, p.Health(ctx))
				for key, want := range map[string]error{"held": idem.ErrHeld, "in flight": idem.ErrInFlight, "done": idem.ErrCompleted} {
					_, err := p.Claim(ctx, idem.Request{Key: key})
					require.ErrorIs(t, err, want, "from %v to %v", from, to)
				}
				require.NoError(t, p.Complete(ctx, held.Token, []byte("it was done")))
				require.NoError(t, p.Complete(ctx, inFlight.Token, []byte("r")))
				require.Greater(t, mustClaim(t, p.Store, idem.Request{Key: "new"}).Token.Fence, done.Token.Fence)
				if !from.IsZero() {
					_, err := p.Claim(ctx, idem.Request{Key: "lost", IssuedAt: from})
					require.ErrorIs(t, err, idem.ErrTooLate, "from %v to %v: it may have been at the other place", from, to)
				}
			}
		}
	}
}
