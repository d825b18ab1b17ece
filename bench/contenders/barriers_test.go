package contenders

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a look-up answers is made and handed on without write barriers: one that fills the
// barrier's buffer while a collection is under way takes ten times as long as others,
// which is every 37th look-up if the record is written through a pointer. The compiler
// says where it puts them.
func TestNoBarriersInLookups(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("compiles a package")
	}
	command, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command")
	}
	said, err := exec.CommandContext(t.Context(), command, "build", "-gcflags=-d=wb", "github.com/idemkv/idem").CombinedOutput()
	require.NoError(t, err, string(said))
	barriers := map[string]bool{} // the lines that have one, as "store.go:99"
	for _, m := range regexp.MustCompile(`(\w+\.go:\d+):\d+: write barrier`).FindAllSubmatch(said, -1) {
		barriers[string(m[1])] = true
	}
	require.NotEmpty(t, barriers, "the compiler says it in another way now: %.500s", said)

	for file, functions := range map[string][]string{"store.go": {"Get", "disclosed"}, "record.go": {"record"}} {
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, filepath.Join("..", "..", file), nil, 0)
		require.NoError(t, err)
		for _, name := range functions {
			lines := 0
			for _, d := range parsed.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || f.Name.Name != name {
					continue
				}
				require.NotNil(t, f.Type.Results, "%s returns its answer and does not write it through a pointer", name)
				for n := files.Position(f.Pos()).Line; n <= files.Position(f.End()).Line; n++ {
					lines++
					require.NotContains(t, barriers, file+":"+strconv.Itoa(n), "in %s", name)
				}
			}
			require.Greater(t, lines, 5, "%s is not in %s any more", name, file)
		}
	}
}
