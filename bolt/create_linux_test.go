package bolt

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

// mounted makes a file system of the given kind in a file and mounts it.
func mounted(t *testing.T, mkfs string, mount ...string) (dir string) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("mounting takes root")
	}
	for _, tool := range []string{mkfs, mount[0], "losetup"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("%s is not installed", tool)
		}
	}
	image := filepath.Join(t.TempDir(), "image")
	require.NoError(t, os.WriteFile(image, nil, 0o600))
	require.NoError(t, os.Truncate(image, 64<<20))
	out, err := exec.Command(mkfs, image).CombinedOutput()
	require.NoError(t, err, "%s", out)
	out, err = exec.Command("losetup", "--find", "--show", image).CombinedOutput()
	if err != nil {
		t.Skipf("there is no loop device here: %v: %s", err, out)
	}
	device := strings.TrimSpace(string(out))
	t.Cleanup(func() { require.NoError(t, exec.Command("losetup", "--detach", device).Run()) })
	dir = t.TempDir()
	if out, err := exec.Command(mount[0], append(mount[1:], device, dir)...).CombinedOutput(); err != nil {
		t.Skipf("it cannot be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() {
		out, err := exec.Command("umount", dir).CombinedOutput()
		require.NoError(t, err, "%s", out)
	})
	require.NoError(t, os.WriteFile(filepath.Join(dir, "a"), nil, 0o600))
	require.Error(t, os.Link(filepath.Join(dir, "a"), filepath.Join(dir, "b")), "links where the test wants none")
	return dir
}

// File systems without links: the kernel's FAT and exFAT have a rename that replaces
// nothing; a driver outside the kernel may have none, and the store is then refused.
func TestFileSystemsWithoutLinks(t *testing.T) {
	for name, c := range map[string]struct {
		mkfs  string
		mount []string
	}{
		"vfat":       {"mkfs.vfat", []string{"mount", "-t", "vfat"}},
		"exfat":      {"mkfs.exfat", []string{"mount", "-t", "exfat"}},
		"exfat-fuse": {"mkfs.exfat", []string{"mount.exfat-fuse"}},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(mounted(t, c.mkfs, c.mount...), fileName)
			b, err := Open(path, Options{MapSize: 1 << 20, MinFree: -1})
			if errors.Is(err, errors.ErrUnsupported) {
				require.ErrorContains(t, err, "make the store on another one and copy its file here")
				require.NoFileExists(t, path)
				// As the message says.
				made := newFilled(t, 1)
				content, err := os.ReadFile(made)
				require.NoError(t, err)
				require.NoError(t, os.WriteFile(path, content, 0o600))
				b, err = Open(path, Options{MapSize: 1 << 20, MinFree: -1})
				require.NoError(t, err)
			} else {
				require.NoError(t, err)
				o, err := Options{}.withDefaults()
				require.NoError(t, err)
				before := storetest.Digest(t, path)
				require.NoError(t, create(path, o, os.Link), "another maker's store is there")
				require.Equal(t, before, storetest.Digest(t, path))
			}
			s := storetest.Open(t, b, idem.Options{})
			storetest.Claim(t, s, "k")
			require.NoError(t, s.Close())
		})
	}
}
