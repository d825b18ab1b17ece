package idem_test

import (
	"go/doc/comment"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/idemkv/idem/internal/race"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Code that people copy must compile: what README.md, the pages of docs and the
// package documentation show stands, but for indentation, in an example, which the
// tests build and run.
func TestShownCodeIsCompiled(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	shown := map[string][]string{
		"README.md":       goBlocks(readFile(t, "README.md")),
		"ops/README.md":   goBlocks(readFile(t, "ops/README.md")),
		"doc.go":          docBlocks(t, "doc.go"),
		"consume/doc.go":  docBlocks(t, "consume/doc.go"),
		"idemhttp/doc.go": docBlocks(t, "idemhttp/doc.go"),
	}
	for _, page := range pages(t) {
		if page == "docs/TUTORIAL.md" {
			continue // TestTutorial builds and runs it
		}
		if blocks := goBlocks(readFile(t, page)); len(blocks) > 0 {
			shown[page] = blocks
		}
	}
	var examples []string
	for _, path := range exampleFiles(t) {
		examples = append(examples, unindent(readFile(t, path)))
	}
	for file, blocks := range shown {
		assert.NotEmpty(t, blocks, "%s shows no code", file)
		for _, b := range blocks {
			assert.True(t, anyShows(examples, unindent(b)), "%s shows code that no example file has:\n%s", file, b)
		}
	}
}

// The search for shown code must not find what is not there.
func TestShownCodeSearch(t *testing.T) {
	t.Parallel()
	example := unindent("func f() {\n\t\ta := 1\n\n\t\tg(a)\n}\n")
	blocks := goBlocks("text\n```go\na := 1\n\ng(a)\n```\n```sh\nmake\n```\n```go\n\tb := 1\n```\n")
	require.Equal(t, []string{"a := 1\n\ng(a)\n", "\tb := 1\n"}, blocks)
	assert.True(t, anyShows([]string{"", example}, unindent(blocks[0])))
	for _, absent := range []string{blocks[1], "a := 1\ng(a)\n", ":= 1\n", "g(a)\na := 1\n"} {
		assert.False(t, anyShows([]string{example}, unindent(absent)), absent)
	}
}

// A link of README.md, CONTRIBUTING.md, CHANGELOG.md, SECURITY.md, ops/README.md or a page of
// docs leads to a file of the tree, and to a heading of it if it names one. A make target they
// name is one, and so is a test.
func TestShownLinksAndTargets(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	makefile, tests := readFile(t, "Makefile"), testNames(t)
	link := regexp.MustCompile(`\]\(([^)#:]*)(?:#([^)]*))?\)`)
	target := regexp.MustCompile(`(?m)(?:^|` + "`" + `)make ([a-z][a-z-]*)`)
	test := regexp.MustCompile(`\bTest[A-Z]\w*`)
	headings := 0
	for _, file := range append(pages(t), "README.md", "CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "ops/README.md") {
		text := readFile(t, file)
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			to := file
			if m[1] != "" {
				to = filepath.Join(filepath.Dir(file), m[1])
			}
			_, err := os.Stat(to)
			if assert.NoError(t, err, "link in %s", file) && m[2] != "" {
				headings++
				assert.Contains(t, anchors(readFile(t, to)), m[2], "link of %s into %s", file, to)
			}
		}
		for _, m := range target.FindAllStringSubmatch(text, -1) {
			assert.Contains(t, makefile, "\n"+m[1]+":", "make target in %s", file)
		}
		for _, name := range test.FindAllString(text, -1) {
			assert.True(t, tests[name] || name == "TestX", "%s names %s, which is no test", file, name)
		}
	}
	require.NotZero(t, headings)
}

// testNames returns the names of all tests of the tree, nested modules included.
func testNames(t *testing.T) map[string]bool {
	t.Helper()
	found := map[string]bool{}
	declared := regexp.MustCompile(`(?m)^func (Test\w+)\(t \*testing\.T\)`)
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		for _, m := range declared.FindAllStringSubmatch(readFile(t, path), -1) {
			found[m[1]] = true
		}
		return nil
	}))
	require.NotEmpty(t, found)
	return found
}

// anchors returns the names by which a page's headings are linked to.
func anchors(markdown string) []string {
	markdown = regexp.MustCompile("(?ms)^```.*?^```$").ReplaceAllString(markdown, "")
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(markdown, -1) {
		name := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(m[1]), "")
		names = append(names, strings.ReplaceAll(name, " ", "-"))
	}
	return names
}

// pages returns the pages of docs.
func pages(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob("docs/*.md")
	require.NoError(t, err)
	require.NotEmpty(t, paths)
	for i := range paths {
		paths[i] = filepath.ToSlash(paths[i])
	}
	return paths
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	return strings.ReplaceAll(string(b), "\r\n", "\n")
}

// goBlocks returns the fenced code blocks of a Markdown text that are marked go.
func goBlocks(markdown string) []string {
	var blocks []string
	for _, m := range regexp.MustCompile("(?ms)^```go\n(.*?)^```$").FindAllStringSubmatch(markdown, -1) {
		blocks = append(blocks, m[1])
	}
	return blocks
}

// docBlocks returns the code blocks of a file's package documentation.
func docBlocks(t *testing.T, path string) []string {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments|parser.PackageClauseOnly)
	require.NoError(t, err)
	require.NotNil(t, file.Doc)
	var blocks []string
	for _, block := range new(comment.Parser).Parse(file.Doc.Text()).Content {
		if code, ok := block.(*comment.Code); ok {
			blocks = append(blocks, code.Text)
		}
	}
	return blocks
}

// exampleFiles returns the example files of the tree, and all that is under examples.
func exampleFiles(t *testing.T) []string {
	t.Helper()
	var paths []string
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() && d.Name() != "." && strings.HasPrefix(d.Name(), ".") {
			return fs.SkipDir
		}
		name, inExamples := d.Name(), strings.HasPrefix(filepath.ToSlash(path), "examples/")
		if strings.HasPrefix(name, "example_") && strings.HasSuffix(name, "_test.go") || inExamples && strings.HasSuffix(name, ".go") {
			paths = append(paths, path)
		}
		return err
	}))
	require.NotEmpty(t, paths)
	return paths
}

// unindent strips the indentation of every line, and begins and ends with a line's end.
func unindent(code string) string {
	lines := strings.Split(strings.Trim(code, "\n"), "\n")
	for i, l := range lines {
		lines[i] = strings.TrimLeft(l, " \t")
	}
	return "\n" + strings.Join(lines, "\n") + "\n"
}

func anyShows(examples []string, block string) bool {
	for _, e := range examples {
		if strings.Contains(e, block) {
			return true
		}
	}
	return false
}
