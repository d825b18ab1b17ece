package idem_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"math/big"
	"reflect"
	"runtime"
	"slices"
	"strconv"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/memory"
)

// What Do makes of a value by way of JSON: the first caller and its duplicates get the
// same, or all of them hear that there is nothing to replay.

// becomes runs fn once for v. The first caller and its duplicates get want.
func becomes[T any](t *testing.T, name string, v, want T) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		s := open(t, memory.New(memory.Options{}), idem.Options{})
		first, replayed, err := idem.Do(t.Context(), s, k, returning(v))
		require.NoError(t, err)
		require.False(t, replayed)
		require.Equal(t, want, first)
		again, replayed, err := idem.Do(t.Context(), s, k, notRun[T])
		require.NoError(t, err)
		require.True(t, replayed)
		require.Equal(t, want, again)
	})
}

// kept runs fn once for v, and everybody gets v.
func kept[T any](t *testing.T, name string, v T) {
	t.Helper()
	becomes(t, name, v, v)
}

// secretive has fields that JSON leaves out.
type secretive struct {
	ID     string
	Secret string `json:"-"`
	hidden int
	Lines  []string `json:",omitempty"`
}

// byPointer has an encoder that only its pointer has.
type byPointer struct{ n int }

func (p *byPointer) MarshalJSON() ([]byte, error) { return strconv.AppendInt(nil, int64(p.n), 10), nil }

func (p *byPointer) UnmarshalJSON(b []byte) (err error) {
	p.n, err = strconv.Atoi(string(b))
	return err
}

// backwards is encoded in another order than the map that it comes back as in an any.
type backwards struct {
	B float64
	A map[string]any
}

func TestFirstCallerGetsWhatReplays(t *testing.T) {
	t.Parallel()
	at := time.Now().UTC()
	becomes(t, "time with a monotonic reading", at, at.Round(0))
	becomes(t, "unexported and left out fields", secretive{"r1", "x", 1, []string{}}, secretive{ID: "r1"})
	becomes(t, "small integer in an any", map[string]any{"n": 7}, map[string]any{"n": 7.0})
	becomes(t, "largest integer that a float64 holds", map[string]any{"n": int64(1) << 53}, map[string]any{"n": float64(1 << 53)})
	becomes(t, "large integer of its own type", map[string]int64{"n": 1<<53 + 1}, map[string]int64{"n": 1<<53 + 1})
	becomes(t, "float32 in an any", any(float32(0.1)), any(0.1))
	becomes(t, "struct in an any", any(&backwards{1, map[string]any{"z": 1, "a": nil}}),
		any(map[string]any{"A": map[string]any{"z": 1.0, "a": nil}, "B": 1.0}))
	becomes(t, "numbers written otherwise", []any{json.Number("10.00"), json.Number("1E2"), json.Number("-0.50e1"), json.RawMessage(`0.000`)},
		[]any{10.0, 100.0, -5.0, 0.0})
	becomes(t, "raw JSON with space", json.RawMessage("{ \"b\": 1.50,\n\"a\": 12345678901234567890 }"), json.RawMessage(`{"b":1.50,"a":12345678901234567890}`))
	becomes(t, "no raw JSON", json.RawMessage(nil), json.RawMessage("null"))
	becomes(t, "replacement character", "a\ufffdb", "a\ufffdb")
	becomes(t, "text that looks like an escape", []any{`\ufffd`, backwards{}}, []any{`\ufffd`, map[string]any{"A": nil, "B": 0.0}})
	becomes(t, "encoder of the pointer", byPointer{3}, byPointer{3})
	becomes(t, "encoder of a field's pointer", []struct{ P byPointer }{{byPointer{3}}}, []struct{ P byPointer }{{byPointer{3}}})
	becomes(t, "big integer", *big.NewInt(math.MaxInt64), *big.NewInt(math.MaxInt64))
	becomes[error](t, "nil error", nil, nil)
	becomes(t, "nil error in a field", struct{ Err error }{}, struct{ Err error }{})
}

