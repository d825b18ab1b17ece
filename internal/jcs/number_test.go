package jcs

import (
	"fmt"
	"math"
	"math/big"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"
)

// What the literal says as mantissa × 10^exponent, the mantissa without zeros at its
// end: one pair for each value, and no power is ever computed.
func exactly(t require.TestingT, literal string) (mantissa, exponent *big.Int) {
	digits, power, _ := strings.Cut(strings.ToLower(literal), "e")
	whole, fraction, _ := strings.Cut(digits, ".")
	mantissa, ok := new(big.Int).SetString(whole+fraction, 10)
	require.True(t, ok, literal)
	exponent = new(big.Int)
	if power != "" {
		_, ok = exponent.SetString(power, 10)
		require.True(t, ok, literal)
	}
	if mantissa.Sign() == 0 {
		return mantissa, new(big.Int)
	}
	exponent.Sub(exponent, big.NewInt(int64(len(fraction))))
	for ten, rest := big.NewInt(10), new(big.Int); ; {
		shorter, rest := new(big.Int).QuoRem(mantissa, ten, rest)
		if rest.Sign() != 0 {
			return mantissa, exponent
		}
		mantissa = shorter
		exponent.Add(exponent, big.NewInt(1))
	}
}

// referenceNumber is the canonical form by other means than the package's: exact
// fractions, which math/big writes.
func referenceNumber(t require.TestingT, literal string) string {
	mantissa, exponent := exactly(t, literal)
	digits := len(new(big.Int).Abs(mantissa).String())
	scientific := new(big.Int).Add(exponent, big.NewInt(int64(digits-1)))
	if mantissa.Sign() == 0 {
		return "0"
	}
	if e := scientific.Int64(); scientific.IsInt64() && -7 < e && e < 21 {
		value, ok := new(big.Rat).SetString(literal)
		require.True(t, ok, literal)
		return value.FloatString(max(0, digits-1-int(e)))
	}
	unit := new(big.Int).Exp(big.NewInt(10), big.NewInt(int64(digits-1)), nil)
	return fmt.Sprintf("%se%+d", new(big.Rat).SetFrac(mantissa, unit).FloatString(digits-1), scientific)
}

// literals are JSON numbers: of any length, near those that a float64 holds, and near
// to each other.
func literals() *rapid.Generator[string] {
	digits := rapid.StringMatching(`[0-9]{0,25}`)
	exponents := rapid.OneOf(rapid.Just(""), rapid.StringMatching(`[eE][+-]?0{0,3}[0-9]{1,2}`), rapid.StringMatching(`[eE][+-]?[0-9]{1,3}`))
	written := rapid.Custom(func(t *rapid.T) string {
		s := rapid.SampledFrom([]string{"", "-"}).Draw(t, "sign")
		s += rapid.OneOf(rapid.Just("0"), rapid.StringMatching(`[1-9][0-9]{0,25}`), rapid.StringMatching(`[1-9]0{0,25}`)).Draw(t, "whole")
		if fraction := rapid.OneOf(rapid.Just(""), digits, rapid.StringMatching(`0{0,8}[0-9]{1,2}0{0,3}`)).Draw(t, "fraction"); fraction != "" {
			s += "." + fraction
		}
		return s + exponents.Draw(t, "exponent")
	})
	near := rapid.Custom(func(t *rapid.T) string {
		f := math.Float64frombits(rapid.Uint64().Draw(t, "bits"))
		if rapid.Bool().Draw(t, "ordinary") {
			f = math.Ldexp(rapid.Float64Range(-1, 1).Draw(t, "float"), rapid.IntRange(-20, 70).Draw(t, "scale"))
		}
		if math.IsNaN(f) || math.IsInf(f, 0) {
			f = 0
		}
		return strconv.FormatFloat(f, 'e', rapid.IntRange(-1, 30).Draw(t, "digits"), 64)
	})
	return rapid.OneOf(written, near)
}

// another writes the value of a literal in another way, or changes it a little.
func another(t *rapid.T, literal string) string {
	digits, power, _ := strings.Cut(strings.ToLower(literal), "e")
	exponent, _ := strconv.Atoi(power)
	sign := ""
	if digits[0] == '-' {
		sign, digits = "-", digits[1:]
	}
	whole, fraction, _ := strings.Cut(digits, ".")
	if rapid.Bool().Draw(t, "change a digit") {
		all := []byte(whole + fraction)
		i := len(all) - 1
		if rapid.Bool().Draw(t, "any digit") {
			i = rapid.IntRange(0, i).Draw(t, "which")
		}
		all[i] = '0' + byte(rapid.IntRange(0, 9).Draw(t, "digit"))
		whole, fraction = string(all[:len(whole)]), string(all[len(whole):])
	}
	fraction += strings.Repeat("0", rapid.IntRange(0, 3).Draw(t, "zeros"))
	for range rapid.IntRange(0, 30).Draw(t, "move the point") {
		if fraction == "" {
			fraction = "0"
		}
		whole, fraction = whole+fraction[:1], fraction[1:]
		exponent--
	}
	if whole = strings.TrimLeft(whole, "0"); whole == "" {
		whole = "0"
	}
	if fraction != "" {
		fraction = "." + fraction
	}
	return sign + whole + fraction + "e" + strconv.Itoa(exponent)
}

