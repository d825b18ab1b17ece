package idem_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/memory"
)

type receipt struct {
	ID    string
	Cents int64
	Lines []string
}

type blob []byte

func TestDoValues(t *testing.T) {
	t.Parallel()
	kept(t, "0", 0)
	kept(t, "empty string", "")
	kept(t, "false", false)
	kept(t, "nil pointer", (*receipt)(nil))
	kept(t, "nil slice", []string(nil))
	kept(t, "empty slice", []string{})
	kept(t, "nil map", map[string]int(nil))
	kept(t, "nil interface", any(nil))
	kept(t, "nil bytes", []byte(nil))
	kept(t, "empty bytes", []byte{})
	kept(t, "empty struct", struct{}{})
	kept(t, "bytes", []byte{0, 0xff, '"', '\n'})
	kept(t, "bytes of a type of their own", blob{0, 0xff})
	kept(t, "raw JSON", json.RawMessage(`{"a":[1,2]}`))
	kept(t, "struct", receipt{"r1", 1999, []string{"<a>", "\x00\u2028"}})
	kept(t, "pointer", &receipt{ID: "r1"})
	kept(t, "large number", int64(math.MaxInt64))
	kept(t, "time", time.Date(2026, 11, 22, 8, 0, 0, 1, time.UTC))
}

// Duplicates share the bytes of a result. What they append is their own.
func TestAppendingToAReplayCopiesIt(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{})
	mine, _, err := idem.Do(t.Context(), s, k, returning([]byte("paid ")))
	require.NoError(t, err)
	mine[0] = 'X' // the first caller shares nothing with the store
	var replays [2][]byte
	for i := range replays {
		v, replayed, err := idem.Do(t.Context(), s, k, notRun[[]byte])
		require.NoError(t, err)
		require.True(t, replayed)
		replays[i] = append(v, "ab"[i])
	}
	assert.Equal(t, "paid a", string(replays[0]))
	assert.Equal(t, "paid b", string(replays[1]))
}

// The value of an interface is encoded as what a later call can decode.
func TestDoBytesInAnInterface(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{})
	_, _, err := idem.Do(t.Context(), s, k, returning[any]([]byte{0xff}))
	require.NoError(t, err)
	v, replayed, err := idem.Do(t.Context(), s, k, notRun[any])
	require.NoError(t, err)
	assert.True(t, replayed)
	assert.Equal(t, "/w==", v, "bytes in JSON are base64")
}

type panicking struct{}

func (panicking) MarshalJSON() ([]byte, error) { panic("no JSON of this") }

type refusing struct{}

var errRefusing = errors.New("no JSON of this either")

func (refusing) MarshalJSON() ([]byte, error) { return nil, errRefusing }

// The work is done; that its value cannot be kept does not make it run again.
func TestDoValueThatCannotBeEncoded(t *testing.T) {
	t.Parallel()
	notKept(t, "channel", "cannot be encoded", make(chan int))
	notKept(t, "function", "cannot be encoded", func() {})
	notKept(t, "not a number", "cannot be encoded", math.NaN())
	notKept(t, "an encoder that refuses", "cannot be encoded", refusing{})
	notKept(t, "an encoder that panics", "cannot be encoded", panicking{})

	s := open(t, memory.New(memory.Options{}), idem.Options{})
	_, _, err := idem.Do(t.Context(), s, k, returning(refusing{}))
	require.ErrorIs(t, err, errRefusing, "the error says why")
}

func TestDoValueThatCannotBeEncodedNorRecorded(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{})
	_, _, err := idem.Do(t.Context(), s, k, func(ctx context.Context, c idem.Claim) (refusing, error) {
		return refusing{}, s.Forget(ctx, idem.Token{Key: "k"})
	})
	require.ErrorIs(t, err, errRefusing)
	require.ErrorIs(t, err, idem.ErrFenced)
}