// The first caller's value is its own, and so is each duplicate's.
func TestReplayedValuesAreNotShared(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{})
	mine := map[string]any{"lines": []any{"tea"}}
	first, _, err := idem.Do(t.Context(), s, k, returning(mine))
	require.NoError(t, err)
	mine["lines"].([]any)[0] = "changed"
	assert.Equal(t, map[string]any{"lines": []any{"tea"}}, first)
	first["lines"].([]any)[0] = "changed"
	again, _, err := idem.Do(t.Context(), s, k, notRun[map[string]any])
	require.NoError(t, err)
	assert.Equal(t, map[string]any{"lines": []any{"tea"}}, again)
}

// oneWay loses its encoder on the way.
type oneWay struct{ encode func() ([]byte, error) }

func (o oneWay) MarshalJSON() ([]byte, error) {
	if o.encode == nil {
		return nil, errors.New("decoded, and cannot be encoded again")
	}
	return o.encode()
}

type panicsDecoding string

func (p *panicsDecoding) UnmarshalJSON([]byte) error { *p = "half"; panic("not of this") }

type refusesToDecode string

func (r *refusesToDecode) UnmarshalJSON([]byte) error { *r = "half"; return errRefusing }

type inner struct{ N int }

// notKept runs fn once for v. The first caller has v and an error, its duplicates have
// an error that they can find in the same way, and the work is not run again.
func notKept[T any](t *testing.T, name, why string, v T) {
	t.Helper()
	t.Run(name, func(t *testing.T) {
		t.Parallel()
		s := open(t, memory.New(memory.Options{}), idem.Options{})
		first, replayed, err := idem.Do(t.Context(), s, k, returning(v))
		require.ErrorIs(t, err, idem.ErrTooLarge)
		require.ErrorContains(t, err, "key "+s.KeyHash("k")+" is completed, but its value "+why)
		assert.False(t, replayed)
		assert.Equal(t, fmt.Sprintf("%#v", v), fmt.Sprintf("%#v", first), "as fn returned it")
		assert.Equal(t, idem.Completed, get(t, s, "k").State)
		assert.True(t, get(t, s, "k").ResultDropped)

		again, replayed, err := idem.Do(t.Context(), s, k, notRun[T])
		require.ErrorIs(t, err, idem.ErrTooLarge)
		assert.True(t, replayed)
		assert.Zero(t, again)
	})
}

func TestDoValueThatJSONDoesNotKeep(t *testing.T) {
	t.Parallel()
	const changed, undecodable, unencodable = "decodes from JSON to something else", "does not decode from its JSON", "cannot be encoded once decoded"
	notKept(t, "integer beyond a float64 in an any", changed, map[string]any{"id": int64(9007199254740993)})
	notKept(t, "integer beyond a float64, deep in a struct", changed, receiptOf{Extra: []any{uint64(math.MaxUint64)}})
	notKept(t, "digits beyond a float64 in an any", changed, any(json.Number("1.000000000000000001")))
	notKept(t, "number that becomes zero", changed, any(json.RawMessage("1e-400")))
	notKept(t, "exponent beyond an int", changed, any(json.RawMessage("1e-99999999999999999999")))
	notKept(t, "number that overflows", undecodable, any(json.Number("1e400")))
	notKept(t, "string that is not UTF-8", changed, "a\xffb")
	notKept(t, "string that is not UTF-8 next to one that may be", changed, []string{"\ufffd", "\xff"})
	notKept(t, "name that is not UTF-8", changed, map[string]int{"a\xffb": 1})
	notKept(t, "string that is not UTF-8, and another order", changed, []any{"a\xffb", backwards{}})
	notKept(t, "error in a field", undecodable, struct{ Err error }{errRefusing})
	notKept[error](t, "error", undecodable, errRefusing)
	notKept[fmt.Stringer](t, "interface with methods", undecodable, time.Second)
	notKept(t, "embedded pointer to what is not exported", undecodable, struct{ *inner }{&inner{1}})
	notKept(t, "decoder that refuses", undecodable, refusesToDecode("x"))
	notKept(t, "decoder that panics", undecodable+": decoding panicked", panicsDecoding("x"))
	notKept(t, "encoder that refuses what was decoded", unencodable, oneWay{encode: func() ([]byte, error) { return []byte(`{}`), nil }})
	n := 0
	notKept(t, "encoder that never says the same", changed, &struct{ N counting }{counting{&n}})
}

