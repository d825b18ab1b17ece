package contenders

import (
	"os"
	"os/exec"
	"syscall"
)

// datasync is the fdatasync that bbolt and Pebble use here.
func datasync(f *os.File) error {
	for {
		if err := syscall.Fdatasync(int(f.Fd())); err != syscall.EINTR {
			return err
		}
	}
}

// endWithParent has the kernel end the process when the thread that starts it ends: a
// bench that is killed leaves no server behind.
func endWithParent(cmd *exec.Cmd) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
}
