package operator

import (
	"bufio"
	"bytes"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"

	"github.com/idemkv/idem/idemhttp"
)

// Format is how an operator writes a payload.
type Format string

// The formats.
const (
	// FormatNone: no payload.
	FormatNone Format = "none"
	// FormatText: the text as it is.
	FormatText Format = "text"
	// FormatJSON: one JSON value, checked and then taken as it is.
	FormatJSON Format = "json"
	// FormatHex: bytes in hexadecimal; white space is skipped.
	FormatHex Format = "hex"
	// FormatHTTP: an answer for idemhttp to replay. The first line is the status, such as
	// "201"; header lines follow, then an empty line and the body.
	FormatHTTP Format = "http"
)

// Formats lists the formats.
func Formats() []Format {
	return []Format{FormatNone, FormatText, FormatJSON, FormatHex, FormatHTTP}
}

// ParsePayload returns the bytes that text stands for. idem.ErrInvalid is returned when
// text is not in the format; the message says what is wrong and holds nothing of text.
func ParsePayload(f Format, text string) ([]byte, error) {
	switch f {
	case FormatNone, "":
		if text != "" {
			return nil, invalid("there is a payload and no format; choose text, json, hex or http")
		}
		return nil, nil
	case FormatText:
		return []byte(text), nil
	case FormatJSON:
		if !json.Valid([]byte(text)) {
			return nil, invalid("the payload is not one JSON value; mend it, or choose the format text")
		}
		return []byte(text), nil
	case FormatHex:
		b, err := hex.DecodeString(strings.Join(strings.Fields(text), ""))
		if err != nil {
			return nil, invalid("the payload is not hexadecimal; give two digits for each byte")
		}
		return b, nil
	case FormatHTTP:
		return parseAnswer(text)
	}
	return nil, invalid("the format is %q; none, text, json, hex and http are possible", Line(string(f), 40))
}

func parseAnswer(text string) ([]byte, error) {
	r := bufio.NewReader(strings.NewReader(text))
	tp := textproto.NewReader(r)
	first, _ := tp.ReadLine()
	words := strings.Fields(first)
	if len(words) > 0 && strings.HasPrefix(words[0], "HTTP/") {
		words = words[1:]
	}
	status := 0
	if len(words) > 0 {
		status, _ = strconv.Atoi(words[0])
	}
	if status < 200 || status > 999 {
		return nil, invalid("the first line must be an HTTP status of 200 to 999, such as 201")
	}
	var header textproto.MIMEHeader
	if _, err := r.Peek(1); err == nil { // a status alone is a whole answer
		if header, err = tp.ReadMIMEHeader(); err != nil && err != io.EOF {
			return nil, invalid("after the status come header lines (Name: value), an empty line and the body")
		}
	}
	var body bytes.Buffer
	_, _ = body.ReadFrom(r) // it reads from memory
	b, err := idemhttp.Answer{Status: status, Header: http.Header(header), Body: body.Bytes()}.MarshalBinary()
	if err != nil {
		return nil, invalid("the answer cannot be stored")
	}
	return b, nil
}
