package main

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// transcript is what a terminal would show, with what differs from run to run replaced:
// times, ages, fences, hashes, and where things are.
type transcript struct {
	work  string
	b     *strings.Builder
	names map[string]string
}

func newTranscript(work string) transcript {
	return transcript{work: work, b: &strings.Builder{}, names: map[string]string{}}
}

func (t transcript) say(text string) { fmt.Fprintf(t.b, "# %s\n\n", text) }

func (t transcript) add(args []string, stdout, stderr string, code int) {
	words := make([]string, len(args))
	for i, arg := range args {
		words[i] = shellWord(arg)
	}
	fmt.Fprintf(t.b, "$ idem %s\n%s%s", t.normal(strings.Join(words, " ")), t.normal(stdout), t.normal(stderr))
	if code != 0 {
		fmt.Fprintf(t.b, "(exit code %d)\n", code)
	}
	t.b.WriteString("\n")
}

func (t transcript) String() string { return strings.TrimSuffix(t.b.String(), "\n") }

const durations = `\d+(?:ms|s|m|h|d)(?: \d+[smh])?`

var replacements = []struct {
	what *regexp.Regexp
	by   string
}{
	{regexp.MustCompile(`\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?(?:Z|[+-]\d\d:\d\d)`), "TIME"},
	{regexp.MustCompile(`until \d\d:\d\d:\d\d`), "until TIME"},
	{regexp.MustCompile(`\b` + durations + ` ago`), "AGE ago"},
	{regexp.MustCompile(`\bexpires ` + durations + ` {2,}`), "expires AGE       "}, // in a list, in its column
	{regexp.MustCompile(`\blease ` + durations + ` {2,}`), "lease AGE         "},
	{regexp.MustCompile(`(?m)  ` + durations + ` +(lease|expires|needs|kept)`), "  AGE        $1"},
	{regexp.MustCompile(`\b(in|for|expires|lease) ` + durations), "$1 AGE"},
	{regexp.MustCompile(`TIME \(now\)`), "TIME (AGE ago)"},
	{regexp.MustCompile(`\b[\d.]+ (?:KiB|MiB)`), "SIZE"},
	{regexp.MustCompile(`\bpage \d+`), "page N"},
	{regexp.MustCompile(`"((?:age|oldest_in_flight)_seconds|bytes_before|bytes_after|engine_bytes)":[\d.]+`), `"$1":N`},
	{regexp.MustCompile(`http://127\.0\.0\.1:\d+`), "http://SERVICE"},
	{regexp.MustCompile(`127\.0\.0\.1:\d+`), "SERVICE"},
	{regexp.MustCompile(`read tcp [^ ]+`), "read tcp"},
}

var (
	hashes = regexp.MustCompile(`\b[0-9a-f]{12}\b`)
	fences = regexp.MustCompile(`\b1\d{18}\b`)
)

// normal replaces what differs. Hashes and fences get names in the order in which they
// come, so that two of them stay two.
func (t transcript) normal(s string) string {
	s = strings.ReplaceAll(s, t.work, "WORK")
	name := func(kind string, width int) func(string) string {
		return func(found string) string {
			if t.names[found] == "" {
				n := 1
				for _, taken := range t.names {
					if strings.HasPrefix(taken, kind) {
						n++
					}
				}
				t.names[found] = fmt.Sprintf("%s%0*d", kind, width-len(kind), n)
			}
			return t.names[found]
		}
	}
	s = hashes.ReplaceAllStringFunc(s, name("hash", hashDigits))
	s = fences.ReplaceAllStringFunc(s, name("fence", 7))
	for _, r := range replacements {
		s = r.what.ReplaceAllString(s, r.by)
	}
	return s
}

func TestNormal(t *testing.T) {
	t.Parallel()
	tr := newTranscript("/tmp/w")
	require.Equal(t, "claimed TIME (AGE ago), expires TIME (in AGE)", tr.normal("claimed 2026-05-01T12:00:00Z (2h 14m ago), expires 2026-05-02T12:00:00Z (in 21h)"))
	require.Equal(t, "hash00000001 fence01, hash00000002 fence02, hash00000001", tr.normal("3f2a91bc0d11 1764504000000000007, 0f2a91bc0d11 1764504000000000008, 3f2a91bc0d11"))
	require.Equal(t, "opening WORK/pay.db at http://SERVICE", tr.normal("opening /tmp/w/pay.db at http://127.0.0.1:80"))
}
