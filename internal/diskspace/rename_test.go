package diskspace_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/diskspace"
)

func TestRenameNewReplacesNothing(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	require.NoError(t, os.WriteFile(from, []byte("new"), 0o600))
	require.NoError(t, os.WriteFile(to, []byte("old"), 0o600))
	err := diskspace.RenameNew(from, to)
	if errors.Is(err, errors.ErrUnsupported) {
		t.Skipf("the file system of %s, or this system, has no such rename: %v", dir, err)
	}
	require.ErrorIs(t, err, fs.ErrExist)
	content, err := os.ReadFile(to)
	require.NoError(t, err)
	require.Equal(t, "old", string(content))
	require.FileExists(t, from)

	require.NoError(t, os.Remove(to))
	require.NoError(t, diskspace.RenameNew(from, to))
	content, err = os.ReadFile(to)
	require.NoError(t, err)
	require.Equal(t, "new", string(content))
	require.NoFileExists(t, from)

	require.ErrorIs(t, diskspace.RenameNew(from, to), fs.ErrNotExist)
}
