package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// humanNs writes nanoseconds with three figures at most: 640 ns, 1.25 µs, 35 ms.
func humanNs(ns float64) string {
	for _, u := range []struct {
		name string
		ns   float64
	}{{"s", 1e9}, {"ms", 1e6}, {"µs", 1e3}} {
		if ns >= 0.9995*u.ns {
			return threeFigures(ns/u.ns) + " " + u.name
		}
	}
	return threeFigures(ns) + " ns"
}

// humanBytes writes bytes with three figures at most: 512 B, 1.5 KB, 20 MB.
func humanBytes(b float64) string {
	for _, u := range []struct {
		name  string
		bytes float64
	}{{"GB", 1e9}, {"MB", 1e6}, {"KB", 1e3}} {
		if b >= 0.9995*u.bytes {
			return threeFigures(b/u.bytes) + " " + u.name
		}
	}
	return threeFigures(b) + " B"
}

// humanCount writes a number with commas, and three figures at most if it is small.
func humanCount(f float64) string {
	if math.Abs(f) < 1000 {
		return threeFigures(f)
	}
	s := strconv.FormatFloat(math.Abs(f), 'f', 0, 64)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	if f < 0 {
		s = "-" + s
	}
	return s
}

func threeFigures(f float64) string {
	switch a := math.Abs(f); {
	case a >= 99.95:
		return fmt.Sprintf("%.0f", f)
	case a >= 9.995:
		return trimZeros(fmt.Sprintf("%.1f", f))
	}
	return trimZeros(fmt.Sprintf("%.2f", f))
}

func trimZeros(s string) string {
	return strings.TrimSuffix(strings.TrimRight(s, "0"), ".")
}
