// Command payments shows idem doing its main job on traffic as it really is: a
// payment service is killed with SIGKILL again and again in the middle of
// duplicates, lost answers and retries, and at the end an audit counts how often
// each payment was charged.
//
//	go run ./examples/payments
//	go run ./examples/payments -engine pebble -kills 12
//	go run ./examples/payments -in payments.jsonl
//
// Every request goes through idemhttp, in the service (server.go) and in the client
// (client.go). That makes one attempt run at a time, and retries get the first
// answer. What it cannot know is how far an attempt had come that was killed. So each
// payment is made in four ways, which differ in what a careful service does then:
//
//   - own-ledger: the charge, the end of the operation and its answer are one commit
//     (bolt.Complete, pebble.Complete). An attempt that was killed has done nothing,
//     and is run again. Exact.
//   - bank-with-keys: another company charges, and checks a key that is derived from
//     the client's and the same on every attempt (Operation.DownstreamKey). An attempt
//     that was killed is run again, and the bank knows it again. Exact.
//   - bank-held: a bank that checks nothing, and the default of idemhttp: the outcome
//     of an attempt that was killed is unknown, so it is held and not run again, until
//     it is settled from the bank's statement (settle.go). Exact, but somebody must.
//   - bank-careless: the same bank, and an attempt that was killed is run again all the
//     same. This is what a lock, or a key alone, gives: some are charged twice.
//
// The pages to copy are server.go, ledger_bolt.go, bankclient.go, settle.go and
// client.go. The rest is traffic, kills and the audit.
//
// One binary plays three parts, each a process of its own: the supervisor (no
// sub-command) starts the other two, kills and restarts the server, settles, audits
// and prints the table; "server" is the service; "client" is all of its clients. The
// banks run inside the supervisor, because they have to outlive the server. Everything
// listens on loopback only. The exit status is 0 only if the first three ways are right
// to the cent.
//
// A kill takes the process and not the machine: what a power cut does is for the
// tests of the engines.
//
// The input is one JSON object a line. key is 1 to 240 visible ASCII characters
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
