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
	"os"
	"os/signal"
	"syscall"
)

func main() { os.Exit(int(systemTool().run(os.Args[1:]))) }

// run runs the command line args and returns what the process ends with.
func (t *tool) run(args []string) exitCode {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	root := t.command()
	root.SetArgs(twoDashes(root, args))
	err := root.ExecuteContext(ctx)
	if flushErr := t.out.Flush(); err == nil && flushErr != nil {
		err = failed(flushErr, "writing the output")
	}
	return t.report(err)
}
