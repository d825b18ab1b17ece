package operator_test

import (
	"errors"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/operator"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newStore(t *testing.T, o idem.Options) *idem.Store {
	t.Helper()
	if o.Clock == nil {
		o.Clock = idemtest.NewClock(now)
	}
	o.SweepInterval = -1
	return storetest.Open(t, memory.New(memory.Options{}), o)
}

// claimed claims key and brings it to state.
func claimed(t *testing.T, s *idem.Store, key string, state idem.State) idem.Token {
	t.Helper()
	tok := storetest.Claim(t, s, key).Token
	ctx, payload := t.Context(), []byte("payload")
	switch state {
	case idem.Completed:
		require.NoError(t, s.Complete(ctx, tok, payload))
	case idem.Failed:
		require.NoError(t, s.Fail(ctx, tok, payload))
	case idem.Released:
		require.NoError(t, s.Release(ctx, tok, payload))
	case idem.Held:
		require.NoError(t, s.Hold(ctx, tok, payload))
	}
	return tok
}

func contains(actions []operator.Action, a operator.Action) bool { return slices.Contains(actions, a) }

// orUnchanged returns err. If it is nil, the store may have been asked for what it already
// had: the record must be as it was, and an error says so.
func orUnchanged(t *testing.T, s *idem.Store, tok idem.Token, state idem.State, err error) error {
	t.Helper()
	rec, getErr := s.Get(t.Context(), tok.Key)
	require.NoError(t, getErr)
	require.Equal(t, state, rec.State)
	require.Equal(t, tok.Fence, rec.Fence)
	require.Equal(t, "payload", string(rec.Result))
	if err == nil {
		return errors.New("nothing changed")
	}
	require.ErrorIs(t, err, operator.ErrLost)
	return err
}
