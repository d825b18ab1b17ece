package main

import (
	"context"
	"net"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/examples/payments/service"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The service ends in order when it is told to, and says why when it cannot serve. Each
// time it lets go of the file.
func TestServe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "payments.db")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, serve(ctx, "localhost:0", path))

	taken, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	defer taken.Close()
	require.ErrorContains(t, serve(t.Context(), taken.Addr().String(), path), "listen")
	require.Error(t, serve(t.Context(), "localhost:0", filepath.Dir(path)), "a folder is no store")

	backend, err := bolt.Open(path, bolt.Options{})
	require.NoError(t, err)
	require.NoError(t, backend.Close())

	receipt, err := bank(t.Context(), "key", service.Payment{Cents: 1999})
	require.NoError(t, err)
	require.Equal(t, "paid 1999 cents, reference key\n", string(receipt))
}
