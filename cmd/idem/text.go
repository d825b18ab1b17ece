package main

import (
	"fmt"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/idemkv/idem/internal/operator"
)

// printable returns s on one line, with everything escaped that a terminal would obey.
func printable(s string) string { return operator.Line(s, 1000) }

func unprintable(r rune) bool { return !unicode.IsPrint(r) }

// keyText is a key as it is printed: as it stands if that cannot mislead, otherwise as a
// Go string. Both forms are understood where a key is asked for.
func keyText(key string) string {
	if key == "" || strings.ContainsFunc(key, func(r rune) bool { return unprintable(r) || r == '"' || r == ' ' }) || !utf8.ValidString(key) {
		return strconv.Quote(key)
	}
	return key
}

// shellWord quotes s for a POSIX shell, if it must be.
func shellWord(s string) string {
	safe := func(r rune) bool {
		return r < utf8.RuneSelf && (unicode.IsLetter(r) || unicode.IsDigit(r) || strings.ContainsRune("-_./:,=+@%", r))
	}
	if s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !safe(r) }) {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// lasting is d in at most two units: "3m 20s", "2h 14m", "5d 3h".
func lasting(d time.Duration) string {
	if d < 0 {
		d = -d
	}
	two := func(a time.Duration, unit string, b time.Duration, small string) string {
		if b == 0 {
			return fmt.Sprintf("%d%s", a, unit)
		}
		return fmt.Sprintf("%d%s %d%s", a, unit, b, small)
	}
	const day = 24 * time.Hour
	switch {
	case d < time.Second:
		return fmt.Sprintf("%dms", d.Milliseconds())
	case d < time.Minute:
		return fmt.Sprintf("%ds", d/time.Second)
	case d < time.Hour:
		return two(d/time.Minute, "m", d%time.Minute/time.Second, "s")
	case d < day:
		return two(d/time.Hour, "h", d%time.Hour/time.Minute, "m")
	case d < 1000*day:
		return two(d/day, "d", d%day/time.Hour, "h")
	}
	return fmt.Sprintf("%d years", d/(365*day))
}

// relative is t as seen from now: "2h 14m ago", "in 12s".
func relative(t, now time.Time) string {
	d := t.Sub(now)
	switch {
	case d > -time.Second && d < time.Second:
		return "now"
	case d < 0:
		return lasting(d) + " ago"
	}
	return "in " + lasting(d)
}

// moment is t both ways: "2026-05-01T12:00:00Z (2h 14m ago)".
func moment(t, now time.Time) string {
	return fmt.Sprintf("%s (%s)", t.Local().Format(time.RFC3339), relative(t, now))
}

// size is n bytes for people.
func size(n int64) string {
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, unit := float64(n), ""
	for _, unit = range []string{"KiB", "MiB", "GiB", "TiB"} {
		if f /= 1 << 10; f < 1<<10 {
			break
		}
	}
	return fmt.Sprintf("%.1f %s", f, unit)
}

// count is n with its noun: "1 record", "4,213 records".
func count[N int | int64 | uint64](n N, noun string) string {
	if n != 1 {
		noun += "s"
	}
	return grouped(n) + " " + noun
}

// grouped is n with its thousands apart.
func grouped[N int | int64 | uint64](n N) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}
