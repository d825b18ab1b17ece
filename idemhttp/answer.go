package idemhttp

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"unsafe"

	"github.com/idemkv/idem"
)

// Answer is the part of an HTTP answer that is stored and replays. The middleware makes and
// reads Answers itself. The type is exported for code that settles an operation by hand, or
// completes it in a commit of its own (see Operation.Token), and for tools that show
// records.
type Answer struct {
	// Status is the HTTP status: 200 to 999, or from 100 on if NotRetained.
	Status int
	// Header holds the fields that replay. They replace fields of the same name that
	// middleware further out has set for the current request.
	Header http.Header
	// Body is the body that the client gets. Content-Length follows from it.
	Body []byte
	// NotRetained: the operation is done and was answered with Status, but the rest of the
	// answer cannot be replayed. Header and Body are then empty.
	NotRetained bool
}

// MarshalBinary returns the bytes to complete an operation with. It leaves out
// Content-Length, Date and the header fields that are about one connection. The format is
// frozen; see docs/HTTP.md. idem.ErrInvalid is returned when Status is out of range.
func (a Answer) MarshalBinary() ([]byte, error) {
	if a.NotRetained {
		return appendAnswer(nil, a.Status, true, nil, nil)
	}
	fields := make([]field, 0, len(a.Header))
	for name, values := range a.Header {
		if !ofOneConnection[http.CanonicalHeaderKey(name)] {
			fields = append(fields, field{name: name, values: values})
		}
	}
	return appendAnswer(nil, a.Status, false, fields, a.Body)
}

// UnmarshalBinary reads what MarshalBinary or the middleware wrote. It copies b.
// idem.ErrCorrupt is returned when b is anything else, idem.ErrVersion when a newer version
// of this library wrote it; a is then unchanged.
func (a *Answer) UnmarshalBinary(b []byte) error {
	s, err := openAnswer(bytes.Clone(b))
	if err != nil {
		return err
	}
	got := Answer{Status: s.status, Header: make(http.Header), Body: s.body, NotRetained: s.notRetained}
	s.apply(got.Header)
	*a = got
	return nil
}

// String names the answer without disclosing its header or body.
func (a Answer) String() string {
	return fmt.Sprintf("answer(status %d, %d bytes)", a.Status, len(a.Body))
}

// GoString is String: %#v does not disclose the header or body either.
func (a Answer) GoString() string { return a.String() }

// LogValue logs the status and the body's size.
func (a Answer) LogValue() slog.Value {
	return slog.GroupValue(slog.Int("status", a.Status), slog.Int("body_bytes", len(a.Body)), slog.Bool("not_retained", a.NotRetained))
}

// field is a header field of an answer, as a change to what middleware further out
// has set: either its values, or values added behind those.
type field struct {
	name   string
	values []string
	add    bool
}

const (
	answerMark        = 0xa7 // no text begins with it
	answerVersion     = 1
	answerNotRetained = 1 // flag
	answerHead        = 13
	fieldSet          = 0
	fieldAdd          = 1
)

var errNotAnswer = fmt.Errorf("%w: the result is not an HTTP answer that idemhttp stored", idem.ErrCorrupt)

// appendAnswer appends the stored form. It sorts fields.
func appendAnswer(b []byte, status int, notRetained bool, fields []field, body []byte) ([]byte, error) {
	if status < 100 || status > 999 || status < 200 && !notRetained {
		return nil, fmt.Errorf("%w: an answer cannot have status %d", idem.ErrInvalid, status)
	}
	var flags byte
	if notRetained {
		flags |= answerNotRetained
	}
	start := len(b)
	b = append(b, answerMark, answerVersion, flags)
	b = binary.LittleEndian.AppendUint16(b, uint16(status))
	b = append(b, 0, 0, 0, 0, 0, 0, 0, 0) // filled in below
	slices.SortFunc(fields, func(x, y field) int { return strings.Compare(x.name, y.name) })
	values := 0
	for _, f := range fields {
		mode := byte(fieldSet)
		if f.add {
			mode = fieldAdd
		}
		b = append(b, mode)
		b = appendText(b, f.name)
		b = binary.LittleEndian.AppendUint32(b, uint32(len(f.values)))
		for _, v := range f.values {
			b = appendText(b, v)
		}
		values += len(f.values)
	}
	binary.LittleEndian.PutUint32(b[start+5:], uint32(values))
	binary.LittleEndian.PutUint32(b[start+9:], uint32(len(b)-start-answerHead))
	return append(b, body...), nil
}

func appendText(b []byte, s string) []byte {
	b = binary.LittleEndian.AppendUint32(b, uint32(len(s)))
	return append(b, s...)
}

