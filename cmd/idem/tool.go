package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/mattn/go-isatty"
	"github.com/spf13/cobra"

	"github.com/idemkv/idem/internal/operator"
)

// tool is one run of the program: what it is connected to, and what its flags say.
type tool struct {
	in          io.Reader
	out         *bufio.Writer
	err         io.Writer
	env         func(name string) string
	inTerminal  bool // somebody can answer a question
	outTerminal bool
	errTerminal bool // somebody sees a progress bar and a question
	now         func() time.Time

	store, url  string
	headerFile  string
	lockTimeout time.Duration
	json        bool
	redact      bool
	maxAttempts int
	full        bool
	yes         bool

	changed bool // a change was made, and only the report of it is left
}

func systemTool() *tool {
	terminal := func(f *os.File) bool { return isatty.IsTerminal(f.Fd()) || isatty.IsCygwinTerminal(f.Fd()) }
	return &tool{
		in: os.Stdin, out: bufio.NewWriterSize(os.Stdout, 64<<10), err: os.Stderr, env: os.Getenv, now: time.Now,
		inTerminal: terminal(os.Stdin), outTerminal: terminal(os.Stdout), errTerminal: terminal(os.Stderr),
	}
}

// report says on stderr how a run failed, and returns its exit code.
func (t *tool) report(err error) exitCode {
	if err == nil {
		return exitOK
	}
	var f *failure
	if !errors.As(err, &f) { // cobra's own: an unknown command, a bad flag
		f = &failure{code: exitUsage, err: err, advice: "see idem -help"}
	}
	fmt.Fprintf(t.err, "idem: %s\n", f.Error())
	return f.code
}

// note tells something on stderr that is no result, after the results so far.
func (t *tool) note(format string, args ...any) {
	_ = t.out.Flush() // run finds its error
	fmt.Fprintf(t.err, format+"\n", args...)
}

// print writes a line of the result. An error stays in t.out: see written.
func (t *tool) print(format string, args ...any) { fmt.Fprintf(t.out, format+"\n", args...) }

// written returns the error that writing the output has met. Long lists end there.
func (t *tool) written() error {
	_, err := t.out.Write(nil)
	return t.unwritten(err)
}

// unwritten returns err, of writing the output, as a failure.
func (t *tool) unwritten(err error) error {
	if err == nil {
		return nil
	}
	advice := ""
	if t.changed {
		advice = "the command itself was carried out"
	}
	return &failure{exitFailed, "writing the output", err, advice}
}

// printJSON writes v as one line.
func (t *tool) printJSON(v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return failed(err, "writing JSON")
	}
	_, err := t.out.Write(b.Bytes())
	return t.unwritten(err)
}

// reveal says what of records is shown. An operator's tool on the operator's own store
// shows all, unless it is told not to.
func (t *tool) reveal() operator.Reveal {
	return operator.Reveal{Keys: !t.redact, Payloads: !t.redact}
}

// mayAsk returns an error if a question could not be answered: without a terminal, -yes
// must have been given.
func (t *tool) mayAsk() error {
	if !t.yes && (!t.inTerminal || !t.errTerminal) {
		return usage("there is no terminal to ask on; look with idem show, then run this with -yes")
	}
	return nil
}

// confirm asks a question that only "y" or "yes" answers with yes.
func (t *tool) confirm(ctx context.Context, question string) error {
	if err := t.out.Flush(); err != nil {
		return t.unwritten(err)
	}
	fmt.Fprintf(t.err, "%s [y/N] ", question)
	type answer struct {
		line string
		err  error
	}
	// Nothing interrupts a read from a terminal. After an interrupt it stays behind, and ends
	// with the process.
	answered := make(chan answer, 1)
	go func() {
		line, err := bufio.NewReader(t.in).ReadString('\n')
		answered <- answer{line, err}
	}()
	var a answer
	select {
	case a = <-answered:
	case <-ctx.Done():
		fmt.Fprintln(t.err)
	}
	if err := ctx.Err(); err != nil { // also of one who was interrupted and then said yes
		return &failure{exitInterrupted, "", err, "nothing was changed"}
	}
	if a.err != nil && a.err != io.EOF {
		return failed(a.err, "reading your answer")
	}
	switch strings.ToLower(strings.TrimSpace(a.line)) {
	case "y", "yes":
		return nil
	}
	return &failure{code: exitFailed, err: errors.New("you did not say yes; nothing was changed")}
}

// environment variables that stand for flags.
const (
	storeVariable         = "IDEM_STORE"
	urlVariable           = "IDEM_URL"
	authorizationVariable = "IDEM_AUTHORIZATION"
)

// place settles which store is meant: by a flag, by the argument of a command that takes
// no other, or by the environment.
func (t *tool) place(args []string) error {
	if len(args) == 1 {
		if t.store != "" || t.url != "" {
			return usage("the store is named twice, by a flag and by an argument; leave one out")
		}
		if isURL(args[0]) {
			t.url = args[0]
		} else {
			t.store = args[0]
		}
	}
	if t.store == "" && t.url == "" {
		t.store, t.url = t.env(storeVariable), t.env(urlVariable)
	}
	switch {
	case t.store == "" && t.url == "":
		return usage("which store? Give -store PATH (a bolt file or a Pebble directory) or -url URL (of a live service)")
	case t.store != "" && t.url != "":
		return usage("-store and -url (or %s and %s) are both given; give one", storeVariable, urlVariable)
	case isURL(t.store):
		return usage("-store is for a path; give a URL as -url")
	}
	return nil
}

// isURL reports whether s is meant as a URL. What is taken for a path is printed in errors,
// and a URL may have a password in it.
func isURL(s string) bool { return strings.Contains(s, "://") }

var errURLAsPath = usage("a URL is given where a path is wanted; this works on files")

// open opens the store that is meant for reading: here, or at a service.
func (t *tool) open(args ...string) (source, error) {
	if err := t.place(args); err != nil {
		return nil, err
	}
	if t.url != "" {
		return t.dial()
	}
	return t.openLocal(t.store, false)
}

// openForChange is open for commands that change a record.
func (t *tool) openForChange() (source, error) {
	if err := t.place(nil); err != nil {
		return nil, err
	}
	if t.url != "" {
		return t.dial()
	}
	return t.openLocal(t.store, true)
}

// openHere opens the store for a command that a service does not offer.
func (t *tool) openHere(c *cobra.Command, write bool, args ...string) (*local, error) {
	if _, err := t.pathOf(c, args...); err != nil {
		return nil, err
	}
	return t.openLocal(t.store, write)
}

// pathOf settles which path a command means that a service does not offer, and whose
// store is there.
func (t *tool) pathOf(c *cobra.Command, args ...string) (kind, error) {
	if err := t.place(args); err != nil {
		return "", err
	}
	if t.url != "" {
		return "", usage("idem %s works on a path only; a live service does this itself, by the method of its store or engine", c.Name())
	}
	return detect(t.store)
}
