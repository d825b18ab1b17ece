package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/idemkv/idem"
	"github.com/stretchr/testify/require"
)

// playMain makes the test binary the program itself; the processes it starts are
// it again, and play their parts too. Its value names what the server does wrong.
const playMain = "IDEM_PAYMENTS_TEST_MAIN"

func TestMain(m *testing.M) {
	if fault := os.Getenv(playMain); fault != "" {
		os.Exit(run(os.Args[1:], faultyOpener(fault)))
	}
	os.Exit(m.Run())
}

// faultyOpener opens ledgers that treat the seventh payment wrongly.
func faultyOpener(fault string) opener {
	return func(engine, path string, o idem.Options) (*idem.Store, ledger, error) {
		store, l, err := openLedger(engine, path, o)
		if err == nil && fault != "none" {
			l = &faultyLedger{l, store, fault}
		}
		return store, l, err
	}
}

type faultyLedger struct {
	ledger
	store *idem.Store
	fault string
}

func (l *faultyLedger) charge(ctx context.Context, t idem.Token, p payment) error {
	if p.Key == clientKey(ownLedger, "pay-1-000007") {
		switch l.fault {
		case "a cent":
			p.Cents++
		case "twice":
			again, err := l.store.Claim(ctx, idem.Request{Key: t.Key + " again"})
			if errors.Is(err, idem.ErrCompleted) {
				break // before a kill
			}
			if err := errors.Join(err, l.ledger.charge(ctx, again.Token, p)); err != nil {
				return err
			}
		}
	}
	return l.ledger.charge(ctx, t, p)
}

// program is the demo as a process, in a directory for temporary files of its own.
func program(t *testing.T, fault string, args ...string) (cmd *exec.Cmd, out *bytes.Buffer, tmp string) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	self, err := os.Executable()
	require.NoError(t, err)
	tmp = t.TempDir()
	out = new(bytes.Buffer)
	// However slow the machine is, the demo goes on; args may say otherwise.
	cmd = exec.CommandContext(t.Context(), self, append([]string{"-timeout", "24h"}, args...)...)
	cmd.Env = append(os.Environ(), playMain+"="+fault, "TMPDIR="+tmp, "TMP="+tmp, "TEMP="+tmp,
		"GORACE=atexit_sleep_ms=0") // or each process sleeps for a second at its end
	cmd.Stdout, cmd.Stderr = out, out
	return cmd, out, tmp
}

func runProgram(t *testing.T, fault string, args ...string) (status int, output string) {
	cmd, out, tmp := program(t, fault, args...)
	err := cmd.Run()
	if _, exited := err.(*exec.ExitError); !exited {
		require.NoError(t, err)
	}
	left, err := os.ReadDir(tmp)
	require.NoError(t, err)
	require.Empty(t, left, "temporary files are removed")
	return cmd.ProcessState.ExitCode(), out.String()
}

// row returns the numbers in a row of the table, one for each route.
func row(t *testing.T, output, name string) (cells []int) {
	for line := range strings.Lines(output) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), name+" "); ok {
			for _, cell := range strings.Fields(rest) {
				n, err := strconv.Atoi(cell)
				require.NoError(t, err, line)
				cells = append(cells, n)
			}
			require.Len(t, cells, len(routes), line)
			return cells
		}
	}
	require.Fail(t, "no such row", "%s in %s", name, output)
	return nil
}

// Killed in the middle, charged once.
func TestKilledAndAudited(t *testing.T) {
	t.Parallel()
	for engine, kills := range map[string]int{"bolt": 2, "pebble": 2, "memory": 0} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			status, out := runProgram(t, "none", "-engine", engine, "-n", "60", "-kills", "2", "-workers", "8")
			require.Zero(t, status, out)
			require.Contains(t, out, "OK: every payment is charged once")
			require.Equal(t, []int{kills, kills, kills, kills}, row(t, out, "kills survived"))
			require.Equal(t, []int{60, 60, 60, 60}, row(t, out, "payments"))
			require.Equal(t, []int{60, 60, 60}, row(t, out, "charged exactly once")[:3])
			require.Equal(t, []int{0, 0, 0}, row(t, out, "charged twice or more")[:3])
			require.Equal(t, []int{0, 0, 0, 0}, row(t, out, "never charged"))
			twice := row(t, out, "charged twice or more")[3]
			held := row(t, out, "held at first, then settled")
			require.Equal(t, []int{0, 0, 0}, []int{held[0], held[1], held[3]})
			takeovers := row(t, out, "takeovers of a dead attempt's claim")
			require.Zero(t, takeovers[2])
			if kills == 0 {
				require.Zero(t, twice+held[2]+takeovers[0]+takeovers[1]+takeovers[3])
				return
			}
			require.Positive(t, twice, "the first kill comes between a charge and its completion")
			require.Positive(t, takeovers[3])
			require.Positive(t, held[2], "and so does the second, on the route that holds")
		})
	}
}

