package pebble

import (
	"bytes"
	"io"
	"math"
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
	g := &guardedFS{FS: errorfs.Wrap(disk.mem, disk), dir: ".", fatal: f, ahead: zeroAhead, moved: (&held{}).moved}
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
	for i, size := range []int{1, 100, 32 << 10, 32<<10 + 1, zeroAhead, 5, 0, 3 * zeroAhead, 7, 32 << 10, 32 << 10} {
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
	require.Greater(t, len(read()), len(want))
	require.NoError(t, log.Close())
	require.NoError(t, f.err())
}

// zeroWrites records where zeros are written, and how many at a time.
type zeroWrites struct {
	vfs.FS
	ends map[int64]int64 // by where they begin
}

func (z *zeroWrites) wrap(f vfs.File, err error) (vfs.File, error) {
	return &zeroWritesFile{File: f, of: z}, err
}

func (z *zeroWrites) Create(name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return z.wrap(z.FS.Create(name, category))
}

func (z *zeroWrites) ReuseForWrite(old, name string, category vfs.DiskWriteCategory) (vfs.File, error) {
	return z.wrap(z.FS.ReuseForWrite(old, name, category))
}

type zeroWritesFile struct {
	vfs.File
	of *zeroWrites
}

func (f *zeroWritesFile) WriteAt(p []byte, at int64) (int, error) {
	f.of.ends[at] = at + int64(len(p))
	return f.File.WriteAt(p, at)
}

// A sync writes no more than the pages that were changed: zeros come in pieces of a page
// at most, and none crosses the end of one. An old log is zeroed only behind its end.
func TestZerosAreWrittenByPages(t *testing.T) {
	t.Parallel()
	z := &zeroWrites{FS: vfs.NewMem(), ends: map[int64]int64{}}
	g := &guardedFS{FS: z, dir: ".", fatal: newFatal(), ahead: zeroAhead, moved: (&held{}).moved}
	check := func() (from, to int64) {
		require.NotEmpty(t, z.ends)
		from = math.MaxInt64
		for at, end := range z.ends {
			require.Less(t, at, end)
			require.Equal(t, at/zeroPage, (end-1)/zeroPage, "from %d to %d is of one page", at, end)
			from, to = min(from, at), max(to, end)
		}
		for at := from; at < to; at = z.ends[at] {
			require.Contains(t, z.ends, at, "no page is left out")
		}
		clear(z.ends)
		return from, to
	}
	write := func(f vfs.File, n int) {
		_, err := f.Write(make([]byte, n))
		require.NoError(t, err)
	}
	log, err := g.Create("000002.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	for n := 0; n < 3*zeroAhead; n += 1000 {
		write(log, 1000)
	}
	from, to := check()
	require.Zero(t, from)
	require.EqualValues(t, 4*zeroAhead, to)
	require.NoError(t, log.Close())

	log, err = g.ReuseForWrite("000002.log", "000003.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	for range 4 * zeroAhead / (32 << 10) {
		write(log, 32<<10)
	}
	require.Empty(t, z.ends, "all of it was written before")
	write(log, 1)
	from, to = check()
	require.EqualValues(t, 4*zeroAhead, from)
	require.EqualValues(t, 5*zeroAhead, to)
	require.NoError(t, log.Close())

	// An old one of an odd length: bare Pebble may have written it.
	require.NoError(t, z.Remove("000003.log"))
	odd, err := z.FS.Create("000003.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	write(odd, zeroPage+100)
	require.NoError(t, odd.Close())
	log, err = g.ReuseForWrite("000003.log", "000004.log", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	write(log, 2*zeroPage)
	from, to = check()
	require.EqualValues(t, zeroPage+100, from)
	require.Zero(t, to%zeroPage)
}

// A disk without room for zeros may have room for the log, and the log is not
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

	log, f, _ := openLog(t, failing(syscall.EIO, func(op errorfs.Op) bool { return op.Kind == errorfs.OpFileWriteAt }))
	go func() { _, _ = log.Write([]byte("record")) }() // parked for good
	within(t, "the error", func() { <-f.heard })
	require.ErrorIs(t, f.err(), syscall.EIO)
}
