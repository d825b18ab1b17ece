package diskspace_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/diskspace"
)

func TestLockDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	_, err := diskspace.LockDir(dir)
	require.ErrorIs(t, err, fs.ErrNotExist)
	require.NoError(t, os.Mkdir(dir, 0o700))
	l, err := diskspace.LockDir(dir)
	require.NoError(t, err)
	require.NoError(t, l.Check())
	switch runtime.GOOS {
	case "linux", "darwin":
	default:
		t.Skip("directories cannot be locked here, or it is not known")
	}

	read, err := os.Open(dir) // as a program does that walks the directory
	require.NoError(t, err)
	require.NoError(t, read.Close())
	_, err = diskspace.LockDir(dir)
	require.ErrorIs(t, err, idem.ErrLocked)
	require.ErrorContains(t, err, dir)
	link := dir + ".link"
	require.NoError(t, os.Symlink(dir, link))
	_, err = diskspace.LockDir(link)
	require.ErrorIs(t, err, idem.ErrLocked)
	require.NoError(t, os.Rename(dir, dir+".new"))
	_, err = diskspace.LockDir(dir + ".new")
	require.ErrorIs(t, err, idem.ErrLocked)
	require.Error(t, l.Check())

	require.NoError(t, l.Close())
	l, err = diskspace.LockDir(dir + ".new")
	require.NoError(t, err)
	require.NoError(t, l.Close())
}

func BenchmarkIdentityCheck(b *testing.B) {
	id, err := diskspace.Identify(b.TempDir())
	require.NoError(b, err)
	for b.Loop() {
		if err := id.Check(); err != nil {
			b.Fatal(err)
		}
	}
}
