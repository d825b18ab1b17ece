package exportfile

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"

	"github.com/idemkv/idem/engine"
)

// Reader reads an export.
type Reader struct {
	// Header and Trailer are what the export says of its store. The trailer is known when
	// Next has returned io.EOF.
	Header  Header
	Trailer Trailer

	r       *bufio.Reader
	sum     uint32
	at      int64 // bytes read
	begun   int64 // where the frame begins
	records uint64
	payload bytes.Buffer
}

// NewReader reads the beginning of an export from r. Its errors, and those of Next, are
// one line that says where the export is wrong, and what to do. engine.ErrInvalid is
// returned when it is something else than an export, engine.ErrVersion when it is of
// another version, and engine.ErrCorrupt when it is damaged or cut short. An error of r
// is wrapped.
func NewReader(r io.Reader) (*Reader, error) {
	x := &Reader{r: bufio.NewReaderSize(r, 64<<10)}
	start := make([]byte, len(Magic)+1)
	n, err := io.ReadFull(x.r, start)
	if got := start[:min(n, len(Magic))]; string(got) != Magic[:len(got)] || n == 0 && err == io.EOF {
		return nil, fmt.Errorf("%w: this is no export: it does not begin as one; pass what Store.Export wrote", engine.ErrInvalid)
	}
	x.at = int64(n)
	if err != nil {
		return nil, x.ended(err)
	}
	x.sum = crc32.Checksum(start, castagnoli)
	kind, err := x.frame(maxHeader)
	if err != nil {
		return nil, err
	}
	version := start[len(Magic)]
	switch {
	case version > Version:
		return nil, fmt.Errorf("%w: the export is of version %d, this library reads version %d; use a newer library", engine.ErrVersion, version, Version)
	case version < Version || kind != kindHeader || !x.Header.decode(x.payload.Bytes()):
		return nil, x.corrupt("is not well formed")
	}
	return x, nil
}

// Records returns how many records have been read.
func (x *Reader) Records() uint64 { return x.records }

// Next reads the next record into r. io.EOF is returned at the end, once the trailer has
// been found to match what came before it.
func (x *Reader) Next(r *Record) error {
	kind, err := x.frame(recordHead + maxKey + 2*maxValue)
	if err != nil {
		return err
	}
	switch kind {
	case kindRecord:
		if err := r.decode(x.payload.Bytes()); err != nil {
			return x.corrupt(err.Error())
		}
		x.records++
		return nil
	case kindTrailer:
		if !x.Trailer.decode(x.payload.Bytes()) {
			return x.corrupt("is not well formed")
		}
		if x.Trailer.Records != x.records {
			return fmt.Errorf("%w: the export says that it has %d records, but has %d; export again", engine.ErrCorrupt, x.Trailer.Records, x.records)
		}
		switch _, err := x.r.ReadByte(); err {
		case io.EOF:
			return io.EOF
		case nil:
			return fmt.Errorf("%w: the export goes on after its end, at byte %d; pass one export, and nothing else", engine.ErrCorrupt, x.at)
		default:
			return x.ended(err)
		}
	}
	return x.corrupt("is of a kind that is not known")
}

// frame reads a frame. Its payload, of limit bytes at most, is valid until the next call.
func (x *Reader) frame(limit uint32) (kind byte, err error) {
	x.begun = x.at
	var head [frameHead]byte
	if err := x.read(head[:]); err != nil {
		return 0, err
	}
	size := binary.LittleEndian.Uint32(head[1:])
	if size > limit {
		return 0, x.corrupt("is longer than it can be")
	}
	if x.payload.Cap() > keptPayload {
		x.payload = bytes.Buffer{}
	}
	x.payload.Reset()
	// It grows with what arrives: a damaged length takes no memory that is not needed.
	n, err := io.CopyN(&x.payload, x.r, int64(size))
	x.at += n
	if err != nil {
		return 0, x.ended(err)
	}
	sum := crc32.Update(crc32.Update(x.sum, castagnoli, head[:]), castagnoli, x.payload.Bytes())
	var want [crcSize]byte
	if err := x.read(want[:]); err != nil {
		return 0, err
	}
	if binary.LittleEndian.Uint32(want[:]) != sum {
		return 0, x.corrupt("fails its checksum")
	}
	x.sum = sum
	return head[0], nil
}

// keptPayload is the size of the largest buffer that is kept for the next frame.
const keptPayload = 1 << 20

func (x *Reader) read(b []byte) error {
	n, err := io.ReadFull(x.r, b)
	x.at += int64(n)
	if err != nil {
		return x.ended(err)
	}
	return nil
}

// ended is the error for a reader that ended with err before the export did.
func (x *Reader) ended(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fmt.Errorf("%w: the export ends at byte %d, after %d records, and is not whole; copy it again, or export again",
			engine.ErrCorrupt, x.at, x.records)
	}
	return fmt.Errorf("idem: reading the export at byte %d: %w", x.at, err)
}

// corrupt is the error for the frame that was read last.
func (x *Reader) corrupt(what string) error {
	part := "header"
	if x.begun > int64(len(Magic))+1 {
		part = fmt.Sprintf("record %d, or what stands in its place,", x.records+1)
	}
	return fmt.Errorf("%w: the export's %s at byte %d %s; copy it again, or export again", engine.ErrCorrupt, part, x.begun, what)
}