// receiptOf has a typed number that JSON keeps, and room for one that it does not.
type receiptOf struct {
	ID    int64
	Extra any
}

// counting encodes to another number every time.
type counting struct{ n *int }

func (c counting) MarshalJSON() ([]byte, error) {
	if c.n == nil {
		return []byte("0"), nil
	}
	*c.n++
	return strconv.AppendInt(nil, int64(*c.n), 10), nil
}
func (c *counting) UnmarshalJSON([]byte) error { return nil }

// The work is done by the time that the value's own method ends the goroutine.
func TestDoEncoderThatCallsGoexit(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{})
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_, _, _ = idem.Do(context.Background(), s, k, returning(oneWay{encode: func() ([]byte, error) { runtime.Goexit(); return nil, nil }}))
	}()
	<-ended
	_, replayed, err := idem.Do(t.Context(), s, k, notRun[oneWay])
	require.ErrorIs(t, err, idem.ErrTooLarge)
	require.True(t, replayed)
}

// A result of another type is not half filled in, and a decoder that panics is an error.
func TestReplayOfAnotherTypeIsZero(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{})
	_, _, err := idem.Do(t.Context(), s, k, returning(map[string]any{"ID": "r1", "Cents": "many"}))
	require.NoError(t, err)
	r, replayed, err := idem.Do(t.Context(), s, k, notRun[receipt])
	require.ErrorContains(t, err, "not JSON of a idem_test.receipt")
	assert.True(t, replayed)
	assert.Zero(t, r)
	_, _, err = idem.Do(t.Context(), s, k, notRun[error])
	require.ErrorContains(t, err, "not JSON of a error")
	d, _, err := idem.Do(t.Context(), s, k, notRun[panicsDecoding])
	require.ErrorContains(t, err, "decoding panicked")
	assert.Zero(t, d)
}

// Decoders quote the value that they fail on. A result must not get into logs in that way.
func TestErrorsOfDecodingQuoteNoResult(t *testing.T) {
	t.Parallel()
	const secret = "4111111111111111"
	s := open(t, memory.New(memory.Options{}), idem.Options{})
	quiet := func(err error, want string, cause any) {
		t.Helper()
		require.ErrorContains(t, err, want)
		assert.NotContains(t, err.Error(), secret)
		assert.ErrorAs(t, err, cause, "it is there for who asks")
	}
	var notOfType *json.UnmarshalTypeError
	var noTime *time.ParseError

	card := idem.Request{Key: "card"}
	_, _, err := idem.Do(t.Context(), s, card, returning(map[string]any{"N": json.Number(secret)}))
	require.NoError(t, err)
	_, _, err = idem.Do(t.Context(), s, card, notRun[struct{ N int8 }])
	quiet(err, "the number of field N at byte 21 does not fit int8", &notOfType)

	text := idem.Request{Key: "text"}
	_, _, err = idem.Do(t.Context(), s, text, returning(secret))
	require.NoError(t, err)
	_, _, err = idem.Do(t.Context(), s, text, notRun[time.Time])
	quiet(err, "decoding failed with a *time.ParseError", &noTime)

	first := idem.Request{Key: "first caller"}
	_, _, err = idem.Do(t.Context(), s, first, returning(any(json.Number(secret+"e999"))))
	quiet(err, "the number at byte 21 does not fit float64", &notOfType)

	var noJSON *json.SyntaxError
	torn := idem.Request{Key: "torn"}
	_, _, err = idem.Do(t.Context(), s, torn, returning([]byte("[1 "+secret)))
	require.NoError(t, err)
	_, _, err = idem.Do(t.Context(), s, torn, notRun[[]int])
	quiet(err, "it stops being JSON at byte 4", &noJSON)
}

