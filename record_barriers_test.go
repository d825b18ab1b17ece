package idem_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
)

// What a look-up answers is written without write barriers. While a collection is under
// way, one look-up in 37 would fill the barrier's buffer and take ten times as long. The
// compiler says where it puts barriers.
func TestLookupsPassNoWriteBarrier(t *testing.T) {
	t.Parallel()
	command, err := exec.LookPath("go")
	if err != nil {
		t.Skip("no go command")
	}
	said, err := exec.CommandContext(t.Context(), command, "build", "-gcflags=-d=wb", ".").CombinedOutput()
	require.NoError(t, err, string(said))
	barriers := map[string]bool{} // file:line
	for _, m := range regexp.MustCompile(`(\w+\.go:\d+):\d+: write barrier`).FindAllSubmatch(said, -1) {
		barriers[string(m[1])] = true
	}
	require.NotEmpty(t, barriers, "the compiler says it in another way now: %.500s", said)
	looked := 0
	for file, names := range map[string][]string{"record.go": {"record"}, "store.go": {"Get", "readClaim"}, "answer.go": {"disclosed"}} {
		files := token.NewFileSet()
		parsed, err := parser.ParseFile(files, file, nil, 0)
		require.NoError(t, err)
		for _, name := range names {
			for _, d := range parsed.Decls {
				f, ok := d.(*ast.FuncDecl)
				if !ok || f.Name.Name != name {
					continue
				}
				looked++
				for n := files.Position(f.Pos()).Line; n <= files.Position(f.End()).Line; n++ {
					require.False(t, barriers[file+":"+strconv.Itoa(n)], "%s, %s:%d", name, file, n)
				}
			}
		}
	}
	require.Equal(t, 4, looked)
}
