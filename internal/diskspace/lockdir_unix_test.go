//go:build darwin || dragonfly || freebsd || linux || netbsd || openbsd

package diskspace

import (
	"os"
	"path/filepath"
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

// A file that cannot be opened is not taken for one that is not there.
func TestShareFileThatCannotBeOpened(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "file")
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	_, err := ShareFile(filepath.Join(file, "below"))
	require.ErrorIs(t, err, syscall.ENOTDIR)
	none, err := ShareFile(file + " that is not there")
	require.NoError(t, err)
	require.NoError(t, none.Close())
}

// A path that cannot be looked up is no sign that the file moved.
func TestPathThatCannotBeLookedUp(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "dir")
	file := filepath.Join(dir, "file")
	require.NoError(t, os.Mkdir(dir, 0o700))
	require.NoError(t, os.WriteFile(file, nil, 0o600))
	id, err := Identify(file)
	require.NoError(t, err)
	require.NoError(t, os.Rename(dir, dir+".old"))
	require.NoError(t, os.Symlink(dir, dir)) // a loop: ELOOP
	require.NoError(t, id.Check())
}
