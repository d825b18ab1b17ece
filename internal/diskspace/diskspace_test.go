package diskspace_test

import (
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/diskspace"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestFree(t *testing.T) {
	t.Parallel()
	n, known := diskspace.Free(t.TempDir())
	require.Equal(t, runtime.GOOS == "linux" || runtime.GOOS == "darwin", known)
	require.Equal(t, known, n > 0)
	n, known = diskspace.Free(filepath.Join(t.TempDir(), "absent"))
	require.False(t, known, "%d", n)
}

// A free-space check refuses with ErrFull, and says where and what to do.
func TestRoom(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, diskspace.Room(dir, 0))
	require.NoError(t, diskspace.Room(dir, -1), "below zero: not checked")
	require.NoError(t, diskspace.Room(filepath.Join(dir, "absent"), math.MaxInt64), "not known: nobody is refused for it")
	if _, known := diskspace.Free(dir); !known {
		t.Skip("free space cannot be told here")
	}
	require.NoError(t, diskspace.Room(dir, 1))
	err := diskspace.Room(dir, math.MaxInt64)
	require.ErrorIs(t, err, idem.ErrFull)
	require.ErrorContains(t, err, dir)
	require.ErrorContains(t, err, "MinFree")
}

func TestSyncDir(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), []byte("x"), 0o600))
	require.NoError(t, diskspace.SyncDir(dir))
	err := diskspace.SyncDir(filepath.Join(dir, "absent"))
	if runtime.GOOS == "windows" {
		require.NoError(t, err)
		return
	}
	require.ErrorIs(t, err, fs.ErrNotExist)
}
