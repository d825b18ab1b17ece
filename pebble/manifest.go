package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/idemkv/idem"
)

// The chunks of a manifest: checksum (4 bytes, little endian), length (2 bytes), type,
// and that many bytes, packed into blocks that none crosses (Pebble's package record).
const (
	chunkHead  = 7
	chunkBlock = 32 << 10
	chunkFull  = 1 // of a record, alone
	chunkFirst = 2 // of several
	chunkLast  = 4
)

// checkManifest refuses a manifest that is damaged before its last record. Pebble takes
// the damage for the end, as a power cut may have left it, goes back to what the
// database was then, and removes the tables that have come since. But each record is
// synced before the next one is written: where another begins behind the damage, it was
// no power cut.
func checkManifest(dir string, f vfs.FS) error {
	path := f.PathJoin(dir, dbName)
	desc, err := pebble.Peek(path, f)
	if err != nil || !desc.Exists {
		return nil // for Pebble to say
	}
	file, err := f.Open(desc.ManifestFilename)
	if err != nil {
		return nil // likewise
	}
	b, err := io.ReadAll(file)
	if err = errors.Join(err, file.Close()); err != nil {
		return fmt.Errorf("idem: opening %s: reading the manifest: %w", dir, err)
	}
	if at := damagedChunk(b); at >= 0 {
		return fmt.Errorf("%w: %s is damaged at byte %d, and goes on behind it; restore %s from a backup",
			idem.ErrCorrupt, f.PathBase(desc.ManifestFilename), at, dir)
	}
	return nil
}

// damagedChunk returns where a chunk is damaged behind which a record begins; -1 if
// there is none.
func damagedChunk(b []byte) int {
	at := 0
	for at < len(b) {
		if left := chunkBlock - at%chunkBlock; left < chunkHead {
			at += left
			continue
		}
		n, ok := chunk(b, at)
		if !ok {
			break
		}
		at += n
	}
	for next := at + 1; next < len(b); next++ {
		if _, ok := chunk(b, next); ok && (b[next+6] == chunkFull || b[next+6] == chunkFirst) {
			return at
		}
	}
	return -1
}

// chunk returns the length of the chunk at a place; false if there is no whole one.
func chunk(b []byte, at int) (int, bool) {
	left := min(len(b), at+chunkBlock-at%chunkBlock) - at
	if left < chunkHead {
		return 0, false
	}
	n := chunkHead + int(binary.LittleEndian.Uint16(b[at+4:]))
	if kind := b[at+6]; n > left || n == chunkHead || kind < chunkFull || kind > chunkLast {
		return 0, false
	}
	sum := crc32.Checksum(b[at+6:at+n], castagnoli)
	return n, binary.LittleEndian.Uint32(b[at:]) == (sum>>15|sum<<17)+0xa282ead8
}
