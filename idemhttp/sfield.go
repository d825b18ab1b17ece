package idemhttp

import (
	"strings"
	"unicode/utf8"
)

// The part of RFC 9651 (structured fields) that an item with parameters needs. The
// values of parameters are looked over, not kept.

// sfString reads the string that s begins with and returns what follows it. It
// copies only a string that has escapes.
func sfString(s string) (value, rest string, ok bool) {
	var unescaped []byte
	from := 1
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			if unescaped == nil {
				return s[1:i], s[i+1:], true
			}
			return string(append(unescaped, s[from:i]...)), s[i+1:], true
		case c == '\\':
			if i+1 == len(s) || s[i+1] != '"' && s[i+1] != '\\' {
				return "", "", false
			}
			if unescaped == nil { // not nil from here on, also if nothing comes before
				unescaped = make([]byte, 0, len(s))
			}
			unescaped = append(unescaped, s[from:i]...)
			i++
			from = i
		case c < ' ' || c >= 0x7f:
			return "", "", false
		}
	}
	return "", "", false
}

// sfParameters reports whether s is nothing but parameters: none are fine.
func sfParameters(s string) bool {
	for s != "" {
		if s[0] != ';' {
			return false
		}
		s = strings.TrimLeft(s[1:], " ")
		n := span(s, isParameterKey)
		if n == 0 || !(isLower(s[0]) || s[0] == '*') {
			return false
		}
		if s = s[n:]; s != "" && s[0] == '=' {
			var ok bool
			if s, ok = sfBareItem(s[1:]); !ok {
				return false
			}
		}
	}
	return true
}

// sfBareItem returns what follows the bare item that s begins with.
func sfBareItem(s string) (rest string, ok bool) {
	if s == "" {
		return "", false
	}
	switch c := s[0]; {
	case c == '"':
		_, rest, ok = sfString(s)
		return rest, ok
	case c == '-' || isDigit(c):
		return sfNumber(s, true)
	case c == '@':
		return sfNumber(s[1:], false)
	case c == ':':
		return sfBytes(s)
	case c == '?':
		if len(s) < 2 || s[1] != '0' && s[1] != '1' {
			return "", false
		}
		return s[2:], true
	case c == '%':
		return sfDisplayString(s)
	case c == '*' || isAlpha(c):
		return s[span(s, isToken):], true
	}
	return "", false
}

// sfNumber reads an integer of up to 15 digits or, where decimals are allowed, a
// number of up to 12 digits, a point and up to 3 more.
func sfNumber(s string, decimals bool) (rest string, ok bool) {
	s = strings.TrimPrefix(s, "-")
	n := span(s, isDigit)
	if n == 0 || n > 15 {
		return "", false
	}
	if s = s[n:]; s == "" || s[0] != '.' {
		return s, true
	}
	fraction := span(s[1:], isDigit)
	return s[1+fraction:], decimals && n <= 12 && fraction >= 1 && fraction <= 3
}

// sfBytes reads base64 between colons. As the RFC advises, it may lack its padding, and
// the bits left over may be set.
func sfBytes(s string) (rest string, ok bool) {
	content, rest, ok := strings.Cut(s[1:], ":")
	digits := span(content, isBase64)
	padding := len(content) - digits
	if !ok || digits%4 == 1 || content[digits:] != "=="[:min(padding, 2)] {
		return "", false
	}
	return rest, padding == 0 || (digits+padding)%4 == 0
}

// sfDisplayString reads %"…": UTF-8 in which what is not ASCII has lower-case percent
// escapes.
func sfDisplayString(s string) (rest string, ok bool) {
	if !strings.HasPrefix(s, `%"`) {
		return "", false
	}
	text := make([]byte, 0, len(s))
	for i := 2; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return s[i+1:], utf8.Valid(text)
		case c < ' ' || c >= 0x7f:
			return "", false
		case c == '%':
			if i+2 >= len(s) || !isLowerHex(s[i+1]) || !isLowerHex(s[i+2]) {
				return "", false
			}
			text = append(text, hexDigit(s[i+1])<<4|hexDigit(s[i+2]))
			i += 2
		default:
			text = append(text, c)
		}
	}
	return "", false
}

// hexDigit is the value of a digit that isLowerHex has passed.
func hexDigit(c byte) byte {
	if isDigit(c) {
		return c - '0'
	}
	return c - 'a' + 10
}

// span returns how many bytes s begins with that are in the class.
func span(s string, in func(byte) bool) int {
	for i := range len(s) {
		if !in(s[i]) {
			return i
		}
	}
	return len(s)
}

func isDigit(c byte) bool    { return '0' <= c && c <= '9' }
func isLower(c byte) bool    { return 'a' <= c && c <= 'z' }
func isAlpha(c byte) bool    { return isLower(c) || 'A' <= c && c <= 'Z' }
func isLowerHex(c byte) bool { return isDigit(c) || 'a' <= c && c <= 'f' }

func isParameterKey(c byte) bool {
	return isLower(c) || isDigit(c) || strings.IndexByte("_-.*", c) >= 0
}

func isBase64(c byte) bool { return isAlpha(c) || isDigit(c) || c == '+' || c == '/' }

// isTchar is the tchar of RFC 9110, of which field names and methods are made.
func isTchar(c byte) bool {
	return isAlpha(c) || isDigit(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isToken(c byte) bool { return isTchar(c) || c == ':' || c == '/' }
