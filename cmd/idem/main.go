// Command idem is the tool of whoever is on call for an idempotency store: what is in
// it, what is stuck and why, and what settles it. It works on a store that no process
// has open, or asks the service that has it open (package idemadmin). docs/TOOL.md
// describes it.
//
//	go install github.com/idemkv/idem/cmd/idem@latest
//	idem stuck -store /var/lib/pay/idem.db
package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(int(systemTool().run(os.Args[1:]))) }

// run runs the command line args and returns what the process ends with.
func (t *tool) run(args []string) exitCode {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	// The first signal ends the work in good order. Not everything can be interrupted: a
	// second signal ends the process.
	defer context.AfterFunc(ctx, stop)()
	return t.runIn(ctx, args)
}

// runIn is run, interrupted when ctx ends.
func (t *tool) runIn(ctx context.Context, args []string) exitCode {
	root := t.command()
	root.SetArgs(twoDashes(root, args))
	err := root.ExecuteContext(ctx)
	if flushErr := t.out.Flush(); flushErr != nil {
		flushErr = t.unwritten(flushErr)
		if err == nil {
			return t.report(flushErr)
		}
		if !errors.Is(err, errors.Unwrap(flushErr)) {
			t.report(flushErr)
		}
	}
	return t.report(err)
}
