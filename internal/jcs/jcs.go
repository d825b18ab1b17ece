// Package jcs writes JSON in the canonical form of RFC 8785 (JSON Canonicalization
// Scheme): no white space, object names in the order of their UTF-16 code units,
// strings and numbers as ECMAScript writes them. Two texts get the same bytes if, and
// only if, they have the same JSON value.
//
// It departs from the RFC in one respect. RFC 8785 treats each number as a float64 and
// writes the shortest digits that read back as it, which makes 9007199254740993 and
// 9007199254740992 one number. Here a number keeps all its digits. The form is the
// RFC's wherever those are the float64's shortest digits. That is true of every number
// written from a float64 in ECMAScript's way, and of every number of up to 15 digits in
// the normal range.
//
// The input is I-JSON (RFC 7493), except for the size and precision of numbers. What
// I-JSON leaves open, or would let two different texts pass for one, is an error; see
// Canonical.
package jcs

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// MaxDepth is how deep arrays and objects may nest, the same as in encoding/json.
const MaxDepth = 10_000

// Error says what is wrong with the input, and where. It quotes none of the input and
// is safe to log and show.
type Error struct {
	// Offset is the offset of the byte where the problem was found, from 0.
	Offset int
	// Problem says what is wrong, in a few words.
	Problem string
}

// Error returns the problem with its offset.
func (e *Error) Error() string { return fmt.Sprintf("at byte %d: %s", e.Offset, e.Problem) }

// Canonical returns the canonical form of the one JSON value in b. It takes linear
// space and, apart from sorting names, linear time. b is only read.
//
// An *Error is returned when b is not JSON or continues after the value, and for a
// duplicate name in an object (however it is escaped), invalid UTF-8, a lone surrogate,
// an exponent beyond MaxExponent, and nesting deeper than MaxDepth.
func Canonical(b []byte) ([]byte, error) {
	p := parser{src: string(b)}
	if !utf8.ValidString(p.src) {
		return nil, &Error{invalidAt(p.src), "invalid UTF-8"}
	}
	p.out = make([]byte, 0, len(b))
	p.space()
	if err := p.value(0); err != nil {
		return nil, err
	}
	p.space()
	if p.pos < len(p.src) {
		return nil, p.errorf("data after the value")
	}
	if len(p.unsorted) == 0 {
		return p.out, nil
	}
	s := sorter{parser: &p, dst: make([]byte, 0, len(p.out))}
	s.emit(0, len(p.out), 0)
	return s.dst, nil
}

func invalidAt(s string) int {
	for i, r := range s {
		if r == utf8.RuneError && !strings.HasPrefix(s[i:], "\uFFFD") {
			return i
		}
	}
	return len(s)
}

// parser reads src once and writes it canonically to out, except for the order of
// names. Objects whose order is wrong go into unsorted, and a second pass sorts them.
// Sorting at the end of each object instead would copy the innermost value once for
// each level around it.
type parser struct {
	src string
	pos int
	out []byte
	// members holds the members of open objects, innermost last.
	members []member
	// unsorted holds objects in the order of their places in out. An object without
	// members needs no sorting; it was added before that was known.
	unsorted []object
}

type object struct {
	start, end int      // in out, with its braces
	next       int      // the first entry of unsorted that is not inside
	members    []member // sorted; nil: out has them in order already
}

type member struct {
	name       string // decoded
	at         int    // in src, for errors
	start, end int    // in out, from the name to the end of the value
	first      int    // the first entry of unsorted that may be inside
}

func (p *parser) errorf(format string, args ...any) error {
	return &Error{p.pos, fmt.Sprintf(format, args...)}
}

// want returns the error for something missing here.
func (p *parser) want(what string) error {
	if p.pos >= len(p.src) {
		return p.errorf("the end instead of %s", what)
	}
	return p.errorf("something else instead of %s", what)
}

func (p *parser) space() {
	for p.pos < len(p.src) {
		switch p.src[p.pos] {
		case ' ', '\t', '\n', '\r':
			p.pos++
		default:
			return
		}
	}
}

func (p *parser) peek() byte {
	if p.pos < len(p.src) {
		return p.src[p.pos]
	}
	return 0 // no JSON starts or continues with it
}

// take moves past c if c is next.
func (p *parser) take(c byte) bool {
	if p.peek() != c || p.pos >= len(p.src) {
		return false
	}
	p.pos++
	return true
}

