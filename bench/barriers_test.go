package bench

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a look-up answers is written without write barriers: one that fills the
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
	barriers := map[int]bool{} // the lines of store.go that have one
	for _, m := range regexp.MustCompile(`store\.go:(\d+):\d+: write barrier`).FindAllSubmatch(said, -1) {
		n, err := strconv.Atoi(string(m[1]))
		require.NoError(t, err)
		barriers[n] = true
	}
	require.NotEmpty(t, barriers, "the compiler says it in another way now: %.500s", said)

	path := filepath.Join("..", "store.go")
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	lines := strings.Split(string(text), "\n")
	files := token.NewFileSet()
	parsed, err := parser.ParseFile(files, path, text, 0)
	require.NoError(t, err)
	through := regexp.MustCompile(`\b(show|record|refused|startClaim)\(`) // these write through a pointer
	looked := 0
	for _, d := range parsed.Decls {
		f, ok := d.(*ast.FuncDecl)
		if !ok || f.Name.Name != "Get" && f.Name.Name != "Claim" {
			continue
		}
		for n := files.Position(f.Pos()).Line; n <= files.Position(f.End()).Line; n++ {
			line := lines[n-1]
			require.NotRegexp(t, through, line, "store.go:%d", n)
			// A claim that is granted writes to the heap; its refusal fills c.Record.
			if f.Name.Name == "Get" || strings.Contains(line, "c.Record") {
				looked++
				require.False(t, barriers[n], "store.go:%d: %s", n, strings.TrimSpace(line))
			}
		}
	}
	require.Greater(t, looked, 20)
}