// Two numbers have one form if, and only if, they have one value.
func TestNumbersCompareByExactValue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		a := literals().Draw(t, "a")
		b := rapid.OneOf(literals(), rapid.Custom(func(t *rapid.T) string { return another(t, a) })).Draw(t, "b")
		va, ok := new(big.Rat).SetString(a)
		require.True(t, ok, a)
		vb, ok := new(big.Rat).SetString(b)
		require.True(t, ok, b)
		ca, err := Canonical([]byte(a))
		require.NoError(t, err, a)
		cb, err := Canonical([]byte(b))
		require.NoError(t, err, b)
		if same := va.Cmp(vb) == 0; same != (string(ca) == string(cb)) {
			t.Fatalf("%s is written %s and %s is written %s; the same value: %v", a, ca, b, cb, same)
		}
	})
}

// The form has the value of the literal, is its own form, and is what RFC 8785 writes
// wherever a float64's shortest digits are the value.
func TestNumbersKeepTheirValue(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		literal := literals().Draw(t, "literal")
		out, err := Canonical([]byte(literal))
		require.NoError(t, err, literal)
		require.Equal(t, referenceNumber(t, literal), string(out), literal)
		again, err := Canonical(out)
		require.NoError(t, err)
		require.Equal(t, string(out), string(again), literal)
		if f, err := strconv.ParseFloat(literal, 64); err == nil {
			short := ecmaNumber(f)
			m, e := exactly(t, literal)
			if sm, se := exactly(t, short); m.Cmp(sm) == 0 && e.Cmp(se) == 0 {
				require.Equal(t, short, string(out), literal)
			}
		}
	})
}

// ecmaNumber writes f as ECMAScript does (ECMA-262, 6.1.6.1.20), by the standard
// library's shortest digits.
func ecmaNumber(f float64) string {
	if f == 0 {
		return "0" // also for -0
	}
	if abs := math.Abs(f); abs >= 1e-6 && abs < 1e21 {
		return strconv.FormatFloat(f, 'f', -1, 64)
	}
	digits, exponent, _ := strings.Cut(strconv.FormatFloat(f, 'e', -1, 64), "e")
	return digits + "e" + exponent[:1] + strings.TrimLeft(exponent[1:], "0")
}

// What a float64 would round stays as it is: amounts and account numbers that differ
// in their last digit never look the same.
func TestNumbersAreNotRounded(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"1.000000000000000001":     "1.000000000000000001",
		"1.000000000000000002":     "1.000000000000000002",
		"0.1000000000000000000000": "0.1",
		"0.10000000000000001":      "0.10000000000000001",
		"333333333.33333329":       "333333333.33333329",
		"9007199254740992.0":       "9007199254740992",
		"9007199254740993.0":       "9007199254740993",
		"9007199254740993":         "9007199254740993",
		"90071992547409930e-1":     "9007199254740993",
		"1234567890123456789":      "1234567890123456789",
		"-1234567890123456789":     "-1234567890123456789",
		"18446744073709551615":     "18446744073709551615",
		"18446744073709551616":     "18446744073709551616",
		// 2^56, which a float64 holds, and the shortest digits that read back as it.
		"72057594037927936":         "72057594037927936",
		"72057594037927940":         "72057594037927940",
		"100000000000000000001":     "100000000000000000001",
		"1000000000000000000000":    "1e+21",
		"1000000000000000000001":    "1.000000000000000000001e+21",
		"12345678901234567890.125":  "12345678901234567890.125",
		"0.0000010000000000000001":  "0.0000010000000000000001",
		"0.00000010000000000000001": "1.0000000000000001e-7",
		"4.9e-324":                  "4.9e-324",
		"5e-324":                    "5e-324",
		"1e-400":                    "1e-400",
		"10e-401":                   "1e-400",
		"1e400":                     "1e+400",
		"-0.1e401":                  "-1e+400",
		"1.10e2":                    "110",
		"110.0":                     "110",
		"0e999999999999999999999":   "0",
		"-0.000e-9999999999999999":  "0",
	} {
		assert.Equal(t, want, canonical(t, in), in)
		assert.Equal(t, want, canonical(t, want), "%s, again", in)
	}
}

// An exponent costs nothing, whatever its size: no power is computed. It is bounded, and
// what counts is the exponent of the value, not how it is written.
func TestHugeExponents(t *testing.T) {
	t.Parallel()
	zeros := strings.Repeat("0", 100_000)
	for in, want := range map[string]string{
		"1e999999999":                          "1e+999999999",
		"-1e-999999999":                        "-1e-999999999",
		"10e999999998":                         "1e+999999999",
		"0.1e1000000000":                       "1e+999999999",
		"0.01e-999999997":                      "1e-999999999",
		"1e" + zeros + "5":                     "100000",
		"1E+" + zeros + "999999999":            "1e+999999999",
		"1" + zeros + "e-100000":               "1",
		"0." + zeros + "1e100001":              "1",
		"1" + zeros:                            "1e+100000",
		"0." + zeros + "1":                     "1e-100001",
		"1" + zeros + "1":                      "1." + zeros + "1e+100001",
		"1." + zeros + "1":                     "1." + zeros + "1",
		"0." + zeros + "12e1000100000":         "1.2e+999999999",
		"0e" + strings.Repeat("9", 100_000):    "0",
		"0.0e-" + strings.Repeat("9", 100_000): "0",
	} {
		assert.Equal(t, want, canonical(t, in), in[:min(len(in), 40)])
	}
	for _, in := range []string{
		"1e1000000000", "-1e-1000000000", "10e999999999", "0.1e-999999999", "1e4294967296", "1e-18446744073709551616",
		"1e" + strings.Repeat("9", 100_000), "0." + zeros + "1e-" + strings.Repeat("9", 100_000),
	} {
		_, err := Canonical([]byte("[" + in + "]"))
		var e *Error
		require.ErrorAs(t, err, &e, in[:min(len(in), 40)])
		assert.Equal(t, 1, e.Offset)
		assert.Equal(t, "a number with an exponent beyond 999999999", e.Problem)
	}
}
