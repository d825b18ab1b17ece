package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/examples/payments/service"
	"github.com/idemkv/idem/internal/selfexec"
)

// playDemo makes the test binary the demo itself, and the servers that it starts, too. Its
// value names what the service's ledger does wrong.
const playDemo = "IDEM_DEMO_TEST"

func TestMain(m *testing.M) {
	if fault := os.Getenv(playDemo); fault != "" {
		os.Exit(run(os.Args[1:], faultyOpener(fault)))
	}
	os.Exit(m.Run())
}

// faultyOpener opens ledgers that treat the seventh payment wrongly.
func faultyOpener(fault string) opener {
	return func(engine, path string, o idem.Options) (*idem.Store, ledger, error) {
		store, l, err := openStore(engine, path, o)
		right := l.charge
		l.charge = func(ctx context.Context, store *idem.Store, t idem.Token, p service.Payment) error {
			if p.ID != clientKey(payments, "pay-000007") {
				return right(ctx, store, t, p)
			}
			switch fault {
			case "a cent":
				p.Cents++
			case "twice":
				again, err := store.Claim(ctx, idem.Request{Key: t.Key + " again"})
				if errors.Is(err, idem.ErrCompleted) {
					break // before a kill
				}
				if err := errors.Join(err, right(ctx, store, again.Token, p)); err != nil {
					return err
				}
			case "never":
				answer, err := paid([]byte("{}"))
				return errors.Join(err, store.Complete(ctx, t, answer))
			}
			return right(ctx, store, t, p)
		}
		return store, l, err
	}
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
	cmd.Env = selfexec.Env(playDemo+"="+fault, "TMPDIR="+tmp, "TMP="+tmp, "TEMP="+tmp)
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

// row returns the numbers in a row of the report, one for each way.
func row(t *testing.T, output, name string) (cells []int) {
	for line := range strings.Lines(output) {
		if rest, ok := strings.CutPrefix(strings.TrimSpace(line), strings.TrimSpace(name)+" "); ok {
			for _, cell := range strings.Fields(rest) {
				n, err := strconv.Atoi(cell)
				require.NoError(t, err, line)
				cells = append(cells, n)
			}
			require.Len(t, cells, len(ways), line)
			return cells
		}
	}
	require.Fail(t, "no such row", "%s in %s", name, output)
	return nil
}

// A service that is killed in the middle makes each payment once, but for the way that
// promises nothing: there the kills show.
func TestKilledAndAudited(t *testing.T) {
	t.Parallel()
	for engine, kills := range map[string]int{"bolt": 2, "pebble": 2, "memory": 0} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			status, out := runProgram(t, "none", "-engine", engine, "-n", "60", "-kills", "2")
			require.Zero(t, status, out)
			require.Contains(t, out, "OK: no payment was lost")
			require.Equal(t, []int{kills, kills, kills, kills}, row(t, out, "kills survived"))
			require.Equal(t, []int{60, 60, 60}, row(t, out, "made exactly once")[:3])
			require.Equal(t, []int{0, 0, 0}, row(t, out, "made twice or more")[:3])
			require.Equal(t, []int{0, 0, 0, 0}, row(t, out, "never made"))
			atLeast := min(kills, 1)
			require.GreaterOrEqual(t, row(t, out, "made twice or more")[3], atLeast, "the first kill comes between a payout and its record")
			require.GreaterOrEqual(t, row(t, out, outcomeHeld)[2], atLeast, "and so does the second, where payouts are held")
			require.GreaterOrEqual(t, row(t, out, "takeovers of a dead attempt's claim")[3], atLeast)
			for _, name := range []string{requests, replayed, mismatched, lost, retries} {
				for _, n := range row(t, out, name) {
					require.Positive(t, n, "%s in\n%s", name, out)
				}
			}
		})
	}
}

// The demo can fail: a service that pays wrongly is found out.
func TestPlantedFaultIsFound(t *testing.T) {
	t.Parallel()
	p := generate(7, 1)[6]
	for fault, says := range map[string]string{
		"a cent": fmt.Sprintf("FAIL: payments: payment pay-000007 of %s from %s was made as %s", money(p.Cents), p.Account, money(p.Cents+1)),
		"twice":  "FAIL: payments: payment pay-000007 was made 2 times",
		"never":  "FAIL: payments: payment pay-000007 of " + money(p.Cents) + " was never made",
	} {
		t.Run(fault, func(t *testing.T) {
			t.Parallel()
			status, out := runProgram(t, fault, "-n", "20", "-kills", "1")
			require.Equal(t, 1, status, out)
			require.Contains(t, out, says)
			require.NotContains(t, out, "OK:")
		})
	}
}

func TestBadUse(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		status int
		says   string
		args   []string
	}{
		{2, "there are bolt, pebble and memory", []string{"-engine", "sqlite"}},
		{2, "at least one payment", []string{"-n", "0"}},
		{2, "cannot be negative", []string{"-kills", "-1"}},
		{2, `what is "now"?`, []string{"now"}},
		{2, "not defined", []string{"-colour"}},
		{0, "-engine", []string{"-help"}},
		{1, "not finished after", []string{"-timeout", "1ms"}},
	} {
		t.Run(tc.args[0], func(t *testing.T) {
			t.Parallel()
			status, out := runProgram(t, "none", tc.args...)
			require.Equal(t, tc.status, status, out)
			require.Contains(t, out, tc.says)
		})
	}
}

// However the supervisor ends, its server ends too: it holds the supervisor's standard
// error open, and Wait returns only when it is gone.
func TestServerEndsWithTheSupervisor(t *testing.T) {
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
			sign := make(chan struct{}, 1)
			cmd.Stdout = writerFunc(func(b []byte) (int, error) {
				if bytes.Contains(b, []byte("kill ")) {
					select {
					case sign <- struct{}{}:
					default:
					}
				}
				return len(b), nil
			})
			require.NoError(t, cmd.Start())
			<-sign
			require.NoError(t, end(cmd.Process))
			require.Error(t, cmd.Wait())
			if name == "interrupted" {
				require.Equal(t, 130, cmd.ProcessState.ExitCode())
				left, err := os.ReadDir(tmp)
				require.NoError(t, err)
				require.Empty(t, left)
			}
		})
	}
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }
