package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
)

// stateIn is the state of a key of a stopped store.
func stateIn(t *testing.T, path, key string) idem.State {
	t.Helper()
	b, err := openEngine(boltKind, path)
	require.NoError(t, err)
	s, err := idem.New(b, idem.Options{})
	require.NoError(t, err)
	rec, err := s.Get(t.Context(), key)
	require.NoError(t, err)
	require.NoError(t, s.Close())
	return rec.State
}

// Whoever interrupts the question has not said yes, even if a yes follows.
func TestInterruptWhileItAsks(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{"no answer": "", "yes after all": "y\n"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filled(t, boltKind)
			ctx, cancel := context.WithCancel(t.Context())
			typed := make(chan struct{})
			s := atTerminal(&reader{func() {
				cancel()
				if answer == "" { // nobody types
					<-typed
				}
			}, strings.NewReader(answer)})
			code := s.tool.runIn(ctx, []string{"settle", "release", "order-4", "-store", path})
			close(typed)
			require.Equal(t, exitInterrupted, code, s.err.String())
			require.Contains(t, s.err.String(), "interrupted; nothing was changed")
			require.Equal(t, idem.Held, stateIn(t, path, "order-4"))
		})
	}
}

// An interrupted command says so by its exit code, and leaves nothing behind.
func TestInterruptLeavesNothing(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{boltKind, pebbleKind} {
		path := filled(t, k)
		dir := filepath.Dir(path)
		export := filepath.Join(t.TempDir(), "pay.idem")
		s := atTerminal(strings.NewReader(""))
		require.Equal(t, exitOK, s.tool.run([]string{"export", export, "-store", path}), s.err.String())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		for _, args := range [][]string{
			{"stats", path},
			{"list", path},
			{"stuck", path},
			{"show", "0123456789ab", "-as", "hash", "-store", path},
			{"verify", path},
			{"backup", filepath.Join(dir, "copy"), "-store", path},
			{"restore", path, filepath.Join(dir, "copy")},
			{"export", filepath.Join(dir, "copy"), "-store", path},
			{"import", export, "-store", filepath.Join(dir, "copy"), "-create", string(k)},
			{"compact", path},
			{"sweep", path},
		} {
			s := atTerminal(strings.NewReader(""))
			require.Equal(t, exitInterrupted, s.tool.runIn(ctx, args), "%s %v: %s", k, args, s.err.String())
			require.Contains(t, s.err.String(), "interrupted")
			require.NotContains(t, s.err.String(), "context canceled")
			entries, err := os.ReadDir(dir)
			require.NoError(t, err)
			require.Len(t, entries, 1, "%s %v", k, args)
		}
	}
}

// fullDisk takes some bytes and no more.
type fullDisk struct {
	room int
	b    bytes.Buffer
}

var errNoSpace = errors.New("no space left on device")

func (f *fullDisk) Write(p []byte) (int, error) {
	n := min(len(p), f.room)
	f.room -= n
	f.b.Write(p[:n])
	if n < len(p) {
		return n, errNoSpace
	}
	return n, nil
}

// Output that cannot be written is an error, told once. Of a change that was made the message
// says that it was.
func TestOutputThatCannotBeWritten(t *testing.T) {
	t.Parallel()
	path := filled(t, boltKind)
	run := func(args ...string) string {
		t.Helper()
		s := atTerminal(strings.NewReader("y\n"))
		s.tool.out = bufio.NewWriterSize(&fullDisk{}, 16)
		require.Equal(t, exitFailed, s.tool.run(append(args, "-store", path)))
		require.Equal(t, 1, strings.Count(s.err.String(), "no space left on device"), s.err.String())
		return s.err.String()
	}
	for _, args := range [][]string{{"list"}, {"list", "-json"}, {"stats"}, {"show", "order-1"}, {"stuck"}, {"verify"}} {
		require.NotContains(t, run(args...), "carried out")
	}
	require.Contains(t, run("forget", "order-1"), "the command itself was carried out")
	require.Contains(t, run("sweep"), "the command itself was carried out")
	require.Contains(t, run("backup", filepath.Join(t.TempDir(), "copy")), "the command itself was carried out")

	s := atTerminal(strings.NewReader(""))
	s.tool.out = bufio.NewWriterSize(&fullDisk{}, 16)
	require.Equal(t, exitNotFound, s.tool.run([]string{"show", "order-1", "-store", path}), "the exit code of what went wrong stays")
}

// A list ends where its output ends.
func TestListEndsWithItsOutput(t *testing.T) {
	t.Parallel()
	disk := &fullDisk{}
	s := atTerminal(strings.NewReader(""))
	s.tool.out = bufio.NewWriterSize(disk, 16)
	s.tool.print("%s", strings.Repeat("x", 17))
	require.ErrorIs(t, s.tool.written(), errNoSpace)
}

// A store that has seen a clock far ahead is not damaged by it.
func TestClockAheadIsNoDamage(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{boltKind, pebbleKind} {
		path := filepath.Join(t.TempDir(), "store")
		b, err := openEngine(k, path)
		require.NoError(t, err)
		store, err := idem.New(b, idem.Options{Clock: idemtest.NewClock(time.Now().AddDate(20, 0, 0))})
		require.NoError(t, err)
		_, err = store.Claim(t.Context(), idem.Request{Key: "order-1"})
		require.NoError(t, err)
		require.NoError(t, store.Close())
		s := atTerminal(strings.NewReader(""))
		require.Equal(t, exitOK, s.tool.run([]string{"verify", path}), s.err.String())
		require.Contains(t, s.out.String(), "clock: ")
		require.Contains(t, s.out.String(), "is whole")
		require.Empty(t, s.err.String())
	}
}

// What is restored knows that it is, even if the backup was made with cp: a request from
// before is not run again.
func TestRestoreMarksWhatItMakes(t *testing.T) {
	t.Parallel()
	for _, k := range []kind{boltKind, pebbleKind} {
		path := filled(t, k) // no backup: it has no mark
		restored := path + "-restored"
		s := atTerminal(strings.NewReader(""))
		require.Equal(t, exitOK, s.tool.run([]string{"restore", path, restored}), s.err.String())
		b, err := openEngine(k, restored)
		require.NoError(t, err)
		store, err := idem.New(b, idem.Options{})
		require.NoError(t, err)
		_, err = store.Claim(t.Context(), idem.Request{Key: "new", IssuedAt: time.Now().Add(-time.Minute)})
		require.ErrorIs(t, err, idem.ErrTooLate)
		require.NoError(t, store.Close())
	}
}
