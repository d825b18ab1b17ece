package contenders

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"

	"github.com/idemkv/idem/internal/codec"
)

// logBytes is the size of the log. It is written over once before it is used, as
// the recycled segments of a log that has run for a while are: on ext4 a write into
// fresh or merely allocated blocks makes each fdatasync commit the file system's
// journal too. Measured here, one writer, 100,000 bytes a sync: 0.21 ms into a file
// that grows, 0.19 to 0.26 ms into allocated blocks, 0.13 ms into written ones.
const logBytes = 64 << 20

// frameHead is before each group in the log: checksum, length, number.
const frameHead = 4 + 4 + 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// errLogFull is returned when a group does not fit into the log.
var errLogFull = errors.New("a group is larger than the log")

// appendLog is the limit: no tree, no table, no index, no reader, nothing but the
// bytes at the end of a file and one fdatasync for all who wait. When the file is
// full it goes on at its start, as if older segments were no longer needed.
type appendLog struct {
	f      *os.File
	at     int64
	number uint64
	group  *group[logGroup, *step]
	stamps *stamps
}

// logGroup is the frame of a group in the making.
type logGroup struct{ buf []byte }

func openLog(path string, size int) (*appendLog, error) {
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, err
	}
	l := &appendLog{f: f, stamps: newStamps()}
	zeros := make([]byte, 1<<20)
	for n := 0; n < size && err == nil; n += len(zeros) {
		_, err = f.Write(zeros)
	}
	if err = errors.Join(err, f.Sync()); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	l.group = newGroup(addToLog, func(g *logGroup) error { return l.write(g, int64(size)) })
	return l, nil
}

func addToLog(g *logGroup, t *step) {
	if len(g.buf) == 0 {
		g.buf = append(g.buf, make([]byte, frameHead)...)
	}
	g.buf = appendPair(g.buf, t.key, t.value)
	if len(t.place) > 0 {
		g.buf = appendPair(g.buf, string(t.place), nil)
	}
}

func appendPair(dst []byte, key string, value []byte) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(key)))
	dst = append(dst, key...)
	dst = binary.AppendUvarint(dst, uint64(len(value)))
	return append(dst, value...)
}

// write appends a group and syncs it.
func (l *appendLog) write(g *logGroup, size int64) error {
	var meta [64]byte
	g.buf = appendPair(g.buf, codec.MetaKey, l.stamps.meta(meta[:0]))
	l.number++
	le := binary.LittleEndian
	le.PutUint32(g.buf[4:], uint32(len(g.buf)-frameHead))
	le.PutUint64(g.buf[8:], l.number)
	le.PutUint32(g.buf, crc32.Checksum(g.buf[4:], castagnoli))
	if l.at+int64(len(g.buf)) > size {
		l.at = 0
	}
	if int64(len(g.buf)) > size {
		return fmt.Errorf("%w: %d bytes", errLogFull, len(g.buf))
	}
	if _, err := l.f.WriteAt(g.buf, l.at); err != nil {
		return err
	}
	l.at += int64(len(g.buf))
	g.buf = g.buf[:0]
	return datasync(l.f)
}

func limitLog() Contender {
	return Contender{
		Name: "limit-log",
		Does: "the record, index and meta bytes of idem at the end of one file with blocks written before; callers share a write and an fdatasync",
		Open: opened(
			func(dir string, _ Workload) (*appendLog, error) { return openLog(filepath.Join(dir, "log"), logBytes) },
			func(l *appendLog, w Workload) (Instance, error) { return cycles(w, l.stamps, l.group.do, l.f.Close) },
		),
	}
}
