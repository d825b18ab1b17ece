package bolt

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// A bind mount gives a file a second name that no comparison of names finds out.
func TestASecondOpenThroughABindMount(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	from, to := t.TempDir(), t.TempDir()
	if err := syscall.Mount(from, to, "", syscall.MS_BIND, ""); err != nil {
		t.Skipf("nothing can be mounted here: %v", err)
	}
	t.Cleanup(func() { require.NoError(t, syscall.Unmount(to, 0)) })
	b := mustOpen(t, filepath.Join(from, fileName), Options{})
	_, err := Open(filepath.Join(to, fileName), Options{LockTimeout: 1})
	require.ErrorIs(t, err, idem.ErrLocked)
	require.NoError(t, b.Close())
	require.NoError(t, mustOpen(t, filepath.Join(to, fileName), Options{}).Close())
}
