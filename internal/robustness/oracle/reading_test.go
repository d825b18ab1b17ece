package oracle

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// unread is a KV whose files cannot be read.
type unread struct{ err error }

func (u unread) Get(string) []byte  { panic(u.err) }
func (u unread) Put(string, []byte) {}

// TestFunctionsThatCannotReadFailAsToldTo: the journal says beforehand which mark a
// function fails with, and a failing read does not change it.
func TestFunctionsThatCannotReadFailAsToldTo(t *testing.T) {
	io := errors.New("input/output error")
	for _, op := range []*Op{{}, {Final: true}, {Doubt: true}} {
		_, err := reading(op, func(kv KV) ([]byte, error) { return kv.Get("a balance"), nil })(unread{io})
		require.ErrorIs(t, err, errOwn)
		require.ErrorIs(t, err, io)
		require.Equal(t, errOwn.Error(), err.Error(), "it may be recorded")
		require.Equal(t, op.Final, idem.IsPermanent(err))
		require.Equal(t, op.Doubt, idem.IsUnknown(err))
	}
}
