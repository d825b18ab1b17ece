package callback_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/callback"
	"github.com/idemkv/idem/internal/selfexec"
)

// A file cut short under its memory map faults on reading. That is the
// engine's fault and not fn's: it comes back as an error that breaks the store,
// and the process lives.
func TestMemoryFault(t *testing.T) {
	t.Parallel()
	selfexec.NeedsFaultAddress(t)
	f, err := os.Create(filepath.Join(t.TempDir(), "map"))
	require.NoError(t, err)
	defer func() { require.NoError(t, f.Close()) }()
	size := 4 * os.Getpagesize()
	require.NoError(t, f.Truncate(int64(size)))
	m, err := syscall.Mmap(int(f.Fd()), 0, size, syscall.PROT_READ, syscall.MAP_SHARED)
	require.NoError(t, err)
	defer func() { require.NoError(t, syscall.Munmap(m)) }()
	require.NoError(t, f.Truncate(0))

	result, err := callback.Run(func() ([]byte, error) { return []byte{m[size-1]}, nil })
	require.Nil(t, result)
	var fault *callback.Fault
	require.True(t, errors.As(err, &fault), "%v", err)
	require.ErrorContains(t, err, "memory fault: ")
	require.NotContains(t, err.Error(), "\n")
	var where interface{ Stack() string }
	require.ErrorAs(t, err, &where)
	require.Contains(t, where.Stack(), "TestMemoryFault")
	require.NotPanics(t, func() { callback.Rethrow(err) })
}
