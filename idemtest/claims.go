package idemtest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var claimCases = []testCase{
	{"A1 one owner", oneOwner},
}

func oneOwner(t *testing.T, e *env) {
	const n = 32
	e.open(idem.Options{})
	errs := make([]error, n)
	e.together(n, func(i int) { _, errs[i] = e.s.Claim(e.ctx, idem.Request{Key: "k"}) })
	granted := 0
	for _, err := range errs {
		if err == nil {
			granted++
			continue
		}
		require.ErrorIs(t, err, idem.ErrInFlight)
	}
	require.Equal(t, 1, granted)
}
