package race_test

import (
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Each test that is skipped under the race detector is one that make test runs without.
func TestMakeRunsWhatIsSkipped(t *testing.T) {
	t.Parallel()
	const root = "../.."
	makefile, err := os.ReadFile(filepath.Join(root, "Makefile"))
	require.NoError(t, err)
	variable := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + ` = (.*)$`).FindSubmatch(makefile)
		require.NotNil(t, m, name)
		return string(m[1])
	}
	names := regexp.MustCompile("^" + variable("WITHOUT_RACE") + "$")
	folders := strings.Fields(variable("WITHOUT_RACE_IN"))
	test := regexp.MustCompile(`(?ms)^func (\w+)\(t \*testing\.T\) \{$(.*?)^\}$`)
	skipped := 0
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		folder, _ := filepath.Rel(root, filepath.Dir(path))
		for _, m := range test.FindAllSubmatch(text, -1) {
			if strings.Contains(string(m[2]), "\trace.Skip(t)\n") {
				skipped++
				assert.Regexp(t, names, string(m[1]))
				assert.Contains(t, folders, strings.TrimSuffix("./"+filepath.ToSlash(folder), "/."), "of %s", m[1])
			}
		}
		return err
	}))
	require.Greater(t, skipped, 5)
}
