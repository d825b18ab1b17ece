package jcs

import (
	"strconv"
	"strings"
	"unicode/utf16"
	"unicode/utf8"
)

// text reads a string, from quote to quote, and returns its value.
func (p *parser) text() (string, error) {
	p.pos++
	start := p.pos
	for ; p.pos < len(p.src); p.pos++ {
		switch c := p.src[p.pos]; {
		case c == '"':
			s := p.src[start:p.pos]
			p.pos++
			return s, nil
		case c == '\\':
			return p.escaped(start)
		case c < ' ':
			return "", p.errorf("a control character that is not escaped")
		}
	}
	return "", p.want("the end of the string")
}

// escaped continues at the first backslash of the string that begins at start.
func (p *parser) escaped(start int) (string, error) {
	s := []byte(p.src[start:p.pos])
	for p.pos < len(p.src) {
		switch c := p.src[p.pos]; {
		case c == '"':
			p.pos++
			return string(s), nil
		case c == '\\':
			r, err := p.escape()
			if err != nil {
				return "", err
			}
			s = utf8.AppendRune(s, r)
		case c < ' ':
			return "", p.errorf("a control character that is not escaped")
		default:
			s = append(s, c)
			p.pos++
		}
	}
	return "", p.want("the end of the string")
}

// escape reads one escape, or two that form a surrogate pair.
func (p *parser) escape() (rune, error) {
	if p.pos+1 < len(p.src) && p.src[p.pos+1] == 'u' {
		r, ok := p.unit()
		if !ok {
			return 0, p.errorf("\\u without four hexadecimal digits")
		}
		if !utf16.IsSurrogate(r) {
			p.pos += 6
			return r, nil
		}
		at := p.pos
		p.pos += 6
		low, ok := p.unit()
		if r = utf16.DecodeRune(r, low); !ok || r == utf8.RuneError {
			return 0, &Error{at, "a lone surrogate, which is no character"}
		}
		p.pos += 6
		return r, nil
	}
	if p.pos+1 < len(p.src) {
		if i := strings.IndexByte(`"\/bfnrt`, p.src[p.pos+1]); i >= 0 {
			p.pos += 2
			return rune("\"\\/\b\f\n\r\t"[i]), nil
		}
	}
	return 0, p.errorf("an escape that JSON does not have")
}

// unit returns the UTF-16 code unit of the \u escape that begins here.
func (p *parser) unit() (rune, bool) {
	s := p.src[p.pos:]
	if len(s) < 6 || s[0] != '\\' || s[1] != 'u' {
		return 0, false
	}
	n, err := strconv.ParseUint(s[2:6], 16, 16) // takes no sign, prefix or underscore
	return rune(n), err == nil
}

// appendText writes s as ECMAScript's JSON.stringify does, with as few escapes as
// possible.
func appendText(b []byte, s string) []byte {
	const short, hex = "btn_fr", "0123456789abcdef" // from \b, 8, to \r, 13; there is no \v
	b = append(b, '"')
	done := 0
	for i := range len(s) {
		c := s[i]
		if c >= ' ' && c != '"' && c != '\\' {
			continue
		}
		b = append(b, s[done:i]...)
		done = i + 1
		switch {
		case c == '"' || c == '\\':
			b = append(b, '\\', c)
		case '\b' <= c && c <= '\r' && c != '\v':
			b = append(b, '\\', short[c-'\b'])
		default:
			b = append(b, '\\', 'u', '0', '0', hex[c>>4], hex[c&0xF])
		}
	}
	return append(append(b, s[done:]...), '"')
}
