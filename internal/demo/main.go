// Command demo kills the payment service of examples/payments with SIGKILL, again and
// again, while clients retry over a bad network. Then it audits the ledgers: how often
// was each payment made?
//
//	go run ./internal/demo
//	go run ./internal/demo -engine pebble -kills 12
//
// Every payment is made in four ways. They differ in what happens after a crash, when
// nobody knows how far the attempt had come:
//
//   - payments: the service's own ledger. Charge and completion are one commit, so an
//     attempt that was killed has done nothing and runs again. Exact.
//   - payouts: a bank that checks keys. The key is the same on every attempt, so the
//     attempt runs again and the bank recognizes the order. Exact.
//   - payouts-held: a bank that ignores keys, and the default of idemhttp. The attempt
//     does not run again: it is held until settle.go resolves it from the bank's
//     statement. Exact, but somebody has to settle.
//   - payouts-careless: the same bank, and the attempt runs again anyway, which is what a
//     lock or a key alone gives you. Some payments are made twice, and the audit shows
//     that it can tell.
//
// The first two routes are the example's own Handler. The other two wrap its Payout in
// other options. The program runs as two processes: the service ("demo server"), which is
// killed and restarted, and the supervisor, which is also the clients, the network and
// the banks. The exit status is 0 only if the first three ways are right to the cent.
//
// A kill ends the process, not the machine. The engines' own tests cut the power.
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

func main() { os.Exit(run(os.Args[1:], openStore)) }

// run plays the part that args ask for and returns the exit status. open is how the
// server opens its store and ledger.
func run(args []string, open opener) int {
	if len(args) > 0 && args[0] == "server" {
		return serverMain(args[1:], open)
	}
	return supervisorMain(args)
}

// config is what the flags say.
type config struct {
	engine  string
	n       int
	kills   int
	seed    uint64
	timeout time.Duration
}

// supervisorMain returns 0 if every payment is made as it should be, 1 if not, 2 for bad
// flags and 130 if interrupted.
func supervisorMain(args []string) int {
	var c config
	flags := flag.NewFlagSet("demo", flag.ContinueOnError)
	flags.StringVar(&c.engine, "engine", "bolt", "`engine` of the store: bolt, pebble, or memory, which forgets all when killed and so is not")
	flags.IntVar(&c.n, "n", 2000, "how many payments; each is made in four ways")
	flags.IntVar(&c.kills, "kills", 6, "how often to kill the service")
	flags.Uint64Var(&c.seed, "seed", 1, "of the payments and of the clients' behaviour")
	flags.DurationVar(&c.timeout, "timeout", 5*time.Minute, "give up after this long")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		return 0
	case err != nil:
		return 2
	}
	if err := c.check(flags.Args()); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		return 2
	}
	interrupted, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(interrupted, c.timeout)
	defer cancel()
	ok, err := supervise(ctx, c)
	switch {
	case interrupted.Err() != nil:
		fmt.Fprintln(os.Stderr, "demo: interrupted")
		return 130
	case ctx.Err() != nil:
		err = fmt.Errorf("not finished after %v; make fewer payments (-n) or give it longer (-timeout)", c.timeout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
	}
	if err != nil || !ok {
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
	}
	if c.engine == "memory" {
		c.kills = 0
	}
	return nil
}