// storedAnswer is an answer in its stored form, checked and not unpacked: a replay
// goes from here straight into the header of its ResponseWriter.
type storedAnswer struct {
	status      int
	notRetained bool
	values      int    // of all fields
	fields      string // points into the stored form
	body        []byte
}

// openAnswer checks all of b. It accepts exactly what appendAnswer writes, and nothing done
// with the result can fail.
func openAnswer(b []byte) (a storedAnswer, err error) {
	if len(b) < 2 || b[0] != answerMark {
		return a, errNotAnswer
	}
	if b[1] > answerVersion {
		return a, fmt.Errorf("%w: a stored HTTP answer of version %d, this library reads up to %d", idem.ErrVersion, b[1], answerVersion)
	}
	if len(b) < answerHead || b[1] != answerVersion || b[2]&^answerNotRetained != 0 {
		return a, errNotAnswer
	}
	a.notRetained = b[2]&answerNotRetained != 0
	a.status = int(binary.LittleEndian.Uint16(b[3:]))
	a.values = int(binary.LittleEndian.Uint32(b[5:]))
	size := binary.LittleEndian.Uint32(b[9:])
	if a.status < 100 || a.status > 999 || a.status < 200 && !a.notRetained || a.notRetained && len(b) > answerHead ||
		uint64(size) > uint64(len(b)-answerHead) {
		return a, errNotAnswer
	}
	b = b[answerHead:]
	// Nobody changes a stored result, so its text need not be copied. The copy would be a
	// third of what a replay allocates.
	a.fields = unsafe.String(unsafe.SliceData(b), int(size))
	a.body = b[size:]
	if !a.fieldsAreWhole() {
		return a, errNotAnswer
	}
	return a, nil
}

// fieldsAreWhole reports whether the fields are as appendAnswer writes them: sorted,
// each once, with as many values as the head says, and nothing after them.
func (a *storedAnswer) fieldsAreWhole() bool {
	values, previous, first := 0, "", true
	for s := a.fields; s != ""; first = false {
		mode := s[0]
		name, rest, ok := cutText(s[1:])
		if !ok || len(rest) < 4 || mode > fieldAdd || !first && name <= previous {
			return false
		}
		n := length(rest)
		if mode == fieldAdd && n == 0 {
			return false
		}
		rest = rest[4:]
		for range n {
			if _, rest, ok = cutText(rest); !ok {
				return false
			}
		}
		values += int(n)
		previous, s = name, rest
	}
	return values == a.values
}

// apply makes the changes to h that the handler made when it ran. All values share one
// slice, which it returns, with room for two more.
func (a *storedAnswer) apply(h http.Header) []string {
	all := make([]string, a.values, a.values+2)
	free := all
	for s := a.fields; s != ""; {
		mode := s[0]
		var name string
		name, s = take(s[1:])
		n := length(s)
		s = s[4:]
		values := free[:n:n] // whoever appends to it gets a copy
		free = free[n:]
		for i := range values {
			values[i], s = take(s)
		}
		if mode == fieldAdd {
			values = append(slices.Clip(h[name]), values...)
		}
		h[name] = values
	}
	return all
}

// take cuts a text, preceded by its length, off s, which is known to be whole.
func take(s string) (text, rest string) {
	n := length(s)
	return s[4 : 4+n], s[4+n:]
}

// length reads the length or number that s begins with, which has four bytes at least.
func length(s string) uint32 {
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

// cutText cuts a text, preceded by its length, off s.
func cutText(s string) (text, rest string, ok bool) {
	if len(s) < 4 {
		return "", "", false
	}
	n := uint64(length(s))
	if s = s[4:]; n > uint64(len(s)) {
		return "", "", false
	}
	return s[:n], s[n:], true
}

// replay sends the answer, marked as a replay unless marker is empty.
func (a *storedAnswer) replay(w http.ResponseWriter, marker string) {
	h := w.Header()
	recoded := encoded(h)
	values := a.apply(h)
	if marker != "" {
		values = append(values, "true")
		h[marker] = values[len(values)-1 : len(values) : len(values)]
	}
	if bodyAllowed(a.status) && !recoded {
		values = append(values, strconv.Itoa(len(a.body)))
		h["Content-Length"] = values[len(values)-1 : len(values) : len(values)]
	}
	w.WriteHeader(a.status)
	if len(a.body) > 0 {
		_, _ = w.Write(a.body) // a client that is gone asks again
	}
}

// isNotAnswer reports whether err says that a result is no answer at all, rather than an
// answer of a newer version.
func isNotAnswer(err error) bool { return errors.Is(err, idem.ErrCorrupt) }

// bodyAllowed reports whether an answer with this status can have a body (RFC 9110,
// section 6.4.1).
func bodyAllowed(status int) bool {
	return status >= 200 && status != http.StatusNoContent && status != http.StatusNotModified
}
