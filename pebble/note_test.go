package pebble

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/storetest"
)

// killed copies the store at dir as a kill leaves it. Pebble may still tidy up: what
// changes under the copy is copied again.
func killed(t *testing.T, dir string) string {
	t.Helper()
	for {
		before := sizes(t, dir)
		left := filepath.Join(t.TempDir(), "store")
		err := os.CopyFS(left, os.DirFS(dir))
		if !errors.Is(err, fs.ErrNotExist) {
			require.NoError(t, err)
			if maps.Equal(before, sizes(t, dir)) {
				return left
			}
		}
	}
}

// sizes are the files below dir that are there now.
func sizes(t *testing.T, dir string) map[string]int64 {
	t.Helper()
	found := map[string]int64{}
	require.NoError(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			var info fs.FileInfo
			if info, err = d.Info(); err == nil {
				found[path] = info.Size()
			}
		}
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		return err
	}))
	return found
}

func logsOf(t *testing.T, dir string) []string {
	t.Helper()
	logs, err := filepath.Glob(filepath.Join(dir, dbName, "*.log"))
	require.NoError(t, err)
	slices.Sort(logs)
	return logs
}

// The log of a store that was killed is all that has what was not flushed: without it
// the store is refused, and left as it is.
func TestMissingLogIsCorrupt(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "store")
	for life, flushes := range []int{0, 2, 0} {
		s := storeAt(t, dir, idem.Options{SweepInterval: -1})
		var granted []idem.Token
		for i := range flushes + 1 {
			c := storetest.Complete(t, s, fmt.Sprint(life, i), "result")
			granted = append(granted, c.Token)
			if i < flushes {
				require.NoError(t, engine.Of(s).(*Backend).DB().Flush())
			}
		}
		left := killed(t, dir)
		require.NoError(t, s.Close())
		lost := killed(t, left)
		logs := logsOf(t, lost)
		require.NoError(t, os.Remove(logs[len(logs)-1]))
		refused(t, lost, idem.ErrCorrupt)

		// Logs that are in tables already are missed by nobody.
		logs = logsOf(t, left)
		for _, log := range logs[:len(logs)-1] {
			require.NoError(t, os.Remove(log))
		}
		s = storeAt(t, left, idem.Options{SweepInterval: -1})
		requireCompleted(t, s, granted)
		lost = killed(t, left) // again, right after it was opened
		require.NoError(t, s.Close())
		s = storeAt(t, lost, idem.Options{SweepInterval: -1})
		requireCompleted(t, s, granted)
		require.NoError(t, s.Close())
		dir = left
	}
}

// The oldest of several logs is missed, not only the newest.
func TestOldestOfSeveralLogsIsMissed(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	f := newFaulty()
	s := f.open(t)
	storetest.Claim(t, s, "first")
	stick, reached, release := f.sticky(func(op errorfs.Op) bool {
		return filepath.Ext(op.Path) == ".sst" && op.Kind.ReadOrWrite() == errorfs.OpIsWrite
	})
	stick()
	flushed, err := engine.Of(s).(*Backend).DB().AsyncFlush()
	require.NoError(t, err)
	<-reached
	_, err = s.Claim(ctx, idem.Request{Key: "second"}) // in a log of its own
	require.NoError(t, err)
	image := f.crash(100)
	release()
	<-flushed
	require.NoError(t, s.Close())
	names, err := image.List("store/" + dbName)
	require.NoError(t, err)
	names = slices.DeleteFunc(names, func(name string) bool { return !isLogName(name) })
	slices.Sort(names)
	require.GreaterOrEqual(t, len(names), 2, "perhaps one that is not needed is still there")
	require.NoError(t, image.Remove("store/"+dbName+"/"+names[len(names)-2]))
	_, err = Open("store", Options{fs: image, MinFree: -1})
	require.ErrorIs(t, err, idem.ErrCorrupt)
}

