package operator

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/idemkv/idem/idemhttp"
)

// Kind is what a payload was found to be.
type Kind string

// The kinds.
const (
	// KindHidden: only the size may be shown.
	KindHidden Kind = "hidden"
	// KindEmpty: no bytes.
	KindEmpty Kind = "empty"
	// KindHTTP: an answer that idemhttp stored.
	KindHTTP Kind = "http"
	// KindJSON: one JSON value.
	KindJSON Kind = "json"
	// KindText: UTF-8 without control characters.
	KindText Kind = "text"
	// KindHex: anything else.
	KindHex Kind = "hex"
)

// DefaultLimit bounds the bytes shown of a payload.
const DefaultLimit = 64 << 10

// Payload is a result, reason, note or checkpoint as tools show it.
type Payload struct {
	// Kind says which of the fields below is set.
	Kind Kind `json:"kind"`
	// Bytes is the size of what is stored.
	Bytes int `json:"bytes"`
	// Truncated: only the beginning is shown. Truncated JSON is shown as text.
	Truncated bool `json:"truncated,omitempty"`
	// JSON is the value.
	JSON json.RawMessage `json:"json,omitempty"`
	// Text is the text.
	Text string `json:"text,omitempty"`
	// Hex is the bytes in hexadecimal.
	Hex string `json:"hex,omitempty"`
	// HTTP is the stored answer.
	HTTP *HTTP `json:"http,omitempty"`
}

// HTTP is a stored HTTP answer as tools show it.
type HTTP struct {
	// Status is the HTTP status.
	Status int `json:"status"`
	// NotRetained: the operation is done, and its answer cannot be replayed.
	NotRetained bool `json:"not_retained,omitempty"`
	// Header holds the fields that replay.
	Header map[string][]string `json:"header,omitempty"`
	// Body is the body; absent if the answer was not retained.
	Body *Payload `json:"body,omitempty"`
}

// Decode finds out what b is, and returns at most limit bytes of it. Zero means
// DefaultLimit. It copies what it keeps.
func Decode(b []byte, limit int) Payload {
	if limit <= 0 {
		limit = DefaultLimit
	}
	var answer idemhttp.Answer
	if err := answer.UnmarshalBinary(b); err == nil {
		return Payload{Kind: KindHTTP, Bytes: len(b), HTTP: decodeAnswer(answer, limit)}
	}
	return decodeBytes(b, limit)
}

func decodeAnswer(a idemhttp.Answer, limit int) *HTTP {
	h := &HTTP{Status: a.Status, NotRetained: a.NotRetained}
	if a.NotRetained {
		return h
	}
	h.Header = cutHeader(a.Header, limit)
	body := decodeBytes(a.Body, limit)
	h.Body = &body
	return h
}

// cutHeader returns the fields of header whose text fits in limit bytes together, as
// valid UTF-8. Stored answers are small, but a record may be anybody's.
func cutHeader(header map[string][]string, limit int) map[string][]string {
	kept := make(map[string][]string, len(header))
	for _, name := range slices.Sorted(maps.Keys(header)) {
		for _, v := range header[name] {
			if limit -= len(name) + len(v) + 4; limit < 0 {
				return kept
			}
			name := strings.ToValidUTF8(name, "\ufffd")
			kept[name] = append(kept[name], strings.ToValidUTF8(v, "\ufffd"))
		}
	}
	return kept
}

func decodeBytes(b []byte, limit int) Payload {
	p := Payload{Bytes: len(b)}
	if len(b) == 0 {
		p.Kind = KindEmpty
		return p
	}
	shown := b
	if len(b) > limit {
		p.Truncated = true
		shown = cutText(b[:limit])
	}
	switch {
	case !p.Truncated && utf8.Valid(b) && json.Valid(b):
		p.Kind, p.JSON = KindJSON, bytes.Clone(b)
	case isText(shown):
		p.Kind, p.Text = KindText, string(shown)
	default:
		p.Kind, p.Hex = KindHex, hex.EncodeToString(b[:min(len(b), limit/2)])
		p.Truncated = len(b) > limit/2
	}
	return p
}

// cutText drops the beginning of a rune that b ends with.
func cutText(b []byte) []byte {
	for i := 1; i < utf8.UTFMax && i <= len(b); i++ {
		if last := b[len(b)-i:]; utf8.RuneStart(last[0]) {
			if !utf8.FullRune(last) {
				return b[:len(b)-i]
			}
			break
		}
	}
	return b
}

// isText reports whether b is UTF-8 without control characters other than line ends and
// tabs.
func isText(b []byte) bool {
	if !utf8.Valid(b) {
		return false
	}
	for _, r := range string(b) {
		if r < ' ' && r != '\n' && r != '\t' && r != '\r' || r >= 0x7f && r < 0xa0 {
			return false
		}
	}
	return true
}
