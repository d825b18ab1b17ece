package diskspace_test

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/diskspace"
)

func TestIdentityNoticesWhatHappensToThePath(t *testing.T) {
	t.Parallel()
	if runtime.GOOS == "windows" {
		t.Skip("Windows does not let open files be moved or removed")
	}
	for _, dir := range []bool{false, true} {
		put := func(path string) {
			if dir {
				require.NoError(t, os.Mkdir(path, 0o700))
			} else {
				require.NoError(t, os.WriteFile(path, []byte("x"), 0o600))
			}
		}
		parent := filepath.Join(t.TempDir(), "parent")
		require.NoError(t, os.Mkdir(parent, 0o700))
		path := filepath.Join(parent, "store")
		put(path)
		id, err := diskspace.Identify(path)
		require.NoError(t, err)
		require.NoError(t, id.Check())

		require.NoError(t, os.Rename(path, path+".old"))
		require.ErrorContains(t, id.Check(), "moved or removed")
		put(path)
		require.ErrorContains(t, id.Check(), "replaced")
		require.NoError(t, os.Remove(path))
		require.NoError(t, os.Rename(path+".old", path))
		require.NoError(t, id.Check(), "it is back")

		require.NoError(t, os.Rename(parent, parent+".old"))
		require.ErrorContains(t, id.Check(), "moved or removed", "the folder above it moved")
		require.NoError(t, os.WriteFile(parent, nil, 0o600))
		require.ErrorContains(t, id.Check(), "moved or removed", "a file stands where the folder was")
		require.NoError(t, os.Remove(parent))
		require.NoError(t, os.Rename(parent+".old", parent))
		require.NoError(t, id.Check())
	}
	_, err := diskspace.Identify(filepath.Join(t.TempDir(), "absent"))
	require.ErrorIs(t, err, os.ErrNotExist)
}