// What tools and people do to a closed store without harming it does not matter.
func TestHarmlessChanges(t *testing.T) {
	t.Parallel()
	for name, change := range map[string]func(t *testing.T, dir string){
		"a file of a file manager": func(t *testing.T, dir string) {
			for _, at := range []string{dir, filepath.Join(dir, dbName)} {
				require.NoError(t, os.WriteFile(filepath.Join(at, ".DS_Store"), []byte("x"), 0o600))
			}
		},
		"a folder": func(t *testing.T, dir string) {
			for _, at := range []string{dir, filepath.Join(dir, dbName)} {
				require.NoError(t, os.MkdirAll(filepath.Join(at, "lost+found", "more"), 0o700))
			}
		},
		"Pebble opens it": func(t *testing.T, dir string) {
			bare(t, dir, func(*pebble.DB) error { return nil })
		},
		"a checkpoint of it": func(t *testing.T, dir string) {
			bare(t, dir, func(db *pebble.DB) error { return db.Checkpoint(filepath.Join(dir, "checkpoint")) })
		},
		"the checkpoint in its place": func(t *testing.T, dir string) {
			bare(t, dir, func(db *pebble.DB) error { return db.Checkpoint(filepath.Join(dir, "checkpoint")) })
			require.NoError(t, os.RemoveAll(filepath.Join(dir, dbName)))
			require.NoError(t, os.Rename(filepath.Join(dir, "checkpoint"), filepath.Join(dir, dbName)))
		},
		"Pebble compacts it": func(t *testing.T, dir string) {
			bare(t, dir, func(db *pebble.DB) error { return db.Compact(context.Background(), []byte{0}, []byte{0xff}, false) })
		},
		"it is copied": func(t *testing.T, dir string) {
			left := killed(t, dir)
			require.NoError(t, os.RemoveAll(dir))
			require.NoError(t, os.Rename(left, dir))
		},
		"its note is gone":    func(t *testing.T, dir string) { require.NoError(t, os.Remove(filepath.Join(dir, noteName))) },
		"its note is damaged": func(t *testing.T, dir string) { require.NoError(t, os.Truncate(filepath.Join(dir, noteName), 30)) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := newFilled(t)
			for range 2 {
				change(t, dir)
				s := storeAt(t, dir, idem.Options{})
				for _, key := range []string{"a", "b", "c"} {
					storetest.Refused(t, s, key, idem.ErrCompleted)
				}
				require.NoError(t, s.Close())
				_ = os.RemoveAll(filepath.Join(dir, "checkpoint"))
			}
		})
	}
}

// A store that was closed has all of its records in tables: its logs may be cut, or
// damaged, and nothing is lost.
func TestClosedStoreNeedsNoLog(t *testing.T) {
	t.Parallel()
	dir := newFilled(t)
	for _, log := range logsOf(t, dir) {
		require.NoError(t, os.Truncate(log, 0))
	}
	s := storeAt(t, dir, idem.Options{})
	for _, key := range []string{"a", "b", "c"} {
		storetest.Refused(t, s, key, idem.ErrCompleted)
	}
	require.NoError(t, s.Close())
}

