package peers

import (
	"os/exec"
	"syscall"
)

// endWithParent has the kernel end the process when the thread that starts it ends,
// so that a bench that is killed leaves no server behind.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
