package txbackend

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/formattest"
)

// A record that cannot be read is its key's alone: no grant, no replay, no end of
// the store; Forget removes it.
func TestUnreadableRecord(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		damage func([]byte) []byte
		want   error
	}{
		"flipped bit": {func(v []byte) []byte { v[50] ^= 8; return v }, idem.ErrCorrupt},
		"cut short":   {func(v []byte) []byte { return v[:60] }, idem.ErrCorrupt},
		"emptied":     {func([]byte) []byte { return []byte{} }, idem.ErrCorrupt},
		"newer":       {func(v []byte) []byte { return formattest.Newer("bad", v) }, idem.ErrVersion},
		"older":       {func(v []byte) []byte { return formattest.Older("bad", v) }, idem.ErrVersion},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			e := newEnv(t)
			token := e.completed("bad", "r")
			e.completed("good", "r")
			e.fake.damage(Records, "bad", c.damage)
			stored := e.fake.raw(Records)["bad"]

			_, err := e.s.Get(ctx, "bad")
			require.ErrorIs(t, err, c.want)
			require.ErrorContains(t, err, e.b.named("bad"))
			_, err = e.s.Claim(ctx, idem.Request{Key: "bad"})
			require.ErrorIs(t, err, c.want)
			for what, err := range map[string]error{
				"Complete": e.s.Complete(ctx, token, []byte("r")),
				"Fail":     e.s.Fail(ctx, token, nil),
				"Release":  e.s.Release(ctx, token, nil),
				"Hold":     e.s.Hold(ctx, token, nil),
				"Extend":   e.s.Extend(ctx, token, 0),
				"effect": e.s.CompleteEffect(ctx, token, sameCommit(func(*fakeTx) ([]byte, error) {
					t.Error("the effect on a record that cannot be read was run")
					return nil, nil
				})),
			} {
				require.ErrorIs(t, err, c.want, what)
			}
			// The commit finds it too, where the batch did not look before.
			results := e.s.ClaimMany(ctx, []idem.Request{{Key: "bad"}, {Key: "new"}})
			require.ErrorIs(t, results[0].Err, c.want)
			require.NoError(t, results[1].Err)
			require.Equal(t, stored, e.fake.raw(Records)["bad"], "it was written to")

			_, found := listed(t, e.b, "", nil)
			require.Len(t, found, 3)
			require.ErrorIs(t, found["bad"].Err, c.want)
			require.Nil(t, found["bad"].Entry)
			require.Equal(t, idem.Completed, e.state("good"))

			require.NoError(t, e.s.Forget(ctx, idem.Token{Key: "bad"}))
			require.Zero(t, e.state("bad"))
			require.Greater(t, e.claim("bad").Fence, token.Fence)
		})
	}
}

// The same where the engine itself finds the damage, reading or in the transaction:
// an error that says so is about the record, any other about the engine.
func TestEngineFindsDamage(t *testing.T) {
	t.Parallel()
	for _, at := range []point{reading, getting} {
		for _, want := range []error{idem.ErrCorrupt, idem.ErrVersion} {
			t.Run(fmt.Sprint(at, "/", want), func(t *testing.T) {
				t.Parallel()
				e := newEnv(t)
				token := e.claim("bad")
				require.NoError(t, e.s.Release(ctx, token, nil)) // an open claim's record is not read for
				e.fake.at(func(p point, key string) error {
					if p == at && key == "bad" {
						return fmt.Errorf("checksum of block 7: %w", want)
					}
					return nil
				})
				if at == reading {
					_, err := e.s.Get(ctx, "bad")
					require.ErrorIs(t, err, want)
				} else {
					require.ErrorIs(t, e.s.Complete(ctx, token, nil), want)
					require.NoError(t, e.s.Forget(ctx, idem.Token{Key: "bad"}))
				}
				e.claim("good")
				require.NoError(t, e.b.err())
			})
		}
	}
}

// The sweep counts a record that cannot be read, passes over it, and goes on; once
// it is forgotten, the place it left behind goes too.
func TestSweepPassesOverTheUnreadable(t *testing.T) {
	t.Parallel()
	var sweeps []idem.Event
	e := newEnv(t, func(o *idem.Options) {
		o.SweepSlice = 2
		o.Observer = func(_ context.Context, ev idem.Event) {
			if ev.Kind == idem.SweepDone || ev.Kind == idem.SweepFailed {
				sweeps = append(sweeps, ev)
			}
		}
	})
	for i := range 7 {
		e.granted(idem.Request{Key: fmt.Sprint(i), Retention: time.Second})
		e.clock.Advance(time.Millisecond) // a place of its own time
	}
	for _, key := range []string{"0", "1", "2", "5"} { // more than one slice, at the front
		e.fake.damage(Records, key, func(v []byte) []byte { v[9] ^= 1; return v })
	}
	e.clock.Advance(time.Hour)
	require.Equal(t, 3, e.sweep(100))
	require.Len(t, sweeps, 1)
	require.Equal(t, 3, sweeps[0].Count)
	require.Equal(t, 4, sweeps[0].Corrupt)
	require.Len(t, e.fake.raw(Records), 4)
	require.Len(t, e.fake.raw(Expiry), 4)

	for _, key := range []string{"0", "1", "2", "5"} {
		_, err := e.s.Get(ctx, key)
		require.ErrorIs(t, err, idem.ErrCorrupt)
		require.NoError(t, e.s.Forget(ctx, idem.Token{Key: key}))
	}
	require.Len(t, e.fake.raw(Expiry), 4, "nobody can tell where their places are")
	require.Zero(t, e.sweep(100), "there was no record")
	require.Empty(t, e.fake.raw(Expiry))
}

// A place that was left behind does not harm the record that was claimed anew.
func TestPlaceLeftBehind(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	e.granted(idem.Request{Key: "k", Retention: time.Second})
	e.fake.damage(Records, "k", func(v []byte) []byte { v[9] ^= 1; return v })
	require.NoError(t, e.s.Forget(ctx, idem.Token{Key: "k"}))
	token := e.completed("k", "new")
	require.Len(t, e.fake.raw(Expiry), 2)
	e.clock.Advance(time.Minute)
	require.Zero(t, e.sweep(100))
	r, err := e.s.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, token.Fence, r.Fence)
	require.Len(t, e.fake.raw(Expiry), 1)
	requireInStep(t, e.fake)
}

// What is about a record and what is about the database.
func TestAboutRecord(t *testing.T) {
	t.Parallel()
	require.True(t, aboutRecord(fmt.Errorf("x: %w", idem.ErrCorrupt)))
	require.True(t, aboutRecord(fmt.Errorf("x: %w", idem.ErrVersion)))
	require.False(t, aboutRecord(errDisk))
	require.False(t, aboutRecord(errors.Join(errDisk, idem.ErrClosed)))
}
