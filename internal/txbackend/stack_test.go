package txbackend

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// A panic is one line in the error, and its stack is there for whoever asks.
func TestStackOfAPanic(t *testing.T) {
	t.Parallel()
	f, h := newFake(), &host{}
	b := New(f)
	h.bind(t, b)
	f.on(visible, func() error { panic("lost\n\tgoroutine 1 [running]") })
	err := b.Update(ctx, sameCommit(nothing))
	require.ErrorIs(t, err, idem.ErrBroken)
	require.ErrorContains(t, err, "panic in the engine: lost goroutine 1 [running]")
	require.NotContains(t, err.Error(), "\n")
	require.Less(t, len(err.Error()), 200)
	var s interface{ Stack() string }
	require.ErrorAs(t, err, &s)
	require.True(t, strings.Contains(s.Stack(), "TestStackOfAPanic"), s.Stack())
	require.NoError(t, b.Close())
}
