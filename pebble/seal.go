package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"io/fs"
	"slices"
	"strings"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/idemkv/idem"
)

// A store that was closed in order is sealed: a file beside the database says how long
// its files are, and has a checksum of all but the tables. Opening breaks the seal.
//
// Pebble reads its manifest and the last block written of its last log up to the first damage,
// and takes that for their end, as a power cut may have left them. After a power cut it
// may be. But a store that was closed has no such end, and what lies behind the damage
// is records that were acknowledged: they would be gone, and nobody be told. Tables
// have checksums that Pebble heeds.
const (
	sealName  = "IDEM.closed"
	newSeal   = "IDEM.closed.new"
	sealTitle = "idem seal "
	sealFirst = sealTitle + "1\n"
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// writeSeal seals the store in dir, whose database is closed and still locked.
func writeSeal(dir string, f vfs.FS) error {
	names, err := sealed(dir, f)
	if err != nil {
		return err
	}
	text := []byte(sealFirst)
	for _, name := range names {
		line, err := sealLine(dir, name, f)
		if err != nil {
			return err
		}
		text = append(text, line...)
	}
	text = fmt.Appendf(text, "%08x end\n", crc32.Checksum(text, castagnoli))
	file, err := f.Create(f.PathJoin(dir, newSeal), vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := f.Rename(f.PathJoin(dir, newSeal), f.PathJoin(dir, sealName)); err != nil {
		return err
	}
	return syncDir(f, dir)
}

// sealed returns the names of what a seal is of.
func sealed(dir string, f vfs.FS) ([]string, error) {
	names, err := f.List(f.PathJoin(dir, dbName))
	if err != nil {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "LOCK" })
	slices.Sort(names)
	return names, nil
}

// sealLine is what a seal says of one file: checksum, size and name. In place of a
// table's checksum, which has its own, there are dashes.
func sealLine(dir, name string, f vfs.FS) (line string, err error) {
	path := f.PathJoin(dir, dbName, name)
	if strings.HasSuffix(name, ".sst") {
		info, err := f.Stat(path)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("-------- %d %s\n", info.Size(), name), nil
	}
	file, err := f.Open(path, vfs.SequentialReadsOption)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, file.Close()) }()
	sum := crc32.New(castagnoli)
	size, err := io.Copy(sum, file)
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%08x %d %s\n", sum.Sum32(), size, name), nil
}

// breakSeal returns an error if the files of the store in dir are not what the seal
// says, and otherwise takes it away, if there is one: for good, before anything is
// changed. The database is locked.
func breakSeal(dir string, f vfs.FS) error {
	path := f.PathJoin(dir, sealName)
	file, err := f.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // the process was killed, or the power cut
	}
	if err != nil {
		return fmt.Errorf("idem: opening %s: %w", dir, err)
	}
	text, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("idem: reading %s: %w", path, err)
	}
	if err := checkSeal(dir, text, f); err != nil {
		return err
	}
	if err := errors.Join(f.Remove(path), syncDir(f, dir)); err != nil {
		return fmt.Errorf("idem: removing %s: %w", path, err)
	}
	return nil
}

func checkSeal(dir string, text []byte, f vfs.FS) error {
	end := bytes.LastIndexByte(bytes.TrimSuffix(text, []byte("\n")), '\n') + 1
	if string(text[end:]) != fmt.Sprintf("%08x end\n", crc32.Checksum(text[:end], castagnoli)) {
		return fmt.Errorf("%w: %s in %s is damaged; restore the directory from a backup, or, if all else in it is known to be whole, remove that file",
			idem.ErrCorrupt, sealName, dir)
	}
	lines, ok := strings.CutPrefix(string(text[:end]), sealFirst)
	if !ok {
		return fmt.Errorf("%w: %s in %s; use a newer one", idem.ErrVersion, sealName, dir)
	}
	for want := range strings.Lines(lines) {
		_, name, _ := strings.Cut(want[len("-------- "):], " ")
		name = strings.TrimSuffix(name, "\n")
		is, err := sealLine(dir, name, f)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("idem: opening %s: reading %s/%s: %w", dir, dbName, name, err)
		}
		if is != want {
			return fmt.Errorf("%w: %s/%s of %s is not as it was when the store was closed; restore the directory from a backup",
				idem.ErrCorrupt, dbName, name, dir)
		}
	}
	return nil
}
