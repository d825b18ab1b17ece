package pebble

import (
	"context"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// A store that was closed is sealed, one that is open is not.
func TestSeal(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	seal := filepath.Join(dir, sealName)
	filled(t, dir)
	text, err := os.ReadFile(seal)
	require.NoError(t, err)
	for _, name := range []string{" MANIFEST-", ".log\n", " OPTIONS-", " marker.manifest.", " end\n"} {
		require.Contains(t, string(text), name)
	}
	require.NotContains(t, string(text), "LOCK")
	b := mustOpen(t, dir, Options{})
	require.NoFileExists(t, seal)
	require.NoError(t, b.Close())
	require.FileExists(t, seal)
	require.NoFileExists(t, filepath.Join(dir, newSeal))
}

// C5: whatever was changed in a closed store, where Pebble would take the change for
// what a power cut has left, is found before anything is touched.
func TestC5SealIsHeeded(t *testing.T) {
	t.Parallel()
	whole := filepath.Join(t.TempDir(), "store")
	filled(t, whole)
	names, err := os.ReadDir(filepath.Join(whole, dbName))
	require.NoError(t, err)
	changes := map[string]func(path string, b []byte) error{
		"a bit at the end":   func(path string, b []byte) error { b[len(b)-1] ^= 4; return os.WriteFile(path, b, 0o600) },
		"a bit at the start": func(path string, b []byte) error { b[0] ^= 1; return os.WriteFile(path, b, 0o600) },
		"a byte too many":    func(path string, b []byte) error { return os.WriteFile(path, append(b, 0), 0o600) },
		"it is shorter":      func(path string, b []byte) error { return os.WriteFile(path, b[:len(b)/2], 0o600) },
		"it is gone":         func(path string, _ []byte) error { return os.Remove(path) },
	}
	tried := 0
	for _, entry := range names {
		for what, change := range changes {
			info, err := entry.Info()
			require.NoError(t, err)
			if entry.Name() == "LOCK" || info.Size() == 0 && what != "it is gone" && what != "a byte too many" {
				continue
			}
			if strings.HasSuffix(entry.Name(), ".sst") && strings.HasPrefix(what, "a bit") {
				continue // Pebble's own checksums are heeded
			}
			tried++
			dir := filepath.Join(t.TempDir(), "store")
			require.NoError(t, os.CopyFS(dir, os.DirFS(whole)))
			path := filepath.Join(dir, dbName, entry.Name())
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			require.NoError(t, change(path, b))
			refused(t, dir, idem.ErrCorrupt)
		}
	}
	require.Greater(t, tried, 15)
}

func TestC5DamagedSeal(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	filled(t, dir)
	seal := filepath.Join(dir, sealName)
	text, err := os.ReadFile(seal)
	require.NoError(t, err)
	for at := range text {
		text[at] ^= 0x10
		require.NoError(t, os.WriteFile(seal, text, 0o600))
		refused(t, dir, idem.ErrCorrupt)
		text[at] ^= 0x10
	}
	for _, n := range []int{0, 1, 10, len(text) / 2, len(text) - 1} {
		require.NoError(t, os.WriteFile(seal, text[:n], 0o600))
		refused(t, dir, idem.ErrCorrupt)
	}
	newer := sealTitle + "2\nwhat we do not know\n"
	newer += fmt.Sprintf("%08x end\n", crc32.Checksum([]byte(newer), castagnoli))
	require.NoError(t, os.WriteFile(seal, []byte(newer), 0o600))
	refused(t, dir, idem.ErrVersion)
	require.NoError(t, os.Remove(seal))
	require.NoError(t, mustOpen(t, dir, Options{}).Close(), "the message says that it may be removed")
}

// C3: the seal is gone for good before anything is changed. Whatever a power cut leaves
// of an opening and what follows it can be opened.
func TestPowerWhileASealIsBroken(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFaulty()
	s := f.open(t)
	_, err := s.Claim(ctx, idem.Request{Key: "first"})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	var mu sync.Mutex // Pebble compacts beside what opens it
	var images []*vfs.MemFS
	sealed := 0
	f.on(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			mu.Lock()
			defer mu.Unlock()
			for _, percent := range []int{0, 50, 100} {
				image := f.crash(percent)
				images = append(images, image)
				if _, err := image.Stat("store/" + sealName); err == nil {
					sealed++
				}
			}
		}
		return nil
	})
	s = f.open(t)
	_, err = s.Claim(ctx, idem.Request{Key: "second"})
	require.NoError(t, err)
	require.NoError(t, s.Close())
	require.Greater(t, sealed, 3)
	require.Greater(t, len(images)-sealed, 3)
	for _, image := range images {
		again := (&faulty{mem: image}).open(t)
		_, err := again.Get(ctx, "first")
		require.NoError(t, err)
		require.NoError(t, again.Close())
	}
}

// C4: a seal that cannot be written is told by Close, and is none.
func TestC4SealFails(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, fails := range []func(op errorfs.Op) bool{
		func(op errorfs.Op) bool { return op.Kind == errorfs.OpCreate },
		func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWrite },
		isSync,
		func(op errorfs.Op) bool { return op.Kind == errorfs.OpRename },
	} {
		f := newFaulty()
		s := f.open(t)
		c, err := s.Claim(ctx, idem.Request{Key: "first"})
		require.NoError(t, err)
		f.on(func(op errorfs.Op) error {
			if strings.HasSuffix(op.Path, newSeal) && fails(op) {
				return syscall.ENOSPC
			}
			return nil
		})
		require.ErrorIs(t, s.Close(), syscall.ENOSPC)
		f.on(func(errorfs.Op) error { return nil })
		_, err = f.mem.Stat("store/" + sealName)
		require.ErrorIs(t, err, os.ErrNotExist)
		s = f.open(t)
		rec, err := s.Get(ctx, "first")
		require.NoError(t, err)
		require.Equal(t, c.Token, rec.Token())
		require.NoError(t, s.Close())
	}
}