func (p *parser) value(depth int) error {
	switch c := p.peek(); {
	case c == '{' || c == '[':
		if depth >= MaxDepth {
			return p.errorf("nesting deeper than %d", MaxDepth)
		}
		p.pos++
		if c == '{' {
			return p.object(depth + 1)
		}
		return p.array(depth + 1)
	case c == '"':
		s, err := p.text()
		if err == nil {
			p.out = appendText(p.out, s)
		}
		return err
	case c == '-' || '0' <= c && c <= '9':
		return p.number()
	}
	for _, word := range []string{"true", "false", "null"} {
		if strings.HasPrefix(p.src[p.pos:], word) {
			p.pos += len(word)
			p.out = append(p.out, word...)
			return nil
		}
	}
	return p.want("a value")
}

func (p *parser) array(depth int) error {
	p.out = append(p.out, '[')
	p.space()
	for first := true; !p.take(']'); first = false {
		if !first {
			if !p.take(',') {
				return p.want("a comma or the end of the array")
			}
			p.out = append(p.out, ',')
			p.space()
		}
		if err := p.value(depth); err != nil {
			return err
		}
		p.space()
	}
	p.out = append(p.out, ']')
	return nil
}

func (p *parser) object(depth int) error {
	self := len(p.unsorted)
	p.unsorted = append(p.unsorted, object{start: len(p.out)})
	mine := len(p.members)
	sorted := true
	p.out = append(p.out, '{')
	p.space()
	for first := true; !p.take('}'); first = false {
		if !first {
			if !p.take(',') {
				return p.want("a comma or the end of the object")
			}
			p.out = append(p.out, ',')
			p.space()
		}
		if p.peek() != '"' {
			return p.want("a name in quotes")
		}
		m := member{at: p.pos, start: len(p.out), first: len(p.unsorted)}
		var err error
		if m.name, err = p.text(); err != nil {
			return err
		}
		p.out = appendText(p.out, m.name)
		p.space()
		if !p.take(':') {
			return p.want("a colon")
		}
		p.out = append(p.out, ':')
		p.space()
		if err := p.value(depth); err != nil {
			return err
		}
		p.space()
		m.end = len(p.out)
		if !first {
			switch order := compareUTF16(p.members[len(p.members)-1].name, m.name); {
			case order == 0:
				return duplicate(m)
			case order > 0:
				sorted = false
			}
		}
		p.members = append(p.members, m)
	}
	p.out = append(p.out, '}')
	if !sorted {
		o := &p.unsorted[self]
		o.end, o.next = len(p.out), len(p.unsorted)
		o.members = slices.Clone(p.members[mine:])
		slices.SortFunc(o.members, func(a, b member) int { return compareUTF16(a.name, b.name) })
		for i, m := range o.members[1:] {
			if prev := o.members[i]; prev.name == m.name {
				m.at = max(m.at, prev.at)
				return duplicate(m)
			}
		}
	} else if self == len(p.unsorted)-1 {
		p.unsorted = p.unsorted[:self]
	}
	p.members = p.members[:mine]
	return nil
}

func duplicate(m member) error { return &Error{m.at, "a name that the object has already"} }

// sorter is the second pass.
type sorter struct {
	*parser
	dst []byte
}

// emit appends out[start:end] with the objects inside sorted. i is the first entry of
// unsorted that may be there.
func (s *sorter) emit(start, end, i int) {
	for i < len(s.unsorted) && s.unsorted[i].start < end {
		o := &s.unsorted[i]
		if o.members == nil {
			i++
			continue
		}
		s.dst = append(append(s.dst, s.out[start:o.start]...), '{')
		for n, m := range o.members {
			if n > 0 {
				s.dst = append(s.dst, ',')
			}
			s.emit(m.start, m.end, m.first)
		}
		s.dst = append(s.dst, '}')
		start, i = o.end, o.next
	}
	s.dst = append(s.dst, s.out[start:end]...)
}

// compareUTF16 compares by UTF-16 code units. The order is that of code points, except
// for those above U+FFFF: their first unit, a surrogate, comes before U+E000.
func compareUTF16(a, b string) int {
	for a != "" && b != "" {
		ra, na := utf8.DecodeRuneInString(a)
		rb, nb := utf8.DecodeRuneInString(b)
		if ra != rb {
			if ua, ub := firstUnit(ra), firstUnit(rb); ua != ub {
				return int(ua - ub)
			}
			return int(ra - rb) // both above U+FFFF, where the order is the same
		}
		a, b = a[na:], b[nb:]
	}
	return len(a) - len(b)
}

func firstUnit(r rune) rune {
	if r > 0xFFFF {
		r, _ = utf16.EncodeRune(r)
	}
	return r
}
