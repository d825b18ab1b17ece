//go:build unix

package idem_test

import (
	"bytes"
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/selfexec"
)

// A block is one fenced block of the tutorial. A go block has the name of the file that
// the line before it tells the reader to make; a text block is what the sh block before
// it prints.
type block struct{ kind, file, text string }

// tutorialBlocks returns the blocks of a page in order.
func tutorialBlocks(page string) (blocks []block) {
	fence := regexp.MustCompile("(?ms)(?:^`([\\w.]+)`:\n\n)?^```(\\w+)\n(.*?)^```$")
	for _, m := range fence.FindAllStringSubmatch(page, -1) {
		blocks = append(blocks, block{file: m[1], kind: m[2], text: m[3]})
	}
	return blocks
}

// endOfBlock separates what the sh blocks print.
const endOfBlock = "\x1e"

// tutorialScript does what the reader of the page does, in one shell.
func tutorialScript(t *testing.T, blocks []block) (script string, want []string) {
	t.Helper()
	var s strings.Builder
	for _, b := range blocks {
		switch b.kind {
		case "go":
			require.NotEmpty(t, b.file, "no file is named for:\n%s", b.text)
			fmt.Fprintf(&s, "cat >%s <<'END OF FILE'\n%sEND OF FILE\n", b.file, b.text)
		case "sh":
			fmt.Fprintf(&s, "%sprintf '%s'\n", b.text, endOfBlock)
			want = append(want, "")
		case "text":
			require.NotEmpty(t, want)
			want[len(want)-1] = b.text
		default:
			require.Fail(t, "a block of kind "+b.kind)
		}
	}
	return s.String(), want
}

// What docs/TUTORIAL.md has its reader type is typed here, in a module of its own, and
// prints what the page says that it prints. The module uses this tree in place of a
// release, and asks no network: the module cache has what this tree's tests need.
func TestTutorial(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	if selfexec.Emulated() {
		t.Skip("the programs that it builds would run without the emulator")
	}
	for _, program := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(program); err != nil {
			t.Skipf("the tutorial's reader needs %s: %v", program, err)
		}
	}
	repository, err := filepath.Abs(".")
	require.NoError(t, err)
	script, want := tutorialScript(t, tutorialBlocks(readFile(t, "docs/TUTORIAL.md")))
	script = strings.ReplaceAll(script, "8080", freePort(t))
	// go mod init, for a module that uses this tree.
	script = `set -e
go() {
	command go "$@"
	if [ "$1 $2" = "mod init" ]; then
		command go mod edit -replace=github.com/idemkv/idem="$REPOSITORY"
		cp "$REPOSITORY/go.sum" .
	fi
}
trap stop EXIT
` + script

	ctx := t.Context()
	if deadline, ok := t.Deadline(); ok { // leave time to end the servers
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadline(ctx, deadline.Add(-10*time.Second))
		defer cancel()
	}
	cmd := exec.CommandContext(ctx, "bash", "-c", script)
	cmd.Dir = t.TempDir()
	cmd.Env = append(os.Environ(), "REPOSITORY="+repository, "GOWORK=off", "GOFLAGS=-buildvcs=false", "GOPROXY=off", "GOSUMDB=off", "GOTOOLCHAIN=local")
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	// The servers that the shell starts go with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Minute
	require.NoError(t, cmd.Run(), "%s\n%s", &stdout, &stderr)

	got := strings.Split(stdout.String(), endOfBlock)
	require.Len(t, got, len(want)+1)
	for i := range want {
		assert.Equal(t, want[i], got[i], "what block %d of the tutorial prints", i+1)
	}
}

// freePort returns a port that nobody listened on a moment ago.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	require.NoError(t, l.Close())
	_, port, err := net.SplitHostPort(l.Addr().String())
	require.NoError(t, err)
	return port
}

// The reader of blocks must not pass over any.
func TestTutorialBlocks(t *testing.T) {
	t.Parallel()
	page := "text\n\n```sh\na\nb\n```\n\n```text\nout\n```\n`x.go`:\n\n```go\npackage x\n```\n"
	blocks := tutorialBlocks(page)
	require.Equal(t, []block{{kind: "sh", text: "a\nb\n"}, {kind: "text", text: "out\n"}, {kind: "go", file: "x.go", text: "package x\n"}}, blocks)
	script, want := tutorialScript(t, append(blocks, block{kind: "sh", text: "c\n"}))
	assert.Equal(t, "a\nb\nprintf '\x1e'\ncat >x.go <<'END OF FILE'\npackage x\nEND OF FILE\nc\nprintf '\x1e'\n", script)
	assert.Equal(t, []string{"out\n", ""}, want)

	// Each fence of the tutorial belongs to a block.
	tutorial := readFile(t, "docs/TUTORIAL.md")
	assert.Equal(t, strings.Count("\n"+tutorial, "\n```"), 2*len(tutorialBlocks(tutorial)))
}
