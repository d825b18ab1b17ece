package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/idemkv/idem"
)

// openTerminal returns the two ends of a pseudo-terminal.
func openTerminal(t *testing.T) (ours, theirs *os.File) {
	t.Helper()
	ours, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Skip("there are no pseudo-terminals here:", err)
	}
	t.Cleanup(func() { _ = ours.Close() })
	raw, err := ours.SyscallConn()
	require.NoError(t, err)
	n := 0
	require.NoError(t, raw.Control(func(fd uintptr) {
		if err = unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0); err == nil {
			n, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		}
	}))
	require.NoError(t, err)
	theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	require.NoError(t, err)
	return ours, theirs
}

// An interrupt ends the question on a real terminal.
func TestInterruptOnATerminal(t *testing.T) {
	t.Parallel()
	path := filled(t, boltKind)
	ours, theirs := openTerminal(t)
	c := exec.Command("idem", "settle", "release", "order-4", "-store", path)
	c.Stdin, c.Stdout, c.Stderr = theirs, theirs, theirs
	require.NoError(t, c.Start())
	require.NoError(t, theirs.Close())
	var seen []byte
	for interrupted := false; ; {
		b := make([]byte, 512)
		n, err := ours.Read(b)
		seen = append(seen, b[:n]...)
		if err != nil { // the other end is closed
			break
		}
		if !interrupted && bytes.Contains(seen, []byte("[y/N]")) {
			require.NoError(t, c.Process.Signal(os.Interrupt))
			interrupted = true
		}
	}
	var exit *exec.ExitError
	require.ErrorAs(t, c.Wait(), &exit, "%s", seen)
	require.Equal(t, int(exitInterrupted), exit.ExitCode(), "%s", seen)
	require.Equal(t, idem.Held, stateIn(t, path, "order-4"))
}

// The program asks on a real terminal, and does what is answered there.
func TestAsksOnATerminal(t *testing.T) {
	t.Parallel()
	path := filled(t, boltKind)
	ours, theirs := openTerminal(t)
	var out bytes.Buffer
	c := exec.Command("idem", "settle", "release", "order-4", "-store", path)
	c.Stdin, c.Stdout, c.Stderr = theirs, &out, theirs
	require.NoError(t, c.Start())
	require.NoError(t, theirs.Close())
	seen := make([]byte, 0, 4096)
	for answered := false; ; {
		b := make([]byte, 512)
		n, err := ours.Read(b)
		seen = append(seen, b[:n]...)
		if err != nil { // the other end is closed
			break
		}
		if !answered && bytes.Contains(seen, []byte("[y/N]")) {
			_, err := ours.WriteString("y\n")
			require.NoError(t, err)
			answered = true
		}
	}
	require.NoError(t, c.Wait(), "%s", seen)
	require.Contains(t, string(seen), "held for")
	require.Contains(t, out.String(), "released; the next retry runs it again")
}