// Likewise one that is too large.
func TestDoValueOverMaxResult(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{MaxResult: 10})
	v, replayed, err := idem.Do(t.Context(), s, k, returning("longer than ten"))
	require.ErrorIs(t, err, idem.ErrTooLarge)
	assert.False(t, replayed)
	assert.Equal(t, "longer than ten", v, "the caller has it")
	assert.True(t, get(t, s, "k").ResultDropped)

	v, replayed, err = idem.Do(t.Context(), s, k, notRun[string])
	require.ErrorIs(t, err, idem.ErrTooLarge)
	assert.True(t, replayed)
	assert.Empty(t, v)

	// What will not be recorded is not decoded either.
	_, _, err = idem.Do(t.Context(), s, idem.Request{Key: "large"}, returning(panicsDecoding("longer than ten")))
	require.ErrorIs(t, err, idem.ErrTooLarge)
	require.ErrorContains(t, err, "over Options.MaxResult")
}

// A result that is not of the type asked for is an error, and nothing is run.
func TestDoOfAnotherType(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{})
	_, _, err := idem.Do(t.Context(), s, k, returning("text"))
	require.NoError(t, err)
	_, replayed, err := idem.Do(t.Context(), s, k, notRun[int])
	require.ErrorContains(t, err, "not JSON of a int")
	assert.True(t, replayed)
}

// Do answers as Claim does when it may not run fn.
func TestDoRefused(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{MaxAttempts: 1})
	ctx := t.Context()
	_, _, err := idem.Do(ctx, s, idem.Request{}, notRun[int])
	require.ErrorIs(t, err, idem.ErrInvalid)
	_, _, err = idem.Do(ctx, s, idem.Request{Key: "k", Lease: -1}, notRun[int])
	require.ErrorIs(t, err, idem.ErrInvalid)

	a, b := idem.FingerprintOf([]byte("a")), idem.FingerprintOf([]byte("b"))
	_, _, err = idem.Do(ctx, s, idem.Request{Key: "k", Fingerprint: a}, returning(1))
	require.NoError(t, err)
	_, _, err = idem.Do(ctx, s, idem.Request{Key: "k", Fingerprint: b}, notRun[int])
	require.Equal(t, idem.ErrMismatch, err)

	c := mustClaim(t, s, idem.Request{Key: "used"})
	require.NoError(t, s.Release(ctx, c.Token, nil))
	_, _, err = idem.Do(ctx, s, idem.Request{Key: "used"}, notRun[int])
	require.Equal(t, idem.ErrExhausted, err)
}

// What a duplicate waited for may be another's by the time it wakes.
func TestDoWakesToSomethingElse(t *testing.T) {
	a, b := idem.FingerprintOf([]byte("a")), idem.FingerprintOf([]byte("b"))
	for name, c := range map[string]struct {
		then func(s *idem.Store, token idem.Token) error
		err  error
		runs bool
	}{
		"forgotten: it runs": {func(s *idem.Store, token idem.Token) error {
			return s.Forget(context.Background(), idem.Token{Key: token.Key})
		}, nil, true},
		"forgotten and claimed by another request": {func(s *idem.Store, token idem.Token) error {
			if err := s.Forget(context.Background(), idem.Token{Key: token.Key}); err != nil {
				return err
			}
			_, err := s.Claim(context.Background(), idem.Request{Key: token.Key, Fingerprint: b})
			return err
		}, idem.ErrMismatch, false},
		"failed": {func(s *idem.Store, token idem.Token) error {
			return s.Fail(context.Background(), token, []byte("why"))
		}, idem.ErrFailed, false},
		"held": {func(s *idem.Store, token idem.Token) error {
			return s.Hold(context.Background(), token, nil)
		}, idem.ErrHeld, false},
		"closed": {func(s *idem.Store, _ idem.Token) error { return s.Close() }, idem.ErrClosed, false},
	} {
		t.Run(name, func(t *testing.T) {
			doTest(t, idem.Options{}, func(t *testing.T, s *idem.Store) {
				claim := mustClaim(t, s, idem.Request{Key: "k", Fingerprint: a})
				done, ran := make(chan error, 1), false
				go func() {
					_, _, err := idem.Do(t.Context(), s, idem.Request{Key: "k", Fingerprint: a}, func(context.Context, idem.Claim) (int, error) {
						ran = true
						return 1, nil
					})
					done <- err
				}()
				time.Sleep(time.Second)
				require.NoError(t, c.then(s, claim.Token))
				require.ErrorIs(t, <-done, c.err)
				assert.Equal(t, c.runs, ran)
			})
		})
	}
}
