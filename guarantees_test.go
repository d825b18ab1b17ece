package idem_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/idemkv/idem/internal/race"
	"github.com/stretchr/testify/require"
)

// Every promise of docs/GUARANTEES.md has tests in its appendix, and every test that the
// appendix names exists.
func TestGuaranteesNameTheirTests(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	promises, appendix, ok := strings.Cut(readFile(t, "docs/GUARANTEES.md"), "\n## Appendix: the tests\n")
	require.True(t, ok, "there is no appendix")
	cases := sources(t, "idemtest", false)
	var attacked []string
	named := 0
	for _, section := range strings.Split(appendix, "\n### ")[1:] {
		title, _, _ := strings.Cut(section, "\n")
		attacked = append(attacked, title)
		attacks := regexp.MustCompile("(?m)^- `(suite: [^`]+|[a-z/]+\\.Test\\w+)`").FindAllStringSubmatch(section, -1)
		require.NotEmpty(t, attacks, "%q names no test", title)
		require.Len(t, attacks, strings.Count(section, "`")/2, "%q has a line that is not understood", title)
		for _, a := range attacks {
			named++
			if name, ok := strings.CutPrefix(a[1], "suite: "); ok {
				require.True(t, strings.Contains(cases, `"`+name+`"`) || strings.Contains(cases, `t.Run("`+name+`"`),
					"%q names a case that idemtest does not have: %s", title, name)
				continue
			}
			dir, name, _ := strings.Cut(a[1], ".")
			if dir == "idem" {
				dir = "."
			}
			require.True(t, strings.Contains(sources(t, dir, true), "func "+name+"(t *testing.T)"),
				"%q names a test that %s does not have: %s", title, dir, name)
		}
	}
	require.Greater(t, named, 60)

	var promised []string
	for _, section := range strings.Split(promises, "\n## ")[1:] {
		title, _, _ := strings.Cut(section, "\n")
		promised = append(promised, title)
	}
	require.Equal(t, promised, attacked, "the promises, and those that the appendix has tests for")
}

// sources returns the Go files of dir as one text: its tests, or all else.
func sources(t *testing.T, dir string, tests bool) string {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	require.NoError(t, err)
	var all strings.Builder
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") == tests {
			b, err := os.ReadFile(name)
			require.NoError(t, err)
			all.Write(b)
		}
	}
	return all.String()
}
