package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// config is what the flags of the supervisor say.
type config struct {
	engine  string
	in      string
	n       int
	seed    uint64
	dir     string
	kills   int
	workers int
	timeout time.Duration
}

// supervisorMain runs the demo and returns its exit status: 0 if every payment
// was charged as it should be, 1 if not, 2 for bad flags, 130 if interrupted.
func supervisorMain(args []string) int {
	var c config
	flags := flag.NewFlagSet("payments", flag.ContinueOnError)
	flags.StringVar(&c.engine, "engine", "bolt", "`engine` of the store: bolt, pebble, or memory, which loses all when killed and so is not")
	flags.StringVar(&c.in, "in", "", "`file` of payments, one JSON object a line (- is standard input); default: generated ones")
	flags.IntVar(&c.n, "n", 2000, "how many payments to generate; each is made in four ways")
	flags.Uint64Var(&c.seed, "seed", 1, "of the generated payments and of the network's misbehaviour")
	flags.StringVar(&c.dir, "dir", "", "`directory` to work in and leave behind; default: a temporary one, removed at the end")
	flags.IntVar(&c.kills, "kills", 6, "how many times to kill the server")
	flags.IntVar(&c.workers, "workers", 32, "how many payments are under way at once")
	flags.DurationVar(&c.timeout, "timeout", 2*time.Minute, "give up after this long")
	flags.Usage = func() {
		fmt.Fprint(flags.Output(), "payments kills a payment service in the middle of its work and audits its ledgers.\n\n")
		flags.PrintDefaults()
	}
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if err := c.check(flags.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "payments:", err)
		return 2
	}

	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(interrupted, c.timeout)
	defer cancel()
	ok, err := supervise(ctx, c)
	switch {
	case interrupted.Err() != nil:
		fmt.Fprintln(os.Stderr, "payments: interrupted")
		return 130
	case ctx.Err() != nil:
		fmt.Fprintf(os.Stderr, "payments: not finished after %v; send fewer payments (-n) or give it longer (-timeout)\n", c.timeout)
		return 1
	case err != nil:
		fmt.Fprintln(os.Stderr, "payments:", err)
		return 1
	case !ok:
		return 1
	}
	return 0
}

func (c *config) check(rest []string) error {
	switch {
	case len(rest) > 0:
		return fmt.Errorf("what is %q? only flags are expected, see -help", rest[0])
	case c.engine != "bolt" && c.engine != "pebble" && c.engine != "memory":
		return fmt.Errorf("-engine %s: there are bolt, pebble and memory", c.engine)
	case c.n < 1:
		return fmt.Errorf("-n %d: at least one payment is needed", c.n)
	case c.kills < 0:
		return fmt.Errorf("-kills %d: cannot be negative", c.kills)
	case c.workers < 1:
		return fmt.Errorf("-workers %d: at least one is needed", c.workers)
	case c.timeout <= 0:
		return fmt.Errorf("-timeout %v: must be above zero", c.timeout)
	}
	if c.engine == "memory" {
		c.kills = 0
	}
	return nil
}

// payments reads the input, naming each line it skips, or generates it.
func (c config) payments() ([]payment, error) {
	if c.in == "" {
		return generate(c.n, c.seed), nil
	}
	in, name := os.Stdin, "standard input"
	if c.in != "-" {
		f, err := os.Open(c.in)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		in, name = f, c.in
	}
	payments, bad, err := readPayments(in)
	for _, b := range bad {
		fmt.Fprintf(os.Stderr, "%s, line %d: skipped: %v\n", name, b.line, b.err)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	if len(payments) == 0 {
		return nil, fmt.Errorf("%s has no payment; a line looks like {\"key\":\"order-1\",\"account\":\"alice\",\"amount_cents\":1999}", name)
	}
	fmt.Printf("%s: %d payments read, %d bad lines skipped\n", name, len(payments), len(bad))
	return payments, nil
}

// makeEmpty makes the directory and refuses one that has anything in it: payments
// of an earlier run would be in the ledger, and not in the audit.
func makeEmpty(dir string) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	entries, err := os.ReadDir(dir)
	if err == nil && len(entries) > 0 {
		err = fmt.Errorf("-dir %s is not empty; give a new one", dir)
	}
	return err
}

// saveFile writes payments for the clients to read.
func saveFile(name string, payments []payment) (err error) {
	f, err := os.Create(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	return writePayments(f, payments)
}
