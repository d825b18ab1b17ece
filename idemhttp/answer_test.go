package idemhttp

import (
	"encoding/hex"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// frozen are answers and their stored form, in testdata/answers-v1.txt. The file is
// never made anew: what a library has stored, every later one replays.
var frozen = map[string]struct {
	status      int
	notRetained bool
	fields      []field
	body        string
}{
	"empty":        {status: 200},
	"created":      {status: 201, fields: []field{{name: "Content-Type", values: []string{"application/json"}}, {name: "Location", values: []string{"/payments/1"}}}, body: `{"id":1}`},
	"many values":  {status: 303, fields: []field{{name: "Link", values: []string{"<a>", "", "<b>"}}, {name: "x-raw", values: []string{"\x00\xff"}}}},
	"added":        {status: 200, fields: []field{{name: "Vary", values: []string{"Accept"}, add: true}}, body: "\x00\xff"},
	"removed":      {status: 204, fields: []field{{name: "Content-Type"}, {name: "Server"}}},
	"not retained": {status: 206, notRetained: true},
	"upgraded":     {status: 101, notRetained: true},
	"last status":  {status: 999, body: "x"},
}

func TestFormatIsFrozen(t *testing.T) {
	t.Parallel()
	file, err := os.ReadFile("testdata/answers-v1.txt")
	require.NoError(t, err)
	seen := map[string]bool{}
	for line := range strings.Lines(string(file)) {
		name, text, _ := strings.Cut(strings.TrimSpace(line), ": ")
		want, err := hex.DecodeString(text)
		require.NoError(t, err)
		a, known := frozen[name]
		require.True(t, known, name)
		seen[name] = true

		got, err := appendAnswer([]byte("before"), a.status, a.notRetained, slices.Clone(a.fields), []byte(a.body))
		require.NoError(t, err)
		require.Equal(t, text, hex.EncodeToString(got[len("before"):]), name)

		s, err := openAnswer(want)
		require.NoError(t, err)
		require.Equal(t, a.status, s.status)
		require.Equal(t, a.notRetained, s.notRetained)
		require.Equal(t, a.body, string(s.body))
		h := http.Header{"Vary": {"Origin"}, "Server": {"outer"}}
		wantHeader := h.Clone()
		for _, f := range a.fields {
			if f.add {
				wantHeader[f.name] = append(wantHeader[f.name], f.values...)
			} else {
				wantHeader[f.name] = append([]string{}, f.values...)
			}
		}
		s.apply(h)
		require.Equal(t, wantHeader, h, name)
	}
	require.Len(t, seen, len(frozen), "an answer is not in the file")
}

// The table of docs/HTTP.md is what the code writes.
func TestFormatIsDocumented(t *testing.T) {
	t.Parallel()
	b, err := appendAnswer(nil, 0x0201, false, []field{{name: "A", values: []string{"xy", ""}}, {name: "B", values: []string{"z"}, add: true}}, []byte("body"))
	require.NoError(t, err)
	require.Equal(t, strings.Join([]string{
		"a7", "01", "00", "0102", "03000000", "23000000",
		"00", "01000000", "41", "02000000", "02000000", "7879", "00000000",
		"01", "01000000", "42", "01000000", "01000000", "7a",
		"626f6479",
	}, ""), hex.EncodeToString(b))
}

func TestAnswer(t *testing.T) {
	t.Parallel()
	a := Answer{Status: 201, Body: []byte("paid"), Header: http.Header{
		"Location": {"/1"}, "Link": {"<a>", "<b>"}, "X-Empty": {}, "Connection": {"close"}, "content-length": {"9"}, "Date": {"now"},
	}}
	b, err := a.MarshalBinary()
	require.NoError(t, err)
	var got Answer
	require.NoError(t, got.UnmarshalBinary(b))
	require.Equal(t, Answer{Status: 201, Body: []byte("paid"), Header: http.Header{"Location": {"/1"}, "Link": {"<a>", "<b>"}, "X-Empty": {}}}, got)
	for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
		shown := fmt.Sprintf(format, got)
		require.Contains(t, shown, "answer(status 201, 4 bytes)")
		require.NotContains(t, shown, "paid")
	}
	require.Equal(t, "[status=201 body_bytes=4 not_retained=false]", got.LogValue().String())
	clear(b)
	require.Equal(t, "/1", got.Header.Get("Location"), "it shares nothing with the bytes")
	require.Equal(t, "paid", string(got.Body))

	// Whoever adds to one field of a replay changes no other.
	s, err := openAnswer(must(appendAnswer(nil, 200, false, []field{{name: "A", values: []string{"x"}}, {name: "B", values: []string{"y"}}}, nil)))
	require.NoError(t, err)
	h := http.Header{}
	s.apply(h)
	h.Add("A", "z")
	require.Equal(t, http.Header{"A": {"x", "z"}, "B": {"y"}}, h)

	b, err = Answer{Status: 101, NotRetained: true, Body: []byte("dropped")}.MarshalBinary()
	require.NoError(t, err)
	require.NoError(t, got.UnmarshalBinary(b))
	require.Equal(t, Answer{Status: 101, NotRetained: true, Header: http.Header{}, Body: []byte{}}, got)

	for _, status := range []int{-1, 0, 99, 100, 101, 199, 1000, 70000} {
		_, err := Answer{Status: status}.MarshalBinary()
		require.ErrorIs(t, err, idem.ErrInvalid, status)
	}
}

