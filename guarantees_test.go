package idem_test

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// Every test that docs/GUARANTEES.md names exists, and every promise names some.
func TestGuaranteesNameTheirTests(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("docs/GUARANTEES.md")
	require.NoError(t, err)
	cases := sources(t, "idemtest", false)
	named := 0
	for _, section := range strings.Split(string(doc), "\n## ")[1:] {
		title, _, _ := strings.Cut(section, "\n")
		attacks := regexp.MustCompile("`(suite: [^`]+|[a-z/]+\\.Test\\w+)`").FindAllStringSubmatch(section, -1)
		require.NotEmpty(t, attacks, "%q names no test", title)
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
			require.Contains(t, sources(t, dir, true), "func "+name+"(t *testing.T)",
				"%q names a test that %s does not have", title, dir)
		}
	}
	require.Greater(t, named, 60)
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
