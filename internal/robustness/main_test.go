package robustness

import (
	"context"
	"flag"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"github.com/idemkv/idem/internal/selfexec"
)

// theEnd comes shortly before go test ends this process, if it is to.
var theEnd = context.Background()

func TestMain(m *testing.M) {
	BeChild()
	beJob()
	flag.Parse()
	cancel := func() {}
	if limit := flag.Lookup("test.timeout").Value.(flag.Getter).Get().(time.Duration); limit > 0 {
		theEnd, cancel = context.WithTimeout(theEnd, limit-limit/20)
	}
	code := m.Run()
	cancel()
	os.Exit(code)
}

// child is this program as another process, started by the words of how, if any. No
// time of ours bounds it, because a machine may be as slow as it likes. When the tests
// run out of time it is told to print what its goroutines do, and is killed.
func child(how ...string) *exec.Cmd {
	words := append(how[:len(how):len(how)], selfexec.Words()...)
	cmd := exec.CommandContext(theEnd, words[0], words[1:]...)
	cmd.Cancel = func() error {
		if cmd.Process.Signal(syscall.SIGQUIT) != nil { // not on this system
			return cmd.Process.Kill()
		}
		return nil
	}
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// What the make targets set.
const (
	roundsEnv = "IDEM_ROBUSTNESS_ROUNDS" // kills, or stores that are backed up
	imagesEnv = "IDEM_ROBUSTNESS_IMAGES" // of disks
	faultsEnv = "IDEM_ROBUSTNESS_FAULTS" // calls that fail, and bits flipped
	caseEnv   = "IDEM_ROBUSTNESS_CASE"   // the only one, by its name
	storeEnv  = "IDEM_ROBUSTNESS_STORE"  // where a store was kept whose bit is to be flipped again
	seedEnv   = "IDEM_ROBUSTNESS_SEED"
	engineEnv = "IDEM_ROBUSTNESS_ENGINE" // the only one
)
