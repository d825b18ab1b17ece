// Command payments shows idem doing its main job on traffic as it really is: a
// payment service is killed with SIGKILL again and again in the middle of
// duplicates, dropped answers and retries, and at the end every payment has been
// charged once, to the cent.
//
//	go run ./examples/payments
//	go run ./examples/payments -engine pebble -kills 6
//	go run ./examples/payments -in payments.jsonl
//
// One binary plays three parts, each a process of its own:
//
//   - the supervisor (no sub-command) starts the other two, kills and restarts the
//     server, audits the ledgers at the end and prints the table. Its exit status
//     is 0 only if the same-commit ledger is right to the cent;
//   - "server" is the payment service. On POST /payments it charges a ledger in
//     the same database and the same commit as the idempotency record (bolt.Do,
//     pebble.Do). On POST /remote-payments it charges a ledger over the network,
//     where a claim and a derived key protect;
//   - "client" sends every payment to both routes, the way networks do it.
//
// The remote ledger runs inside the supervisor, because it has to outlive the
// server. Everything listens on loopback only.
//
// A kill takes the process and not the machine: what a power cut does is for the
// tests of the engines.
//
// The input is one JSON object a line. key is 1 to 255 visible ASCII characters
// without spaces, account is any text, amount_cents a whole number above zero;
// other fields are ignored. A key may come again: with the same payment it is a
// retry, with another one it must be refused.
//
//	{"key":"order-1001","account":"alice","amount_cents":1999}
package main

import "os"

func main() { os.Exit(run(os.Args[1:], openLedger)) }

// run plays the part args ask for and returns the exit status. open is how the
// server opens its store and ledger.
func run(args []string, open opener) int {
	if len(args) > 0 {
		switch args[0] {
		case "server":
			return serverMain(args[1:], open)
		case "client":
			return clientMain(args[1:])
		}
	}
	return supervisorMain(args)
}
