// Package selfexec starts the running program again as another process, for tests
// that need two: to hold a lock, to be killed, or to fail on purpose.
package selfexec

import (
	"context"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// PrefixEnv names the variable that holds what a test program is run by: an
// emulator and its flags, as in "qemu-arm -cpu max". It says the same to the tests
// as -exec says to go test, which does not tell them.
const PrefixEnv = "IDEM_TEST_EXEC"

// Emulated reports whether this program runs in an emulator.
func Emulated() bool { return os.Getenv(PrefixEnv) != "" }

// Words are the first words of a command that runs this program: the prefix, if
// any, and the path. The caller may append to them.
func Words() []string {
	self, err := os.Executable()
	if err != nil {
		self = os.Args[0]
	}
	return append(strings.Fields(os.Getenv(PrefixEnv)), self)
}

// Command returns a command that runs this program with args, and kills it when ctx
// ends.
func Command(ctx context.Context, args ...string) *exec.Cmd {
	words := append(Words(), args...)
	return exec.CommandContext(ctx, words[0], words[1:]...)
}

// Env returns the environment of a command that runs this program, with more in it. A
// program with the race detector would otherwise sleep for a second before it exits.
func Env(more ...string) []string {
	return append(append(os.Environ(), "GORACE="+os.Getenv("GORACE")+" atexit_sleep_ms=0"), more...)
}

// NeedsFaultAddress skips tests of memory faults where the emulator does not say at
// which address they were: qemu-user says 0, which Go takes for a nil pointer.
func NeedsFaultAddress(t testing.TB) {
	t.Helper()
	if Emulated() {
		t.Skip("the emulator does not tell the address of a memory fault")
	}
}
