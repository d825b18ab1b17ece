package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"syscall"

	"github.com/idemkv/idem"
)

// exitCode is what the process ends with. The numbers are part of the tool's interface:
// scripts rely on them, and docs/TOOL.md lists them.
type exitCode int

const (
	exitOK exitCode = iota
	exitFailed
	exitUsage
	exitNotFound
	exitNoStore
	exitLocked
	exitDamaged
	exitVersion
	exitLost
	exitRefused
	exitUnavailable
	exitAmbiguous
	exitInterrupted
)

// exitMeanings has one line for each code, for the help text and the docs.
var exitMeanings = [...]string{
	exitOK:          "done",
	exitFailed:      "failed for another reason, or you said no",
	exitUsage:       "the command line is wrong",
	exitNotFound:    "no record of that key, hash or token",
	exitNoStore:     "no store there: nothing, or something else",
	exitLocked:      "another process has the store open",
	exitDamaged:     "the store, a record or an index is damaged",
	exitVersion:     "the store has a format that this tool does not read",
	exitLost:        "lost the race: the attempt was settled, taken over or forgotten before",
	exitRefused:     "no rights: the system or the service refuses you",
	exitUnavailable: "the service does not answer, or its store is broken or closed",
	exitAmbiguous:   "the argument stands for several records, and the command wants one",
	exitInterrupted: "interrupted, by you or by SIGTERM",
}

// failure is an error that says how the process ends: what was being done, why it
// failed, and what to do about it.
type failure struct {
	code   exitCode
	doing  string // "settling key 3f2a91bc0d11 in pay.db"; may be empty
	err    error  // the cause; may be nil
	advice string // may be empty
}

func (f *failure) Error() string {
	var parts []string
	if f.doing != "" {
		parts = append(parts, f.doing)
	}
	switch {
	case f.code == exitInterrupted:
		parts = append(parts, "interrupted")
	case f.err != nil:
		parts = append(parts, plain(f.err))
	}
	text := strings.Join(parts, ": ")
	if f.advice != "" {
		if text != "" {
			text = strings.TrimSuffix(text, ".") + "; "
		}
		text += f.advice
	}
	return text
}

func (f *failure) Unwrap() error { return f.err }

// plain is err's text on one line, without the prefix that the library gives its errors.
func plain(err error) string { return printable(plainText(err.Error())) }

func plainText(text string) string {
	return strings.Join(strings.Fields(strings.ReplaceAll(text, "idem: ", "")), " ")
}

// usage returns the failure of a command line that is wrong.
func usage(format string, args ...any) error {
	return &failure{code: exitUsage, err: fmt.Errorf(format, args...)}
}

// failed returns err as a failure that says what was being done. A failure keeps its code
// and its advice.
func failed(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	doing := fmt.Sprintf(format, args...)
	var f *failure
	if errors.As(err, &f) {
		if f.doing == "" {
			return &failure{f.code, doing, f.err, f.advice}
		}
		return f
	}
	code, advice := classify(err)
	return &failure{code, doing, err, advice}
}

// classes says which code and which advice an error of the library or of the system gets.
// The first that matches counts. Where the library's own text says what to do, the advice
// is empty.
var classes = []struct {
	err    error
	code   exitCode
	advice string
}{
	{context.Canceled, exitInterrupted, ""},
	{idem.ErrNotFound, exitNotFound, ""},
	{idem.ErrFenced, exitLost, "nothing was changed; look at what is there with idem show"},
	{idem.ErrCompleted, exitLost, "nothing was changed; the first answer stays"},
	{idem.ErrFailed, exitLost, "nothing was changed; the first answer stays"},
	{idem.ErrHeld, exitLost, "nothing was changed; complete, fail or release it"},
	{idem.ErrLocked, exitLocked, ""},
	{idem.ErrVersion, exitVersion, ""},
	{idem.ErrBroken, exitUnavailable, "what was under way may or may not have been done; look with idem show when the disk is well"}, // it may wrap ErrCorrupt
	{idem.ErrClosed, exitUnavailable, "try again when the service is up"},
	{idem.ErrCorrupt, exitDamaged, "idem verify names what is damaged; restore a backup"},
	{idem.ErrFull, exitFailed, "make room first"},
	{fs.ErrPermission, exitRefused, "run it as the user that owns the store"},
	{syscall.ENOSPC, exitFailed, "make room first"},
}

func classify(err error) (exitCode, string) {
	for _, c := range classes {
		if errors.Is(err, c.err) {
			return c.code, c.advice
		}
	}
	return exitFailed, ""
}
