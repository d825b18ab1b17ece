package idem_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/idemkv/idem/internal/race"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// undocumented returns what a file exports without a comment where the linters do not
// look: fields of structs, and constants and variables in a list. A comment also covers
// the lines right below its own, as in "// A, B and C: …". An error that is exported
// has to say when it "is returned".
func undocumented(fset *token.FileSet, file *ast.File) (missing []string) {
	for _, d := range file.Decls {
		d, ok := d.(*ast.GenDecl)
		if !ok {
			continue
		}
		covered := -1 // the last line that a comment speaks for
		for _, s := range d.Specs {
			switch s := s.(type) {
			case *ast.TypeSpec:
				if t, ok := s.Type.(*ast.StructType); ok && s.Name.IsExported() {
					missing = append(missing, undocumentedFields(fset, s.Name.Name, t)...)
				}
			case *ast.ValueSpec:
				doc := s.Doc
				if doc == nil && !d.Lparen.IsValid() {
					doc = d.Doc
				}
				line := fset.Position(s.Pos()).Line
				has := doc != nil || s.Comment != nil || line == covered+1
				if has {
					covered = line
				}
				for _, n := range s.Names {
					switch {
					case !n.IsExported():
					case !has:
						missing = append(missing, n.Name)
					case strings.HasPrefix(n.Name, "Err") && !strings.Contains(strings.Join(strings.Fields(doc.Text()), " "), "is returned"):
						missing = append(missing, n.Name+` does not say when it "is returned"`)
					}
				}
			}
		}
	}
	return missing
}

func undocumentedFields(fset *token.FileSet, owner string, t *ast.StructType) (missing []string) {
	covered := -1
	for _, f := range t.Fields.List {
		has := f.Doc != nil || f.Comment != nil || fset.Position(f.Pos()).Line == covered+1
		if has {
			covered = fset.Position(f.End()).Line
		}
		for _, n := range f.Names {
			if n.IsExported() && !has {
				missing = append(missing, owner+"."+n.Name)
			}
		}
	}
	return missing
}

// misnamed returns the functions and types of a file whose comment does not begin with
// their name. After a renaming it often still begins with the old one, and linters look
// only at what is exported.
func misnamed(file *ast.File) (wrong []string) {
	check := func(name *ast.Ident, doc *ast.CommentGroup) {
		if first, _, _ := strings.Cut(doc.Text(), " "); doc != nil && strings.TrimRight(first, ",.:") != name.Name {
			wrong = append(wrong, name.Name+" is called "+first+" in its comment")
		}
	}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			check(d.Name, d.Doc)
		case *ast.GenDecl:
			for _, s := range d.Specs {
				if s, ok := s.(*ast.TypeSpec); ok && !d.Lparen.IsValid() {
					check(s.Name, d.Doc)
				}
			}
		}
	}
	return wrong
}

func TestFieldsAndListsAreDocumented(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	seen := map[string]bool{}
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			_, err := os.Stat(filepath.Join(path, "go.mod"))
			nested := path != "." && err == nil
			if nested || path != "." && strings.HasPrefix(d.Name(), ".") ||
				slices.Contains([]string{"bench", "cmd", "examples", "testdata"}, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		seen[filepath.Dir(path)] = true
		fset := token.NewFileSet()
		file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
		if err != nil {
			return err
		}
		found := misnamed(file)
		if !strings.HasPrefix(path, "internal"+string(filepath.Separator)) {
			found = append(found, undocumented(fset, file)...)
		}
		for _, what := range found {
			t.Errorf("%s: %s", path, what)
		}
		return nil
	}))
	for _, dir := range []string{".", "engine", "bolt", "consume", "internal/txbackend"} {
		dir = filepath.FromSlash(dir)
		require.True(t, seen[dir], "the walk missed %s", dir)
	}
}

func TestUndocumentedFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	const source = `package p
		type Shown[T any] struct {
			Field int
			// Said and Listed: two.
			Said int
			Listed int

			Alone int
			own int
		}
		type hidden struct { Field int }
		// Said before a list speaks for the list, not for its members.
		const (
			One = 1
			Two = 2 // two
		)
		// Single is.
		var Single = 1
		var (
			// ErrA is returned when
			// it should.
			ErrA error
			// ErrB is an error.
			ErrB error

			ErrC error
		)
		// ErrAlone is returned when it should.
		var ErrAlone error
		// Now: a comment that begins with a name.
		func Now() {}
		// before says what this was called.
		func after() {}
		// before was a method,
		// of two lines.
		func (h hidden) method() {}
		func silent() {}
		// older is a type.
		type newer int
	`
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "p.go", source, parser.ParseComments)
	require.NoError(t, err)
	assert.Equal(t, []string{
		"Shown.Field", "Shown.Alone", "One", `ErrB does not say when it "is returned"`, "ErrC",
	}, undocumented(fset, file))
	assert.Equal(t, []string{
		"after is called before in its comment", "method is called before in its comment", "newer is called older in its comment",
	}, misnamed(file))
}