func TestWrongLedgerIsFound(t *testing.T) {
	t.Parallel()
	p := generate(7, 1)[6]
	for fault, says := range map[string]string{
		"a cent": fmt.Sprintf(`FAIL: own-ledger: payment "pay-1-000007" of %s from %q was charged as %s`,
			money(p.Cents), p.Account, money(p.Cents+1)),
		"twice": `FAIL: own-ledger: payment "pay-1-000007" was charged 2 times`,
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			status, out := runProgram(t, fault, "-n", "20", "-kills", "1", "-workers", "4")
			require.Equal(t, 1, status, out)
			require.Contains(t, out, says)
			require.NotContains(t, out, "OK:")
		})
	}
}

func TestInputFile(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "kept")
	status, out := runProgram(t, "none", "-in", "testdata/payments.jsonl", "-kills", "1", "-dir", dir)
	require.Zero(t, status, out)
	for _, line := range []string{"line 4: skipped: \"amount_cents\"", "line 5: skipped", "line 6: skipped: not a JSON object", "line 7: skipped"} {
		require.Contains(t, out, line)
	}
	require.Contains(t, out, "5 payments read, 4 bad lines skipped")
	require.Equal(t, []int{3, 3, 3}, row(t, out, "charged exactly once")[:3])
	require.FileExists(t, filepath.Join(dir, "payments.db"))

	status, out = runProgram(t, "none", "-in", "testdata/payments.jsonl", "-dir", dir)
	require.Equal(t, 1, status)
	require.Contains(t, out, "is not empty")
}

func TestBadUse(t *testing.T) {
	t.Parallel()
	empty := filepath.Join(t.TempDir(), "empty.jsonl")
	require.NoError(t, os.WriteFile(empty, []byte("\n\n"), 0o600))
	for _, tc := range []struct {
		status int
		says   string
		args   []string
	}{
		{2, "there are bolt, pebble and memory", []string{"-engine", "sqlite"}},
		{2, "at least one payment", []string{"-n", "0"}},
		{2, "cannot be negative", []string{"-kills", "-1"}},
		{2, "at least one", []string{"-workers", "0"}},
		{2, "above zero", []string{"-timeout", "0s"}},
		{2, `what is "now"?`, []string{"now"}},
		{2, "not defined", []string{"-colour"}},
		{0, "-engine", []string{"-help"}},
		{1, "missing.jsonl", []string{"-in", filepath.Join(t.TempDir(), "missing.jsonl")}},
		{1, "has no payment", []string{"-in", empty}},
		{1, "not finished after", []string{"-timeout", "1ms"}},
	} {
		t.Run(strings.Join(tc.args[:1], ""), func(t *testing.T) {
			t.Parallel()
			status, out := runProgram(t, "none", tc.args...)
			require.Equal(t, tc.status, status, out)
			require.Contains(t, out, tc.says)
		})
	}
}

// However the supervisor ends, its children end too: they hold its standard error open,
// and Wait returns only when they are gone.
func TestChildrenEndWithTheSupervisor(t *testing.T) {
	t.Parallel()
	for name, end := range map[string]func(*os.Process) error{
		"interrupted": func(p *os.Process) error { return p.Signal(os.Interrupt) },
		"killed":      (*os.Process).Kill,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "interrupted" && runtime.GOOS == "windows" {
				t.Skip("cannot send an interrupt")
			}
			cmd, _, tmp := program(t, "none", "-n", "20000", "-kills", "20000")
			stdout, signs := new(bytes.Buffer), make(chan struct{}, 1)
			cmd.Stdout = writerFunc(func(b []byte) (int, error) {
				stdout.Write(b)
				if bytes.Contains(b, []byte("kill ")) {
					select {
					case signs <- struct{}{}:
					default:
					}
				}
				return len(b), nil
			})
			require.NoError(t, cmd.Start())
			<-signs
			require.NoError(t, end(cmd.Process))
			err := cmd.Wait()
			require.Error(t, err)
			if name == "interrupted" {
				require.Equal(t, 130, cmd.ProcessState.ExitCode(), stdout)
				left, err := os.ReadDir(tmp)
				require.NoError(t, err)
				require.Empty(t, left)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
