package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/idemkv/idem/internal/exportfile"
)

// kind is an engine on disk.
type kind string

const (
	boltKind   kind = "bolt"
	pebbleKind kind = "pebble"
)

// What a Pebble store's directory has in it.
const (
	pebbleMarker    = "IDEM"
	pebbleNewMarker = "IDEM.new"
	pebbleDB        = "db"
)

// detect says which engine's store is at path, by what is in it. It only reads, and it
// takes no lock. Whether the store is whole is for opening it to find out.
func detect(path string) (kind, error) {
	if isURL(path) {
		return "", errURLAsPath
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", noStore(path, nothingAt(path))
	case errors.Is(err, fs.ErrPermission):
		return "", failed(err, "looking at %s", path)
	case err != nil: // a part of the path is a file, or it is too long
		var cause *fs.PathError
		if errors.As(err, &cause) {
			err = cause.Err
		}
		return "", noStore(path, plain(err)+"; check the path")
	case info.IsDir():
		return detectDirectory(path)
	case !info.Mode().IsRegular():
		return "", noStore(path, "it is neither a file nor a directory ("+info.Mode().Type().String()+")")
	case info.Size() == 0:
		return "", noStore(path, "the file is empty; a store never is. Restore it from a backup, or remove it if nothing was lost")
	}
	head, err := readHead(path)
	if err != nil {
		return "", failed(err, "reading %s", path)
	}
	if isBolt(head) {
		return boltKind, nil
	}
	return "", noStore(path, foundFile(path, head))
}

func noStore(path, found string) error {
	return &failure{code: exitNoStore, doing: "no store at " + path, err: errors.New(found)}
}

// nearby bounds how many neighbours of a mistyped path are looked at.
const nearby = 100

// nothingAt says how much of path is there.
func nothingAt(path string) string {
	dir := filepath.Dir(path)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Sprintf("there is nothing there, not even the directory %s; check the path", dir)
	}
	for _, e := range entries[:min(len(entries), nearby)] {
		near := filepath.Join(dir, e.Name())
		if k, err := detect(near); err == nil {
			return fmt.Sprintf("there is nothing there, but %s is a %s store; check the path", near, k)
		}
	}
	return "there is nothing there; check the path. This tool never makes a store, except for import -create"
}

func detectDirectory(path string) (kind, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return "", failed(err, "reading the directory %s", path)
	}
	has := func(name string) bool {
		return slices.ContainsFunc(entries, func(e fs.DirEntry) bool { return e.Name() == name })
	}
	switch {
	case has(pebbleMarker):
		return pebbleKind, nil
	case has(pebbleNewMarker):
		return "", noStore(path, "a Pebble store was begun there and never finished, so nothing was ever stored; the service finishes it when it starts")
	case len(entries) == 0:
		return "", noStore(path, "the directory is empty")
	}
	parent := filepath.Dir(filepath.Clean(path))
	if _, err := os.Stat(filepath.Join(parent, pebbleMarker)); err == nil && filepath.Base(path) == pebbleDB {
		return "", noStore(path, "it is the database inside a Pebble store; name the directory above it, "+parent)
	}
	for _, e := range entries {
		name := e.Name()
		if name == "CURRENT" || strings.HasPrefix(name, "MANIFEST-") || strings.HasPrefix(name, "marker.format-version.") {
			return "", noStore(path, "it is a Pebble, RocksDB or LevelDB database of something else")
		}
	}
	for _, e := range entries {
		inside := filepath.Join(path, e.Name())
		if e.Type().IsRegular() && isBoltFile(inside) {
			return "", noStore(path, "it is a directory; "+inside+" is a bbolt file, name that")
		}
		if _, err := os.Stat(filepath.Join(inside, pebbleMarker)); err == nil {
			return "", noStore(path, "it is a directory with other things in it; "+inside+" is a Pebble store, name that")
		}
	}
	return "", noStore(path, fmt.Sprintf("it is a directory of something else (%s)", someOf(entries)))
}

func someOf(entries []fs.DirEntry) string {
	var names []string
	for i, e := range entries {
		if i == 3 {
			names = append(names, fmt.Sprintf("and %d more", len(entries)-i))
			break
		}
		names = append(names, printable(e.Name()))
	}
	return strings.Join(names, ", ")
}

// isText reports whether head, which may end within a character, is text.
func isText(head []byte) bool {
	head = head[:min(len(head), 512)]
	for cut := 0; cut < utf8.UTFMax && cut < len(head); cut++ {
		if utf8.Valid(head[:len(head)-cut]) {
			return !bytes.ContainsRune(head, 0)
		}
	}
	return false
}

// headSize reaches the second meta page of a bbolt file with the largest pages.
const headSize = 64<<10 + 16 + 4

func readHead(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	head := make([]byte, headSize)
	n, err := io.ReadFull(f, head)
	if err != nil && err != io.EOF && err != io.ErrUnexpectedEOF {
		return nil, err
	}
	return head[:n], nil
}

func isBoltFile(path string) bool {
	head, err := readHead(path)
	return err == nil && isBolt(head)
}

// isBolt reports whether a bbolt meta page is where one may be: at the start, and one
// page size in. One of the two may be damaged.
func isBolt(head []byte) bool {
	const pageHeader, magic = 16, 0xED0CDAED
	for at := 0; at <= 64<<10; at = max(2*at, 1<<10) {
		if at+pageHeader+4 <= len(head) && binary.NativeEndian.Uint32(head[at+pageHeader:]) == magic {
			return true
		}
	}
	return false
}

// signatures are what files that are mistaken for stores begin with.
var signatures = []struct{ begins, is string }{
	{"SQLite format 3\x00", "it is an SQLite database"},
	{exportfile.Magic, "it is an export of a store; idem import reads it"},
	{"\x1f\x8b", "it is a gzip file; unpack it first"},
	{"\x28\xb5\x2f\xfd", "it is a Zstandard file; unpack it first"},
	{"PK\x03\x04", "it is a zip file; unpack it first"},
}

func foundFile(path string, head []byte) string {
	for _, s := range signatures {
		if bytes.HasPrefix(head, []byte(s.begins)) {
			return s.is
		}
	}
	dir := filepath.Dir(path)
	for _, above := range []string{dir, filepath.Dir(dir)} {
		if _, err := os.Stat(filepath.Join(above, pebbleMarker)); err == nil {
			return "the file is part of a Pebble store; name its directory, " + above
		}
	}
	switch {
	case len(head) > 262 && string(head[257:262]) == "ustar":
		return "it is a tar file; unpack it first"
	case len(bytes.Trim(head, "\x00")) == 0:
		return "the file has nothing but zeros; restore it from a backup"
	case isText(head):
		return "it is a text file"
	}
	return fmt.Sprintf("it is neither a bbolt file nor a Pebble directory (it begins with % x)", head[:min(8, len(head))])
}
