package idem

import (
	"strings"
	"time"
)

// KeyTime returns the time that a UUIDv7 (RFC 9562) or a ULID has in it: when the client
// made the key, by its clock, to the millisecond. It is for Request.IssuedAt. ok is false
// for other keys. A UUID has 36 characters, a ULID 26; case does not matter.
//
// A key that merely looks like a ULID gives any time. Call KeyTime only where clients make
// such keys, with the client's own key and not what JoinKey made of it. Clocks differ:
// subtract what yours and the client's may differ by.
func KeyTime(key string) (issued time.Time, ok bool) {
	var ms int64
	switch len(key) {
	case 36:
		ms, ok = uuidTime(key)
	case 26:
		ms, ok = ulidTime(key)
	}
	if !ok {
		return time.Time{}, false
	}
	return time.UnixMilli(ms), true
}

func uuidTime(key string) (ms int64, ok bool) {
	for i := range len(key) {
		c := key[i]
		if i == 8 || i == 13 || i == 18 || i == 23 {
			if c != '-' {
				return 0, false
			}
			continue
		}
		digit := strings.IndexByte("0123456789abcdef", lower(c))
		if digit < 0 || i == 14 && digit != 7 || i == 19 && digit>>2 != 0b10 { // version, variant
			return 0, false
		}
		if i < 13 {
			ms = ms<<4 | int64(digit)
		}
	}
	return ms, true
}

func ulidTime(key string) (ms int64, ok bool) {
	for i := range len(key) {
		digit := strings.IndexByte("0123456789abcdefghjkmnpqrstvwxyz", lower(key[i])) // Crockford's base 32
		if digit < 0 || i == 0 && digit > 7 {                                         // more than 128 bits
			return 0, false
		}
		if i < 10 {
			ms = ms<<5 | int64(digit)
		}
	}
	return ms, true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}
