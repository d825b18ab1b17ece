package pebble

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/record"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/wal"

	"github.com/idemkv/idem"
)

// A note next to the database names the first log since it was opened, the manifest
// begun then, and the log from which, by that manifest, records are in no table yet.
// Pebble does not check that this log exists. And if a manifest is damaged, Pebble
// takes that for its end, as a power cut may leave one, and goes back to its earlier
// state. Either way, acknowledged records would silently be gone.
//
// While Pebble opens there may be no such log, so there is no note. The number in the
// manifest then belongs to no log: the log that opening makes has a higher one.
const (
	noteName  = "IDEM.log"
	newNote   = "IDEM.log.new"
	noteText  = "%s %d %d" // manifest, number in it, log
	noteTitle = "idem log 1 "
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// checkLog refuses a database that lacks the oldest log whose records are not in
// tables. It only reads. If something else has opened the database since, or the note
// can no longer be read, there is nothing to check against.
func checkLog(dir string, f vfs.FS) error {
	path := f.PathJoin(dir, dbName)
	n, err := readNote(dir, f)
	if err != nil || n == nil {
		return err
	}
	desc, err := pebble.Peek(path, f)
	if err != nil || !desc.Exists || f.PathBase(desc.ManifestFilename) != n.manifest {
		return nil // let Pebble report it
	}
	need, err := unflushed(desc.ManifestFilename, f)
	if err != nil {
		return fmt.Errorf("idem: opening %s: reading the manifest: %w", dir, err)
	}
	if need < n.began {
		return fmt.Errorf("%w: %s of %s is damaged; restore %s from a backup", idem.ErrCorrupt, n.manifest, path, dir)
	}
	need = max(need, n.first)
	names, err := f.List(path)
	if err != nil {
		return fmt.Errorf("idem: opening %s: %w", dir, err)
	}
	for _, name := range names {
		if num, _, ok := wal.ParseLogFilename(name); ok && num == need {
			return nil
		}
	}
	return fmt.Errorf("%w: log %06d is missing in %s, or %s is damaged; restore %s from a backup",
		idem.ErrCorrupt, need, path, n.manifest, dir)
}

// unflushed returns the number of the oldest log that is needed according to the
// manifest.
func unflushed(manifest string, f vfs.FS) (need wal.NumWAL, err error) {
	file, err := f.Open(manifest)
	if err != nil {
		return 0, err
	}
	b, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return 0, err
	}
	for r := record.NewReader(bytes.NewReader(b), 0); ; {
		rec, err := r.Next()
		var edit []byte
		if err == nil {
			edit, err = io.ReadAll(rec)
		}
		if err != nil {
			return need, nil // Pebble stops reading here
		}
		if n, ok := logOf(edit); ok {
			need = n
		}
	}
}

// logOf returns the log that an edit names. Pebble writes it first, preceded only by
// the name of the comparer; see manifest.VersionEdit.Encode.
func logOf(edit []byte) (wal.NumWAL, bool) {
	const comparer, log = 1, 2
	for {
		tag, n := binary.Uvarint(edit)
		if n <= 0 || tag != comparer && tag != log {
			return 0, false
		}
		edit = edit[n:]
		value, n := binary.Uvarint(edit)
		switch {
		case n <= 0:
			return 0, false
		case tag == log:
			return wal.NumWAL(value), true
		case value > uint64(len(edit)-n):
			return 0, false
		}
		edit = edit[n+int(value):]
	}
}

// note is the content of the note.
type note struct {
	manifest string
	began    wal.NumWAL // the log needed according to the manifest when it was made
	first    wal.NumWAL // the log that opening made
}

// readNote returns the note; nil if it is missing or damaged.
func readNote(dir string, f vfs.FS) (*note, error) {
	file, err := f.Open(f.PathJoin(dir, noteName))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("idem: opening %s: %w", dir, err)
	}
	b, err := io.ReadAll(io.LimitReader(file, 1024))
	if err = errors.Join(err, file.Close()); err != nil {
		return nil, fmt.Errorf("idem: reading %s in %s: %w", noteName, dir, err)
	}
	text, sum, _ := strings.Cut(strings.TrimSuffix(string(b), "\n"), " sum ")
	says, ours := strings.CutPrefix(text, noteTitle)
	if !ours || sum != noteSum(text) {
		return nil, nil
	}
	var n note
	if _, err := fmt.Sscanf(says, noteText, &n.manifest, &n.began, &n.first); err != nil {
		return nil, nil
	}
	return &n, nil
}

func noteSum(text string) string {
	return fmt.Sprintf("%08x", crc32.Checksum([]byte(text), castagnoli))
}

// removeNote removes the note, durably, before Pebble opens.
func removeNote(dir string, f vfs.FS) error {
	err := f.Remove(f.PathJoin(dir, noteName))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("idem: opening %s: %w", dir, err)
	}
	return syncDir(f, dir)
}

// writeNote writes the note once Pebble is open and has made log.
func writeNote(dir, log string, f vfs.FS) error {
	desc, err := pebble.Peek(f.PathJoin(dir, dbName), f)
	if err != nil {
		return err
	}
	n := note{manifest: f.PathBase(desc.ManifestFilename)}
	if n.began, err = unflushed(desc.ManifestFilename, f); err != nil {
		return err
	}
	var ok bool
	if n.first, _, ok = wal.ParseLogFilename(f.PathBase(log)); !ok {
		return errors.New("no log was made")
	}
	text := noteTitle + fmt.Sprintf(noteText, n.manifest, uint64(n.began), uint64(n.first))
	text += " sum " + noteSum(text) + "\n"
	if err := writeFile(f.PathJoin(dir, newNote), text, f); err != nil {
		return err
	}
	if err := f.Rename(f.PathJoin(dir, newNote), f.PathJoin(dir, noteName)); err != nil {
		return err
	}
	return syncDir(f, dir)
}

// writeFile creates a file and makes its content durable.
func writeFile(path, text string, f vfs.FS) error {
	file, err := f.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = file.Write([]byte(text))
	return errors.Join(err, file.Sync(), file.Close())
}
