package pebble

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

// opens reports whether op needs a file descriptor.
func opens(op errorfs.Op) bool {
	switch op.Kind {
	case errorfs.OpCreate, errorfs.OpOpen, errorfs.OpOpenDir, errorfs.OpReuseForWrite, errorfs.OpList:
		return true
	}
	return false
}

// A process that is out of descriptors for a while, as one whose clients all connect at
// once, does not lose its store: logs, flushes, compactions and reads wait.
func TestStoreOutlivesALackOfDescriptors(t *testing.T) {
	t.Parallel()
	for _, lack := range []error{syscall.EMFILE, syscall.ENFILE} {
		f := newFaulty()
		b, err := Open("store", smallOptions(f))
		require.NoError(t, err)
		s := storetest.Open(t, b, idem.Options{SweepInterval: -1, CacheBytes: -1})
		var mu sync.Mutex
		tries := map[string]int{}
		f.on(func(op errorfs.Op) error {
			if !opens(op) {
				return nil
			}
			mu.Lock()
			defer mu.Unlock()
			what := fmt.Sprint(op.Kind, op.Path)
			if tries[what]++; tries[what] <= 3 {
				return lack
			}
			return nil
		})
		for i := range 40 { // several logs, tables and compactions
			storetest.Complete(t, s, fmt.Sprint(i), string(make([]byte, 10<<10)))
		}
		require.NoError(t, b.DB().Flush())
		for i := range 40 {
			r, err := s.Get(context.Background(), fmt.Sprint(i))
			require.NoError(t, err)
			require.Len(t, r.Result, 10<<10)
		}
		require.NoError(t, s.Close())
		require.Greater(t, len(tries), 5)
	}
}

// Patience has an end: after so many attempts, when the store has broken, or when the
// directory is another one. Other errors are passed on at once.
func TestPatienceEnds(t *testing.T) {
	t.Parallel()
	f := newFaulty()
	require.NoError(t, f.mem.MkdirAll("d", 0o700))
	tries := 0
	lack := error(syscall.EMFILE)
	f.on(func(op errorfs.Op) error {
		if opens(op) {
			tries++
			return lack
		}
		return nil
	})
	moved := error(nil)
	over := make(chan struct{})
	p := patientFS{FS: errorfs.Wrap(f.mem, f), attempts: 3, over: over, stayed: func() error { return moved }}
	require.Equal(t, p.FS, p.Unwrap())
	for name, do := range map[string]func() error{
		"Create":        func() error { _, err := p.Create("d/a", vfs.WriteCategoryUnspecified); return err },
		"Open":          func() error { _, err := p.Open("d/a"); return err },
		"OpenReadWrite": func() error { _, err := p.OpenReadWrite("d/a", vfs.WriteCategoryUnspecified); return err },
		"OpenDir":       func() error { _, err := p.OpenDir("d"); return err },
		"List":          func() error { _, err := p.List("d"); return err },
	} {
		tries = 0
		require.ErrorIs(t, do(), syscall.EMFILE, name)
		require.Equal(t, 3, tries, name)
	}
	open := func() error { _, err := p.Open("d/a"); return err }
	tries, lack = 0, syscall.EIO
	require.ErrorIs(t, open(), syscall.EIO)
	require.Equal(t, 1, tries)

	tries, lack, moved = 0, syscall.EMFILE, errors.New("moved")
	require.Equal(t, moved, open())
	require.Equal(t, 1, tries)
	moved, p.attempts = nil, 1<<30
	close(over)
	require.ErrorIs(t, open(), syscall.EMFILE)
}

// A log may have its new name when there is no descriptor to open it.
func TestReuseWithoutADescriptor(t *testing.T) {
	t.Parallel()
	for _, renamed := range []bool{false, true} {
		mem, f := vfs.NewMem(), newFatal()
		old, err := mem.Create("old.log", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		_, err = old.Write([]byte("old"))
		require.NoError(t, errors.Join(err, old.Close()))
		p := patientFS{FS: reuseFails{mem, renamed}, attempts: 3, over: f.heard, stayed: func() error { return nil }}
		file, err := p.ReuseForWrite("old.log", "new.log", vfs.WriteCategoryUnspecified)
		require.NoError(t, err)
		info, err := file.Stat()
		require.NoError(t, errors.Join(err, file.Close()))
		require.Zero(t, info.Size(), "it is a new one")
		names, err := mem.List("")
		require.NoError(t, err)
		require.Equal(t, []string{"new.log"}, names)
	}
}

type reuseFails struct {
	vfs.FS
	renamed bool
}

func (r reuseFails) ReuseForWrite(old, name string, _ vfs.DiskWriteCategory) (vfs.File, error) {
	if r.renamed {
		if err := r.Rename(old, name); err != nil {
			return nil, err
		}
	}
	return nil, syscall.EMFILE
}
