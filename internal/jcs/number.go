package jcs

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// MaxExponent bounds the exponent of a number when written with one digit before the
// point. No power of ten is computed: a number costs only its digits.
const MaxExponent = 999_999_999

// number reads a number and writes its value digit for digit. It uses no float64: that
// would round, and two amounts or account numbers could become one.
func (p *parser) number() error {
	start := p.pos
	negative := p.take('-')
	whole := p.pos
	if !p.take('0') && p.digits() == "" {
		return p.want("a digit")
	}
	digits := p.src[whole:p.pos]
	point := int64(len(digits))
	if p.take('.') {
		fraction := p.digits()
		if fraction == "" {
			return p.want("a digit after the point")
		}
		digits = digits + fraction // on the stack if short; += is not
	}
	exponent := int64(0)
	if p.take('e') || p.take('E') {
		from := p.pos
		if !p.take('+') {
			p.take('-')
		}
		if p.digits() == "" {
			return p.want("a digit of the exponent")
		}
		exponent, _ = strconv.ParseInt(p.src[from:p.pos], 10, 64) // clamped if too large
	}
	significant := strings.TrimLeft(digits, "0")
	if significant == "" {
		p.out = append(p.out, '0') // also for -0, with any exponent
		return nil
	}
	const far = math.MaxInt64 / 2 // adding a text's length to it cannot overflow
	point += min(max(exponent, -far), far) - int64(len(digits)-len(significant))
	if e := point - 1; e < -MaxExponent || e > MaxExponent {
		return &Error{start, fmt.Sprintf("a number with an exponent beyond %d", MaxExponent)}
	}
	if negative {
		p.out = append(p.out, '-')
	}
	p.out = appendDecimal(p.out, strings.TrimRight(significant, "0"), int(point))
	return nil
}

// digits moves past digits and returns them.
func (p *parser) digits() string {
	start := p.pos
	for '0' <= p.peek() && p.peek() <= '9' {
		p.pos++
	}
	return p.src[start:p.pos]
}

// appendDecimal writes 0.digits × 10^point in the layout of ECMAScript's
// Number::toString (ECMA-262, 6.1.6.1.20): with an exponent if it is below -6 or above
// 20. digits neither begins nor ends with 0.
func appendDecimal(b []byte, digits string, point int) []byte {
	const zeros = "00000000000000000000"
	switch n := len(digits); {
	case n <= point && point <= 21:
		return append(append(b, digits...), zeros[:point-n]...)
	case 0 < point && point <= 21:
		b = append(append(b, digits[:point]...), '.')
		return append(b, digits[point:]...)
	case -6 < point && point <= 0:
		b = append(append(b, "0."...), zeros[:-point]...)
		return append(b, digits...)
	}
	b = append(b, digits[0])
	if len(digits) > 1 {
		b = append(append(b, '.'), digits[1:]...)
	}
	b = append(b, 'e')
	if point > 0 {
		b = append(b, '+')
	}
	return strconv.AppendInt(b, int64(point-1), 10)
}
