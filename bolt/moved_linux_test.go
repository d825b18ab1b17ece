package bolt

import (
	"context"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
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

// A file that is mounted by itself, as into a container, keeps its path when it is
// removed or replaced outside. What is written to it then is lost with the mount.
func TestAMountedFileThatWasRemovedOutsideAnswersNothing(t *testing.T) {
	t.Parallel()
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	for name, lose := range map[string]func(path string) error{
		"removed":  os.Remove,
		"replaced": func(path string) error { return os.Rename(newFilled(t, 1), path) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			outside, inside := newFilled(t, 1), filepath.Join(t.TempDir(), fileName)
			require.NoError(t, os.WriteFile(inside, nil, 0o600))
			if err := syscall.Mount(outside, inside, "", syscall.MS_BIND, ""); err != nil {
				t.Skipf("nothing can be mounted here: %v", err)
			}
			t.Cleanup(func() { require.NoError(t, syscall.Unmount(inside, 0)) })
			s := storeAt(t, inside, idem.Options{SweepInterval: -1})
			storetest.Claim(t, s, "before")

			require.NoError(t, lose(outside))
			_, err := s.Claim(context.Background(), idem.Request{Key: "after"})
			require.ErrorIs(t, err, idem.ErrBroken)
			require.ErrorContains(t, err, inside+" was removed or replaced beneath its mount")
			require.NoError(t, s.Close())
		})
	}
}
