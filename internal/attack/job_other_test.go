//go:build !linux

package attack

import "errors"

// What only Linux has, and what is skipped without strace there.

func stoppedIn(...string) {}

func limitFiles(uint64) error { return errors.New("not on this system") }

type fillJob struct{}

func (*fillJob) do() error { return errors.New("not on this system") }