// anything draws a value of whatever an any may hold.
func anything(depth int) *rapid.Generator[any] {
	number := rapid.StringMatching(`-?(0|[1-9][0-9]{0,20})(\.[0-9]{1,20})?([eE][+-]?[0-9]{1,2})?`)
	text := rapid.OneOf(rapid.String(), rapid.Map(rapid.SliceOfN(rapid.Byte(), 0, 4), func(b []byte) string { return string(b) }),
		rapid.SampledFrom([]string{"\ufffd", `\ufffd`, "<&>", "\u2028", "\x00"}))
	leaf := rapid.OneOf(
		text.AsAny(), rapid.Int64().AsAny(), rapid.Uint64().AsAny(), rapid.Int16().AsAny(), rapid.Float64().AsAny(), rapid.Float32().AsAny(),
		rapid.SampledFrom([]any{nil, true, false, math.NaN(), math.Inf(-1), math.Copysign(0, -1), int64(1)<<53 + 1, []byte{0xff}, []string(nil), (*int)(nil)}),
		rapid.Map(number, func(s string) any { return json.Number(s) }),
		rapid.Map(number, func(s string) any { return json.RawMessage(` {"b": ` + s + `, "a": [` + s + `]}`) }),
		rapid.Just(any(struct {
			B int
			A string
		}{2, "x"})),
	)
	if depth == 0 {
		return leaf
	}
	return rapid.OneOf(leaf,
		rapid.SliceOfN(anything(depth-1), 0, 3).AsAny(),
		rapid.MapOfN(text, anything(depth-1), 0, 3).AsAny())
}

// keeps says, by means that share nothing with Do, whether JSON keeps v where it comes
// back as a T: the value that it decodes to is encoded as the same value of JSON.
func keeps[T any](v T) bool {
	b, err := json.Marshal(&v)
	if err != nil {
		return false
	}
	var back T
	if json.Unmarshal(b, &back) != nil {
		return false
	}
	again, err := json.Marshal(&back)
	return err == nil && isUTF8(reflect.ValueOf(&v)) && means(b, again)
}

// isUTF8 reports whether all strings in v are.
func isUTF8(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.String:
		return utf8.ValidString(v.String())
	case reflect.Pointer, reflect.Interface:
		return v.IsNil() || isUTF8(v.Elem())
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			if !isUTF8(v.Index(i)) {
				return false
			}
		}
	case reflect.Map:
		for _, key := range v.MapKeys() {
			if !isUTF8(key) || !isUTF8(v.MapIndex(key)) {
				return false
			}
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if f := v.Type().Field(i); f.IsExported() && f.Tag.Get("json") != "-" && !isUTF8(v.Field(i)) {
				return false
			}
		}
	}
	return true
}

// means reports whether two texts of JSON are one value, numbers as fractions.
func means(a, b []byte) bool {
	var x, y any
	for _, side := range []struct {
		text []byte
		tree *any
	}{{a, &x}, {b, &y}} {
		d := json.NewDecoder(bytes.NewReader(side.text))
		d.UseNumber()
		if d.Decode(side.tree) != nil {
			return false
		}
		*side.tree = fractions(*side.tree)
	}
	return reflect.DeepEqual(x, y)
}

func fractions(tree any) any {
	switch tree := tree.(type) {
	case json.Number:
		f, _ := new(big.Rat).SetString(string(tree))
		if f.Sign() == 0 && tree[0] == '-' {
			return "-0" // a float64 keeps its sign
		}
		return f.RatString()
	case []any:
		for i := range tree {
			tree[i] = fractions(tree[i])
		}
	case map[string]any:
		for _, name := range slices.Collect(maps.Keys(tree)) {
			tree[name] = fractions(tree[name])
		}
	}
	return tree
}

