package idem_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// undocumented returns the exported names of a package that go doc would show
// without a word: functions, methods, types, fields, interface methods, constants
// and variables. In a list, a comment also covers the lines right below its own,
// as in "// A, B and C: …".
func undocumented(fset *token.FileSet, files []*ast.File) (missing []string) {
	say := func(pos token.Pos, format string, args ...any) {
		missing = append(missing, fmt.Sprintf("%s: %s", fset.Position(pos), fmt.Sprintf(format, args...)))
	}
	packageDoc := false
	for _, f := range files {
		packageDoc = packageDoc || f.Doc.Text() != ""
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && receiverIsExported(d) && !startsWith(d.Doc, d.Name.Name) {
					say(d.Pos(), "func %s", d.Name.Name)
				}
			case *ast.GenDecl:
				undocumentedSpecs(fset, d, say)
			}
		}
	}
	if !packageDoc {
		say(files[0].Package, "package %s", files[0].Name.Name)
	}
	return missing
}

func undocumentedSpecs(fset *token.FileSet, d *ast.GenDecl, say func(token.Pos, string, ...any)) {
	covered := -1 // the last line that a comment speaks for
	for _, s := range d.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			if !s.Name.IsExported() {
				continue
			}
			doc := s.Doc
			if doc == nil && !d.Lparen.IsValid() {
				doc = d.Doc
			}
			if !startsWith(doc, s.Name.Name) {
				say(s.Pos(), "type %s", s.Name.Name)
			}
			switch t := s.Type.(type) {
			case *ast.StructType:
				undocumentedFields(fset, s.Name.Name, t.Fields, say)
			case *ast.InterfaceType:
				undocumentedFields(fset, s.Name.Name, t.Methods, say)
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
				if n.IsExported() && !has {
					say(n.Pos(), "%s", n.Name)
				}
				if n.IsExported() && strings.HasPrefix(n.Name, "Err") && !strings.Contains(flat(doc), "is returned") {
					say(n.Pos(), "%s does not say when it \"is returned\"", n.Name)
				}
			}
		}
	}
}

func undocumentedFields(fset *token.FileSet, owner string, fields *ast.FieldList, say func(token.Pos, string, ...any)) {
	covered := -1
	for _, f := range fields.List {
		line := fset.Position(f.Pos()).Line
		has := f.Doc != nil || f.Comment != nil || line == covered+1
		if has {
			covered = fset.Position(f.End()).Line
		}
		for _, n := range f.Names {
			if n.IsExported() && !has {
				say(n.Pos(), "%s.%s", owner, n.Name)
			}
		}
	}
}

func receiverIsExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	t := d.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

// flat is a comment as one line.
func flat(doc *ast.CommentGroup) string { return strings.Join(strings.Fields(doc.Text()), " ") }

// startsWith reports whether a comment begins with the name it is for.
func startsWith(doc *ast.CommentGroup, name string) bool {
	text := flat(doc)
	for _, article := range []string{"A ", "An ", "The "} {
		text = strings.TrimPrefix(text, article)
	}
	rest, ok := strings.CutPrefix(text, name)
	return ok && (rest == "" || !strings.ContainsAny(rest[:1], "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_"))
}

func TestEverythingExportedIsDocumented(t *testing.T) {
	t.Parallel()
	fset := token.NewFileSet()
	packages := map[string][]*ast.File{}
	packageFiles(t, func(dir, file string) {
		if under(dir, "internal", "cmd", "examples", "bench") || strings.Contains(dir, "/internal") {
			return
		}
		f, err := parser.ParseFile(fset, file, nil, parser.ParseComments)
		require.NoError(t, err)
		if f.Name.Name != "main" {
			packages[dir] = append(packages[dir], f)
		}
	})
	require.Contains(t, packages, ".")
	require.Contains(t, packages, "bolt")
	require.Contains(t, packages, "consume")
	for _, files := range packages {
		for _, m := range undocumented(fset, files) {
			t.Error(m)
		}
	}
}

func TestUndocumentedFindsWhatIsMissing(t *testing.T) {
	t.Parallel()
	const source = `package p
		func Bare() {}
		// Other words.
		func Misnamed() {}
		// Fine does.
		func Fine() {}
		func (hidden) Bare() {}
		func (*Shown[T]) Bare() {}
		type Shown[T any] struct {
			Field int
			// Said and Listed: two.
			Said int
			Listed int

			Alone int
			own int
		}
		// Iface is.
		type Iface interface {
			Method()
			// Known is.
			Known()
		}
		// Said before a group speaks for the group, not for its members.
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
	`
	fset := token.NewFileSet()
	f, err := parser.ParseFile(fset, "p.go", source, parser.ParseComments)
	require.NoError(t, err)
	var got []string
	for _, m := range undocumented(fset, []*ast.File{f}) {
		_, what, _ := strings.Cut(m, ": ")
		got = append(got, what)
	}
	want := []string{
		"func Bare", "func Misnamed", "func Bare", "type Shown", "Shown.Field", "Shown.Alone", "Iface.Method", "One",
		`ErrB does not say when it "is returned"`, `ErrC does not say when it "is returned"`, "package p",
	}
	slices.Sort(got)
	slices.Sort(want)
	assert.Equal(t, want, got)
}