// A manifest that is damaged anywhere is refused, or nothing is lost: Pebble takes the
// damage for its end, and goes back to what the database was then.
func TestDamagedManifest(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	ctx := context.Background()
	open := func(t *testing.T, dir string) *idem.Store {
		s := storeAt(t, dir, idem.Options{SweepInterval: -1})
		return s
	}
	for name, leave := range map[string]func(t *testing.T, dir string) (left string, granted []idem.Token){
		"closed": func(t *testing.T, dir string) (string, []idem.Token) {
			s := open(t, dir)
			defer func() { require.NoError(t, s.Close()) }()
			return dir, append(turn(t, s, 0), turn(t, s, 1)...)
		},
		"killed": func(t *testing.T, dir string) (string, []idem.Token) {
			s := open(t, dir)
			defer func() { require.NoError(t, s.Close()) }()
			granted := turn(t, s, 0)
			return killed(t, dir), granted
		},
		"killed, opened and killed": func(t *testing.T, dir string) (string, []idem.Token) {
			s := open(t, dir)
			granted := turn(t, s, 0)
			c := storetest.Complete(t, s, "in the log", "result")
			left := killed(t, dir)
			require.NoError(t, s.Close())
			s = open(t, left)
			defer func() { require.NoError(t, s.Close()) }()
			// Pebble removes the old log a moment later.
			for len(logsOf(t, left)) > 1 {
				require.NoError(t, engine.Of(s).(*Backend).Update(ctx, func(*pebble.Batch) error { return nil }))
			}
			return killed(t, left), append(granted, c.Token)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			left, granted := leave(t, filepath.Join(t.TempDir(), "store"))
			desc, err := pebble.Peek(filepath.Join(left, dbName), vfs.Default)
			require.NoError(t, err)
			whole, err := os.ReadFile(desc.ManifestFilename)
			require.NoError(t, err)
			refusals := 0
			for n := range 40 {
				at := len(whole) - 1 - rand.IntN(min(len(whole), 1+n*len(whole)/40)) // the end matters most
				b := slices.Clone(whole)
				b[at] ^= 1 << rand.IntN(8)
				require.NoError(t, os.WriteFile(desc.ManifestFilename, b, 0o600))
				image := killed(t, left)
				before := storetest.Digest(t, image)
				backend, err := Open(image, Options{})
				if err != nil {
					require.ErrorIs(t, err, idem.ErrCorrupt)
					require.Equal(t, before, storetest.Digest(t, image), "what is refused is left as it was")
					refusals++
					continue
				}
				s := storetest.Open(t, backend, idem.Options{SweepInterval: -1})
				for _, token := range granted {
					_, err := s.Get(ctx, token.Key)
					require.NoError(t, err, "byte %d of %d: a completed key is gone", at, len(whole))
				}
				require.NoError(t, s.Close())
			}
			require.NotZero(t, refusals)
		})
	}
}

// Bytes that are no edit, or are cut, name no log, and what is there is read.
func TestLogOfAnEdit(t *testing.T) {
	t.Parallel()
	for edit, want := range map[string]uint64{
		"":                                0,
		"\x02\x05":                        5,
		"\x02":                            0,
		"\x03\x09\x02\x05":                0, // it never comes later
		"\x01\x03abc\x02\x81\x01\x03\x07": 129,
		"\x01\x03ab":                      0,
		"\x01\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01x": 0,
		"\xff": 0,
	} {
		n, ok := logOf([]byte(edit))
		require.Equal(t, want != 0, ok, "%q", edit)
		require.EqualValues(t, want, n, "%q", edit)
	}
	mem := vfs.NewMem()
	file, err := mem.Create("m", vfs.WriteCategoryUnspecified)
	require.NoError(t, err)
	w := record.NewWriter(file)
	for _, edit := range []string{"\x01\x03abc\x02\x04", "\x03\x09", "\x02\x07\x03\x09", strings.Repeat("\x03\x09", 20_000)} {
		rec, err := w.Next()
		require.NoError(t, err)
		_, err = rec.Write([]byte(edit))
		require.NoError(t, err)
	}
	require.NoError(t, w.Close())
	n, err := unflushed("m", mem)
	require.NoError(t, err)
	require.EqualValues(t, 7, n)
}

// Nothing of a store whose meta entry is damaged is changed by refusing it.
func TestRefusedStoreIsLeftAsItWas(t *testing.T) {
	t.Parallel()
	dir := newFilled(t)
	bare(t, dir, func(db *pebble.DB) error {
		return db.Set([]byte(reserved+"m"+codec.MetaKey), []byte("damaged"), pebble.Sync)
	})
	refused(t, dir, idem.ErrCorrupt)
}
