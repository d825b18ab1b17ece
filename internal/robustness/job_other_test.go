//go:build !linux

package robustness

import (
	"errors"
	"os"
	"time"
)

// What only Linux has, and what is skipped without strace there.

func stoppedIn(...string) {}

const naps = false

func stopFor(*os.Process, time.Duration) error { return errors.New("not on this system") }

func limitFiles(uint64) error { return errors.New("not on this system") }

type fillJob struct{}

func (*fillJob) do() error { return errors.New("not on this system") }