// assorted has what a result may have.
type assorted struct {
	ID     int64
	Small  float32
	At     time.Time
	Secret string `json:"-"`
	hidden int
	Opt    []string       `json:",omitempty"`
	Bytes  []byte         `json:",omitempty"`
	ByID   map[int]string `json:",omitempty"`
	Quoted int64          `json:",string"`
	Num    json.Number    `json:",omitempty"`
	Big    big.Int
	Extra  any
	Err    error
	Next   *assorted
}

func drawAssorted(r *rapid.T) *assorted {
	a := &assorted{
		ID: rapid.Int64().Draw(r, "ID"), Small: rapid.Float32().Draw(r, "Small"), Quoted: rapid.Int64().Draw(r, "Quoted"),
		Secret: rapid.String().Draw(r, "Secret"), hidden: rapid.Int().Draw(r, "hidden"),
		Opt:   rapid.SampledFrom([][]string{nil, {}, {"a"}, {"\xff"}}).Draw(r, "Opt"),
		Bytes: rapid.SliceOf(rapid.Byte()).Draw(r, "Bytes"),
		ByID:  rapid.MapOfN(rapid.Int(), rapid.String(), 0, 2).Draw(r, "ByID"),
		At:    rapid.SampledFrom([]time.Time{{}, time.Now(), time.Now().UTC(), time.Unix(1, 1).In(time.FixedZone("x", 3600))}).Draw(r, "At"),
		Num:   rapid.SampledFrom([]json.Number{"", "1.50", "12345678901234567890"}).Draw(r, "Num"),
		Err:   rapid.SampledFrom([]error{nil, nil, nil, errRefusing}).Draw(r, "Err"),
		Extra: anything(1).Draw(r, "Extra"),
	}
	a.Big.SetUint64(rapid.Uint64().Draw(r, "Big"))
	if rapid.Bool().Draw(r, "more") {
		a.Next = drawAssorted(r)
	}
	return a
}

// oneAnswer gives v to Do. Where JSON keeps it, the first caller and its duplicates get
// equal values; where it does not, all hear the same error.
func oneAnswer[T any](r *rapid.T, s *idem.Store, v T) {
	req := idem.Request{Key: "k"}
	defer func() { require.NoError(r, s.Forget(context.Background(), idem.Token{Key: "k"})) }()
	kept := keeps(v)
	first, replayed, err := idem.Do(context.Background(), s, req, returning(v))
	require.False(r, replayed)
	if kept {
		require.NoError(r, err)
	} else {
		require.ErrorIs(r, err, idem.ErrTooLarge)
	}
	again, replayed, againErr := idem.Do(context.Background(), s, req, notRun[T])
	require.True(r, replayed)
	if !kept {
		require.ErrorIs(r, againErr, idem.ErrTooLarge)
		return
	}
	require.NoError(r, againErr)
	require.True(r, reflect.DeepEqual(first, again), "first %#v, again %#v", first, again)
}

func TestFirstAndReplayAreOne(t *testing.T) {
	t.Parallel()
	s := open(t, memory.New(memory.Options{}), idem.Options{})
	rapid.Check(t, func(r *rapid.T) {
		oneAnswer(r, s, anything(3).Draw(r, "any"))
		oneAnswer(r, s, rapid.MapOfN(rapid.String(), anything(2), 0, 3).Draw(r, "map"))
		oneAnswer(r, s, drawAssorted(r))
		oneAnswer(r, s, *drawAssorted(r))
		oneAnswer(r, s, rapid.SliceOf(rapid.Byte()).Draw(r, "bytes"))
		oneAnswer(r, s, string(rapid.SliceOf(rapid.Byte()).Draw(r, "text")))
		oneAnswer(r, s, [2]any{anything(1).Draw(r, "array 0"), anything(1).Draw(r, "array 1")})
	})
}