// What is not just what appendAnswer writes is no answer, a byte of it missing, added
// or changed in its structure included.
func TestAnswerDamaged(t *testing.T) {
	t.Parallel()
	whole, err := appendAnswer(nil, 200, false, []field{{name: "A", values: []string{"x", "y"}}, {name: "B", values: []string{"z"}, add: true}}, nil)
	require.NoError(t, err)
	change := func(at int, to byte) []byte {
		b := slices.Clone(whole)
		b[at] = to
		return b
	}
	for name, b := range map[string][]byte{
		"nil": nil, "empty": {}, "text": []byte("paid"), "JSON": []byte(`{"status":200}`), "mark alone": {answerMark},
		"other mark": change(0, 0), "version 0": change(1, 0), "unknown flag": change(2, 2), "not retained with fields": change(2, 1),
		"status 0": change(3, 0), "status over": change(4, 4), "more values": change(5, 4), "fewer values": change(5, 2),
		"fewer fields": change(9, byte(len(whole)-answerHead-1)), "more fields": change(9, byte(len(whole)-answerHead+1)), "huge": change(12, 0xff),
		"mode": change(13, 2), "name length": change(14, 0xff), "twice": change(38, 'A'), "order": change(18, 'C'), "values of one": change(19, 3),
		"too many values of one": change(22, 0xff), "value length": change(23, 9), "nothing added": change(39, 0),
	} {
		_, err := openAnswer(b)
		require.ErrorIs(t, err, idem.ErrCorrupt, name)
		a := Answer{Status: 1}
		require.ErrorIs(t, a.UnmarshalBinary(b), idem.ErrCorrupt)
		require.Equal(t, Answer{Status: 1}, a, "unchanged")
	}
	// Fields that are whole but not as they are written.
	for _, fields := range [][]field{
		{{name: "A", add: true}},
		{{name: "B", values: []string{"x"}}, {name: "A", values: []string{"y"}}},
		{{name: "A", values: []string{"x"}}, {name: "A", values: []string{"y"}}},
	} {
		b, err := appendAnswer(nil, 200, false, nil, nil)
		require.NoError(t, err)
		values := 0
		for _, f := range fields {
			one, err := appendAnswer(nil, 200, false, []field{f}, nil)
			require.NoError(t, err)
			b = append(b, one[answerHead:]...)
			values += len(f.values)
		}
		b[5], b[9] = byte(values), byte(len(b)-answerHead)
		_, err = openAnswer(b)
		require.ErrorIs(t, err, idem.ErrCorrupt, fields)
	}
	for n := range len(whole) - 1 {
		_, err := openAnswer(whole[:n])
		require.ErrorIs(t, err, idem.ErrCorrupt, n)
	}
	_, err = openAnswer(change(1, 2))
	require.ErrorIs(t, err, idem.ErrVersion)
}

// FuzzOpenAnswer: any bytes are refused, or are what would be written for what they say.
func FuzzOpenAnswer(f *testing.F) {
	for _, name := range slices.Sorted(maps.Keys(frozen)) {
		a := frozen[name]
		b, err := appendAnswer(nil, a.status, a.notRetained, slices.Clone(a.fields), []byte(a.body))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := openAnswer(b)
		if err != nil {
			require.True(t, errors.Is(err, idem.ErrCorrupt) || errors.Is(err, idem.ErrVersion))
			return
		}
		// Added to nothing, what is added is what is set: read the modes by themselves.
		h := make(http.Header)
		s.apply(h)
		var fields []field
		for rest := s.fields; rest != ""; {
			add := rest[0] == fieldAdd
			name, r, ok := cutText(rest[1:])
			require.True(t, ok)
			n := length(r)
			r = r[4:]
			for range n {
				_, r, ok = cutText(r)
				require.True(t, ok)
			}
			fields = append(fields, field{name: name, values: h[name], add: add})
			rest = r
		}
		again, err := appendAnswer(nil, s.status, s.notRetained, fields, s.body)
		require.NoError(t, err)
		require.Equal(t, b, again)
	})
}

func must[T any](v T, err error) T {
	if err != nil {
		panic(err)
	}
	return v
}
