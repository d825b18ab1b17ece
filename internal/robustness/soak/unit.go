package main

import (
	"fmt"
	"math"
	"strconv"
)

// unit is how values of a kind are written.
type unit int

const (
	countUnit unit = iota
	byteUnit
	secondUnit
)

// format writes v for people, in the largest unit that leaves a number over one.
func (u unit) format(v float64) string {
	if math.IsNaN(v) {
		return "-"
	}
	steps := []step10{{1e9, "G"}, {1e6, "M"}, {1e3, "k"}}
	suffix := ""
	switch u {
	case byteUnit:
		steps, suffix = []step10{{1 << 30, " GiB"}, {1 << 20, " MiB"}, {1 << 10, " KiB"}}, " B"
	case secondUnit:
		steps, suffix = []step10{{1, " s"}, {1e-3, " ms"}, {1e-6, " µs"}, {1e-9, " ns"}}, " s"
	}
	for _, s := range steps {
		if math.Abs(v) >= s.size*0.9999 {
			return short(v/s.size) + s.name
		}
	}
	return short(v) + suffix
}

type step10 struct {
	size float64
	name string
}

// short writes v with three digits.
func short(v float64) string {
	switch a := math.Abs(v); {
	case a >= 100 || v == math.Trunc(v):
		return fmt.Sprintf("%.0f", v)
	default:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
}
