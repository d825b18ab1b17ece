package idem_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// No goroutine outlives the stores of these tests.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// open returns a store on b that is closed with the test.
func open(t testing.TB, b engine.Backend, o idem.Options) *idem.Store {
	t.Helper()
	s, err := idem.New(b, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}
