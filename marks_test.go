package idem_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

var errBoom = errors.New("boom")

func newStore(t *testing.T, o idem.Options) *idem.Store {
	t.Helper()
	s, err := idem.New(memory.New(memory.Options{}), o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, s.Close()) })
	return s
}

func TestMarks(t *testing.T) {
	t.Parallel()
	marks := map[string]struct {
		mark func(error) error
		is   func(error) bool
	}{
		"permanent": {idem.Permanent, idem.IsPermanent},
		"unknown":   {idem.Unknown, idem.IsUnknown},
		"retryable": {idem.Retryable, idem.IsRetryable},
	}
	only := func(name string, err error) {
		t.Helper()
		for other, m := range marks {
			assert.Equal(t, other == name, m.is(err), "%s: is it %s?", name, other)
		}
	}
	only("none", nil)
	only("none", storetest.ErrDisk)
	only("none", errors.Join(storetest.ErrDisk, errBoom))
	for name, m := range marks {
		require.NoError(t, m.mark(nil))
		err := m.mark(storetest.ErrDisk)
		assert.Equal(t, storetest.ErrDisk.Error(), err.Error())
		require.ErrorIs(t, err, storetest.ErrDisk)
		only(name, err)
		only(name, fmt.Errorf("pay: %w", err))
		only(name, errors.Join(storetest.ErrDisk, fmt.Errorf("pay: %w", err)))
		for _, inner := range marks { // whoever is further out knows more
			only(name, m.mark(fmt.Errorf("pay: %w", inner.mark(storetest.ErrDisk))))
		}
		// Of errors side by side, one in doubt is enough.
		only("unknown", errors.Join(err, idem.Unknown(errBoom)))
		only("unknown", fmt.Errorf("%w: %w", idem.Unknown(errBoom), err))
	}
	only("permanent", errors.Join(idem.Retryable(errBoom), idem.Permanent(errBoom)))
	var none *wrapping
	only("none", none)
	only("none", fmt.Errorf("pay: %w", none))
}

func TestEndingOfAClaim(t *testing.T) {
	t.Parallel()
	for _, hold := range []bool{false, true} {
		c := idem.Claim{Token: idem.Token{Key: "k", Fence: 7}, Record: idem.Record{HoldUnknown: hold}}
		undeclared := map[bool]idem.State{false: idem.Released, true: idem.Held}[hold]
		assert.Equal(t, idem.Ending{Token: c.Token, State: idem.Completed}, c.Ending(nil))
		for err, want := range map[error]idem.State{
			errBoom: undeclared, idem.Permanent(errBoom): idem.Failed, idem.Unknown(errBoom): idem.Held, idem.Retryable(errBoom): idem.Released,
		} {
			assert.Equal(t, idem.Ending{Token: c.Token, State: want, Result: []byte("boom")}, c.Ending(err))
		}
		var none *noError
		assert.Equal(t, "the error's text panicked", string(c.Ending(none).Result))
	}
}

// wrapping cannot be looked into if it is nil.
type wrapping struct{ err error }

func (e *wrapping) Error() string { return "wrapping" }
func (e *wrapping) Unwrap() error { return e.err }

// noError's text panics if it is nil.
type noError struct{ text string }

func (e *noError) Error() string { return e.text }

func TestEndIsRefused(t *testing.T) {
	t.Parallel()
	s := newStore(t, idem.Options{})
	c, err := s.Claim(t.Context(), k)
	require.NoError(t, err)
	for _, state := range []idem.State{0, idem.InFlight, 99} {
		require.ErrorIs(t, s.End(t.Context(), idem.Ending{Token: c.Token, State: state}), idem.ErrInvalid)
		require.ErrorIs(t, s.EndMany(t.Context(), []idem.Ending{{Token: c.Token, State: state}})[0], idem.ErrInvalid)
	}
	require.ErrorIs(t, s.End(t.Context(), idem.Ending{State: idem.Completed}), idem.ErrInvalid, "no token")
	assert.Equal(t, idem.InFlight, get(t, s, "k").State)
}

// Reasons are for people and are cut; a result is whole or not kept.
func TestEndOverMaxResult(t *testing.T) {
	t.Parallel()
	s := newStore(t, idem.Options{MaxResult: 3})
	for _, state := range []idem.State{idem.Completed, idem.Failed, idem.Released, idem.Held} {
		r := idem.Request{Key: state.String()}
		c, err := s.Claim(t.Context(), r)
		require.NoError(t, err)
		err = s.End(t.Context(), idem.Ending{Token: c.Token, State: state, Result: []byte("12345")})
		rec := get(t, s, r.Key)
		assert.Equal(t, state, rec.State)
		if state == idem.Completed {
			require.ErrorIs(t, err, idem.ErrTooLarge)
			assert.True(t, rec.ResultDropped)
			continue
		}
		require.NoError(t, err)
		assert.Equal(t, "123", string(rec.Result))
	}
}

// Each mark, with each policy, ends Do's claim as its Ending says.
func TestDoHeedsMarks(t *testing.T) {
	t.Parallel()
	for err, want := range map[error][2]idem.State{
		errBoom:                 {idem.Released, idem.Held},
		idem.Retryable(errBoom): {idem.Released, idem.Released},
		idem.Unknown(errBoom):   {idem.Held, idem.Held},
		idem.Permanent(errBoom): {idem.Failed, idem.Failed},
		context.Canceled:        {idem.Released, idem.Held},
	} {
		for n, hold := range []bool{false, true} {
			s := newStore(t, idem.Options{})
			_, _, got := idem.Do(t.Context(), s, idem.Request{Key: "k", HoldUnknown: hold}, func(context.Context, idem.Claim) (int, error) {
				return 0, err
			})
			require.Equal(t, err, got)
			assert.Equal(t, want[n], get(t, s, "k").State)
		}
	}
}
