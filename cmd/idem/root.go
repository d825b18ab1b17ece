package main

import (
	"fmt"
	"runtime/debug"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const rootHelp = `idem looks into an idempotency store and settles what is stuck in it.

It works on the store's file or directory while no process has it open, or asks
the live service that has it open:

  idem stuck -store /var/lib/pay/idem.db
  idem stuck -url https://pay.internal/admin/idem

The path is a bolt file or a Pebble directory; idem tells which by its content. A
mistyped path is an error, never a new store. Reading opens the store read-only
and changes no byte. Several readers can share a store. While a service has it
open, nobody else can open it; and while this tool reads it, a service that starts
waits for it (LockTimeout).

IDEM_STORE or IDEM_URL can replace the flags. Commands that take no other argument
accept the path or URL as their argument. One dash or two, both work. Replace the
words in capitals.

Keys and results are printed to standard output, and only there. Messages,
questions and errors on standard error name a record by its hash, which is also in
the service's logs. -redact keeps keys, tokens and payloads out of standard
output too.

To log in with -url, set IDEM_AUTHORIZATION to the Authorization header
("Bearer …"), or name a file of header lines with -header-file. For basic auth,
set one of

  IDEM_AUTHORIZATION="Basic $(printf %s "$LOGIN" | base64 | tr -d '\n')"
  IDEM_URL=https://USERNAME:PASSWORD@pay.internal/admin/idem

where LOGIN is USERNAME:PASSWORD, and / ? # and % in the password of the URL are
written %2F %3F %23 and %25. None of this is ever printed. As an argument, others
could see it in the list of processes.

The first interrupt ends a command in good order, a second one at once. idem
completion -help says how your shell completes commands and flags.`

// command returns the root command, made anew for each run.
func (t *tool) command() *cobra.Command {
	root := &cobra.Command{
		Use:               "idem",
		Short:             "Look into an idempotency store and settle what is stuck",
		Long:              rootHelp + "\n\n" + exitHelp(),
		Version:           version(),
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
		Args:              noArguments,
		PersistentPreRunE: func(*cobra.Command, []string) error {
			return t.checkFlags()
		},
		RunE: func(c *cobra.Command, _ []string) error {
			return c.Help()
		},
	}
	root.SetIn(t.in)
	root.SetOut(t.out)
	root.SetErr(t.err)
	root.SetFlagErrorFunc(func(c *cobra.Command, err error) error {
		text := plain(err)
		if strings.HasPrefix(text, "unknown shorthand flag") { // it repeats what may be a key
			text = "there is no such flag; a key that begins with - comes after --"
		}
		return usage("%s; see %s -help", text, c.CommandPath())
	})
	f := root.PersistentFlags()
	f.StringVar(&t.store, "store", "", "`PATH` of the store: a bolt file or a Pebble directory")
	f.StringVar(&t.url, "url", "", "`URL` of a live service, where idemadmin is mounted")
	f.StringVar(&t.headerFile, "header-file", "", "`FILE` with header lines to send with -url, as \"Name: value\"")
	f.DurationVar(&t.lockTimeout, "lock-timeout", time.Second, "how long to wait for a store that another process has open")
	f.BoolVar(&t.json, "json", false, "print JSON, lists as one object a line")
	f.BoolVar(&t.redact, "redact", false, "print no keys, tokens, fingerprints or payloads")
	must(root.MarkPersistentFlagFilename("header-file"))
	must(root.RegisterFlagCompletionFunc("url", cobra.NoFileCompletions))
	root.AddCommand(
		t.statsCommand(), t.listCommand(), t.showCommand(), t.stuckCommand(),
		t.settleCommand(), t.forgetCommand(),
		t.verifyCommand(), t.backupCommand(), t.restoreCommand(), t.exportCommand(), t.importCommand(),
		t.compactCommand(), t.sweepCommand(),
	)
	return root
}

// checkFlags refuses values of flags that no command takes.
func (t *tool) checkFlags() error {
	switch {
	case t.lockTimeout <= 0:
		return usage("-lock-timeout is %v; it must be more than 0, such as 1ms", t.lockTimeout)
	case t.maxAttempts < 0:
		return usage("-max-attempts is %d; it cannot be negative (0: no limit)", t.maxAttempts)
	}
	return nil
}

// exitHelp is the list of exit codes.
func exitHelp() string {
	var b strings.Builder
	b.WriteString("Exit codes:\n")
	for code, means := range exitMeanings {
		fmt.Fprintf(&b, "  %2d  %s\n", code, means)
	}
	return strings.TrimRight(b.String(), "\n")
}

// version is that of the module, as the go command recorded it.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok || info.Main.Version == "" {
		return "(unknown)"
	}
	return info.Main.Version
}

// twoDashes lets long flags be written with one dash, as Go programs have them. No flag
// but -h has a short form, so nothing else can be meant.
func twoDashes(root *cobra.Command, args []string) []string {
	known := map[string]bool{"help": true, "version": true}
	var collect func(c *cobra.Command)
	collect = func(c *cobra.Command) {
		add := func(f *pflag.Flag) { known[f.Name] = true }
		c.Flags().VisitAll(add)
		c.PersistentFlags().VisitAll(add)
		for _, sub := range c.Commands() {
			collect(sub)
		}
	}
	collect(root)
	out := make([]string, len(args))
	for i, arg := range args {
		out[i] = arg
		if arg == "--" {
			copy(out[i:], args[i:])
			break
		}
		name, _, _ := strings.Cut(arg, "=")
		if len(name) > 2 && name[0] == '-' && known[name[1:]] {
			out[i] = "-" + arg
		}
	}
	return out
}

// noArguments, someArguments and storeArgument check what a command is given besides its
// flags.
func noArguments(c *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	if c.HasSubCommands() { // the word is not repeated: it may be a key
		if near := c.SuggestionsFor(args[0]); len(near) > 0 {
			return usage("%s has no such command; did you mean %s?", c.CommandPath(), strings.Join(near, " or "))
		}
		return usage("%s has no such command; see %s -help", c.CommandPath(), c.CommandPath())
	}
	return usage("%s takes no argument; see %s -help", c.CommandPath(), c.CommandPath())
}

func storeArgument(c *cobra.Command, args []string) error {
	if len(args) <= 1 {
		return nil
	}
	return usage("%s takes one argument at most, the store; see %s -help", c.CommandPath(), c.CommandPath())
}

func exactArguments(names ...string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if len(args) == len(names) {
			return nil
		}
		return usage("%s wants %s; see %s -help", c.CommandPath(), strings.Join(names, " and "), c.CommandPath())
	}
}

func must(err error) {
	if err != nil {
		panic(err) // a flag that is not there: a mistake in this program
	}
}
