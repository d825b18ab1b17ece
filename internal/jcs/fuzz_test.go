package jcs

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"
	"testing"
	"unicode/utf16"
	"unicode/utf8"
)

// FuzzCanonical: what is canonical means to encoding/json what the input means, with
// every number exactly, is sorted, has no white space, and is its own canonical form.
// What is refused is no JSON to encoding/json either, or one of the things that I-JSON
// forbids, or a number with an exponent beyond all sense.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{
		``, `null`, `{"b":[1,2.50,-0,1e-7],"a":{"d":"\ud83d\ude00","c":"\u000f"}}`, `{"a":1,"a":2}`, `"\ud800"`, "\"\xff\"",
		`[1e400,-1E-400]`, `9007199254740993`, `[9007199254740993.0,90071992547409930e-1,1.000000000000000001]`,
		`[0.10e-05,12345678901234567890123e-2]`, `[1e999999999,0e99999999999999999999]`, `-1e1000000000`, `1e-99999999999999999999`, `[[[]]]`, `{"\ufb33":0,"\ud83d\ude00":1}`, `{} {}`, `"\u12"`, `{"a":[{"c":0,"b":1}],"":2}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) {
		out, err := Canonical(in)
		if err != nil {
			var e *Error
			if !errors.As(err, &e) || e.Offset < 0 || e.Offset > len(in) {
				t.Fatalf("error %v of %d bytes", err, len(in))
			}
			if json.Valid(in) && !slices.ContainsFunc([]string{"UTF-8", "surrogate", "already", "an exponent beyond"},
				func(s string) bool { return strings.Contains(e.Problem, s) }) {
				t.Fatalf("%q is valid, refused with %v", in, err)
			}
			return
		}
		meant, err := decode(in)
		if err != nil {
			t.Fatalf("%q is accepted; encoding/json says %v", in, err)
		}
		if again, err := Canonical(out); err != nil || !bytes.Equal(again, out) {
			t.Fatalf("%q gives %q, and that %q (%v)", in, out, again, err)
		}
		if want := reference(t, nil, meant); !bytes.Equal(out, want) {
			t.Fatalf("%q gives %q, want %q", in, out, want)
		}
	})
}

// decode reads one JSON value, with its numbers as they are written.
func decode(in []byte) (v any, err error) {
	if !json.Valid(in) { // a Decoder does not mind what follows
		return nil, errors.New("not one value")
	}
	d := json.NewDecoder(bytes.NewReader(in))
	d.UseNumber()
	return v, d.Decode(&v)
}

// reference writes a decoded value, by other means than the package does: the
// standard library's encoder for strings, its fractions for numbers, its UTF-16 for the
// order.
func reference(t testing.TB, b []byte, v any) []byte {
	switch v := v.(type) {
	case []any:
		b = append(b, '[')
		for i, e := range v {
			if i > 0 {
				b = append(b, ',')
			}
			b = reference(t, b, e)
		}
		return append(b, ']')
	case map[string]any:
		var names []string
		for name := range v {
			names = append(names, name)
		}
		slices.SortFunc(names, func(a, b string) int {
			return slices.Compare(utf16.Encode([]rune(a)), utf16.Encode([]rune(b)))
		})
		b = append(b, '{')
		for i, name := range names {
			if i > 0 {
				b = append(b, ',')
			}
			b = append(reference(t, b, name), ':')
			b = reference(t, b, v[name])
		}
		return append(b, '}')
	case json.Number:
		return append(b, referenceNumber(t, v.String())...)
	case string:
		b = append(b, '"')
		for _, r := range v {
			one, err := json.Marshal(string(r))
			if err != nil {
				panic(err)
			}
			switch {
			case strings.ContainsRune("<>&\u2028\u2029", r): // what encoding/json escapes for HTML
				b = utf8.AppendRune(b, r)
			default:
				b = append(b, one[1:len(one)-1]...)
			}
		}
		return append(b, '"')
	}
	one, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(b, one...)
}
