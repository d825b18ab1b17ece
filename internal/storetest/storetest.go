// Package storetest has a stub engine, and what the tests of several packages do with a store.
package storetest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/selfexec"
)

// Open opens a store on b. It is closed at the end of the test, if it is not by then. Its
// commits may take any time unless o says otherwise, because they do on a busy machine.
func Open(t testing.TB, b engine.Backend, o idem.Options) *idem.Store {
	t.Helper()
	o.Stall = cmp.Or(o.Stall, -1)
	s, err := idem.New(b, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Claim claims key, and requires that it is granted.
func Claim(t testing.TB, s *idem.Store, key string) idem.Claim {
	t.Helper()
	c, err := s.Claim(context.Background(), idem.Request{Key: key})
	require.NoError(t, err, "Claim")
	return c
}

// Complete claims key and completes it.
func Complete(t testing.TB, s *idem.Store, key, result string) idem.Claim {
	t.Helper()
	c := Claim(t, s, key)
	require.NoError(t, s.Complete(context.Background(), c.Token, []byte(result)), "Complete")
	return c
}

// Refused claims key, and requires that the answer is want.
func Refused(t testing.TB, s *idem.Store, key string, want error) idem.Record {
	t.Helper()
	c, err := s.Claim(context.Background(), idem.Request{Key: key})
	require.ErrorIs(t, err, want, "Claim")
	require.Zero(t, c.Token, "a refused claim has no token")
	return c.Record
}

// Digest is of every file at or below path but locks, by name and content.
func Digest(t testing.TB, path string) map[string][32]byte {
	t.Helper()
	sums := map[string][32]byte{}
	require.NoError(t, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		b, err := os.ReadFile(name)
		sums[name] = sha256.Sum256(b)
		return err
	}))
	return sums
}

// State is of everything at or below path, directories and locks too: content, size, mode
// and time of change.
func State(t testing.TB, path string) map[string]string {
	t.Helper()
	state := map[string]string{}
	require.NoError(t, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		var sum [32]byte
		if d.Type().IsRegular() {
			b, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			sum = sha256.Sum256(b)
		}
		state[name] = fmt.Sprintf("%v %d bytes, %v, %x", info.Mode(), info.Size(), info.ModTime().UnixNano(), sum[:8])
		return nil
	}))
	return state
}

// ReadOnlyMount mounts dir once more where nothing can be written, or skips the test where
// that is not possible, and returns the place.
func ReadOnlyMount(t testing.TB, dir string) (place string) {
	t.Helper()
	place = t.TempDir()
	for _, args := range [...][]string{{"--bind", dir, place}, {"-o", "remount,bind,ro", place}} {
		if out, err := exec.Command("mount", args...).CombinedOutput(); err != nil {
			t.Skipf("nothing can be mounted read-only here: %v: %s", err, out)
		}
		if args[0] == "--bind" {
			t.Cleanup(func() { _ = exec.Command("umount", place).Run() })
		}
	}
	require.Error(t, os.WriteFile(filepath.Join(place, "file"), nil, 0o600))
	return place
}

// SmallDisk mounts a file system in memory of so many bytes, or skips the test where that
// is not possible, and returns the place.
func SmallDisk(t testing.TB, bytes int) (place string) {
	t.Helper()
	place = t.TempDir()
	if out, err := exec.Command("mount", "-t", "tmpfs", "-o", fmt.Sprint("size=", bytes), "tmpfs", place).CombinedOutput(); err != nil {
		t.Skipf("no file system can be mounted here: %v: %s", err, out)
	}
	t.Cleanup(func() { _ = exec.Command("umount", place).Run() })
	return place
}

// Names returns the names in dir.
func Names(t testing.TB, dir string) (names []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	require.NoError(t, err)
	for _, d := range entries {
		names = append(names, d.Name())
	}
	return names
}

// RefusesToOpen requires that open, of what is at path, answers want in one line that names
// path, and that nothing there or beside it is changed or left behind. That it ends is for
// go test to watch.
func RefusesToOpen[B io.Closer](t testing.TB, path string, open func() (B, error), want error) error {
	t.Helper()
	before := Digest(t, filepath.Dir(path))
	b, err := open()
	if err == nil {
		_ = b.Close()
	}
	require.ErrorIs(t, err, want)
	require.Nil(t, b)
	require.ErrorContains(t, err, path)
	require.NotContains(t, err.Error(), "\n", "one line, for logs")
	require.Equal(t, before, Digest(t, filepath.Dir(path)), "what was refused was changed, or something was left")
	return err
}

// Elsewhere runs the test of that name in another process, with env set to value, and
// requires that it passes there.
func Elsewhere(t testing.TB, name, env, value string) {
	t.Helper()
	cmd := selfexec.Command(t.Context(), "-test.run=^"+name+"$", "-test.v")
	cmd.Env = selfexec.Env(env + "=" + value)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "PASS: "+name)
}
