//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package diskspace

import (
	"os"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// A file system that cannot lock directories refuses nobody; any other error does.
func TestLockDirWhereFlockFails(t *testing.T) {
	t.Parallel()
	failing := func(err error) func(*os.File, int) error {
		return func(*os.File, int) error { return err }
	}
	for _, unable := range []syscall.Errno{syscall.EBADF, syscall.ENOLCK, syscall.EOPNOTSUPP, syscall.ENOSYS} {
		info, release, err := lockDirBy(t.TempDir(), syscall.LOCK_EX, failing(unable))
		require.NoError(t, err)
		require.Nil(t, info)
		require.NoError(t, release())
	}
	_, _, err := lockDirBy(t.TempDir(), syscall.LOCK_EX, failing(syscall.EIO))
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorContains(t, err, "locking ")
}
