package idem_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/idemkv/idem/internal/race"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// docs/ERRORS.md says of every error of the package what causes it, what to check and what
// cures it, and names no other.
func TestErrorsPageHasEveryError(t *testing.T) {
	t.Parallel()
	file, err := parser.ParseFile(token.NewFileSet(), "errors.go", nil, 0)
	require.NoError(t, err)
	var declared []string
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			for _, name := range v.Names {
				declared = append(declared, name.Name)
			}
		}
		return true
	})
	require.Contains(t, declared, "ErrBroken")
	var told []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(Err\\w+)` \\|(.*)\\|$").FindAllStringSubmatch(readFile(t, "docs/ERRORS.md"), -1) {
		told = append(told, row[1])
		cells := strings.Split(row[2], " | ")
		require.Len(t, cells, 3, row[1])
		for _, cell := range cells {
			assert.Greater(t, len(strings.TrimSpace(cell)), 10, "%s has a cell that says nothing", row[1])
		}
	}
	require.ElementsMatch(t, declared, told)
}

// The links in the problems of the admin API lead to headings of docs/OPERATIONS.md, and
// the page's table has each problem with its status.
func TestAdminProblemsLeadToTheirHeadings(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	source := readFile(t, "internal/operator/problem.go")
	require.Contains(t, source, `docs/OPERATIONS.md#"`)
	page := readFile(t, "docs/OPERATIONS.md")
	kinds := regexp.MustCompile(`(?m)// (Type\w+) \((\d+)\):[^=]*= docs \+ "(admin-[a-z-]+)"$`).FindAllStringSubmatch(source, -1)
	require.Len(t, kinds, strings.Count(source, `docs + "admin-`), "a type has no comment with its status")
	require.NotEmpty(t, kinds)
	for _, k := range kinds {
		assert.Contains(t, anchors(page), k[3])
		assert.True(t, strings.Contains(page, "\n| ["+k[3]+"](#"+k[3]+") | "+k[2]+" | "), "the table lacks %s, or has another status", k[3])
	}
	require.Len(t, kinds, strings.Count(page, "\n### admin-"), "the page has a heading for another problem")
}

// The README stays short: what a visitor has to read before the links is under 700 words.
func TestReadmeIsShort(t *testing.T) {
	t.Parallel()
	before, _, found := strings.Cut(readFile(t, "README.md"), "\n## Links\n")
	require.True(t, found)
	require.Less(t, len(strings.Fields(before)), 700)
}

// docs/OPERATIONS.md says how many lines a service needs for metrics, health and admin
// pages, of the function it shows. The four that make the store are not counted.
func TestLinesOfAnOperatedService(t *testing.T) {
	t.Parallel()
	page := readFile(t, "docs/OPERATIONS.md")
	said := regexp.MustCompile(`A chi service gets all three with (\d+) lines, besides the four`).FindStringSubmatch(page)
	require.NotNil(t, said)
	want, err := strconv.Atoi(said[1])
	require.NoError(t, err)
	_, body, found := strings.Cut(goBlocks(page)[0], "\nfunc operated(")
	require.True(t, found)
	body, _, found = strings.Cut(body, "\treturn store, nil\n")
	require.True(t, found)
	lines := strings.Count(body, "\n") - 1 - 4
	require.Equal(t, want, lines)
	require.Less(t, lines, 20)
}

// The commands of the tool that the pages name exist.
func TestShownCommandsExist(t *testing.T) {
	t.Parallel()
	tool := readFile(t, "docs/TOOL.md")
	command := regexp.MustCompile("`idem ([a-z]+)( (?:complete|fail|hold|release))?")
	named := 0
	for _, file := range append(pages(t), "README.md", "CHANGELOG.md") {
		if file == "docs/FORMAT.md" {
			continue // texts that begin files begin like commands
		}
		for _, m := range command.FindAllStringSubmatch(readFile(t, file), -1) {
			named++
			assert.True(t, strings.Contains(tool, "\n## idem "+m[1]+m[2]+"\n"), "%s names the command idem %s%s", file, m[1], m[2])
		}
	}
	require.Greater(t, named, 20)
}
