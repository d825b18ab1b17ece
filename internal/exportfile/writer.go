package exportfile

import (
	"bufio"
	"encoding/binary"
	"hash/crc32"
	"io"

	"github.com/idemkv/idem/engine"
)

// Writer writes an export.
type Writer struct {
	w       *bufio.Writer
	sum     uint32
	records uint64
	buf     []byte
}

// NewWriter begins an export on w.
func NewWriter(w io.Writer, h Header) (*Writer, error) {
	x := &Writer{w: bufio.NewWriterSize(w, 64<<10)}
	if err := x.write(append([]byte(Magic), Version)); err != nil {
		return nil, err
	}
	return x, x.frame(kindHeader, h.append(nil))
}

// Record writes the record that key has in e, read at now.
func (x *Writer) Record(key string, e *engine.Entry, now engine.Instant) error {
	x.buf = append(appendRecord(x.buf[:0], key, e, now), key...)
	x.records++
	return x.frame(kindRecord, x.buf, e.Checkpoint, e.Result)
}

// Close ends the export. It fills in t.Records, and does not close what it writes to.
func (x *Writer) Close(t Trailer) error {
	t.Records = x.records
	if err := x.frame(kindTrailer, t.append(nil)); err != nil {
		return err
	}
	return x.w.Flush()
}

// frame writes a frame, whose payload is in parts.
func (x *Writer) frame(kind byte, parts ...[]byte) error {
	size := 0
	for _, p := range parts {
		size += len(p)
	}
	if err := x.write(binary.LittleEndian.AppendUint32([]byte{kind}, uint32(size))); err != nil {
		return err
	}
	for _, p := range parts {
		if err := x.write(p); err != nil {
			return err
		}
	}
	_, err := x.w.Write(binary.LittleEndian.AppendUint32(nil, x.sum))
	return err
}

func (x *Writer) write(b []byte) error {
	x.sum = crc32.Update(x.sum, castagnoli, b)
	_, err := x.w.Write(b)
	return err
}
