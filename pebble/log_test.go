package pebble

import (
	"bytes"
	"io"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// openLog makes a log on a file system whose operations fail as fails says.
func openLog(t *testing.T, fails func(op errorfs.Op) error) (vfs.File, *fatal, func() []byte) {
	t.Helper()
	disk, f := newFaulty(), newFatal()
	disk.on(fails)
	g := &guardedFS{FS: errorfs.Wrap(disk.mem, disk), fatal: f, ahead: zeroAhead}
	log, err := g.Create("000002.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	return log, f, func() []byte {
		file, err := disk.mem.Open("000002.log")
		require.NoError(t, err)
		defer func() { _ = file.Close() }()
		b, err := io.ReadAll(file)
		require.NoError(t, err)
		return b
	}
}

func none(errorfs.Op) error { return nil }

// What is written is there, in its place, and zeros behind it, wherever pieces end.
func TestLogIsZeroedAhead(t *testing.T) {
	t.Parallel()
	log, f, read := openLog(t, none)
	var want []byte
	for i, size := range []int{1, 100, 32 << 10, zeroUpTo + 1, zeroAhead, 5, 0, 3 * zeroAhead, 7, zeroUpTo, zeroUpTo} {
		p := bytes.Repeat([]byte{byte(i + 1)}, size)
		want = append(want, p...)
		n, err := log.Write(p) // which may change p, in a file system for tests
		require.NoError(t, err)
		require.Equal(t, size, n)
		got := read()
		require.True(t, bytes.HasPrefix(got, want), "write %d", i)
		require.Empty(t, bytes.Trim(got[len(want):], "\x00"), "behind write %d", i)
		require.LessOrEqual(t, len(got), len(want)+zeroAhead)
	}
	require.Greater(t, len(read()), len(want), "small writes are prepared for")
	require.NoError(t, log.Close())
	require.NoError(t, f.err())
}

// A18, C4: a disk without room for zeros may have room for the log, and the log is not
// written twice as often for that; any other error is the end.
func TestLogWithoutRoomForZeros(t *testing.T) {
	t.Parallel()
	for _, full := range []error{syscall.ENOSPC, syscall.EDQUOT, syscall.EFBIG} {
		tries := 0
		log, f, read := openLog(t, func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileWriteAt {
				tries++
				return full
			}
			return nil
		})
		for range 3 {
			_, err := log.Write([]byte("record"))
			require.NoError(t, err)
		}
		require.Equal(t, "recordrecordrecord", string(read()))
		require.NoError(t, f.err())
		require.Equal(t, 1, tries)
	}

	log, f, _ := openLog(t, func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileWriteAt {
			return syscall.EIO
		}
		return nil
	})
	go func() { _, _ = log.Write([]byte("record")) }() // parked for good
	within(t, "the error", func() { <-f.heard })
	require.ErrorIs(t, f.err(), syscall.EIO)
}
