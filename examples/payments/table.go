package main

import (
	"fmt"
	"io"
	"strconv"

	"github.com/idemkv/idem"
)

// result is all there is to show at the end.
type result struct {
	payments int // on each route
	counts   map[string]*counts
	events   map[event]int
	kills    int
	wanted   int // kills asked for
	settled  settled
	audit    audit
}

func (r result) print(w io.Writer) {
	row := func(name string, cell func(route string) string) {
		fmt.Fprintf(w, "  %-38s", name)
		for _, route := range routes {
			fmt.Fprintf(w, " %15s", cell(route))
		}
		fmt.Fprintln(w)
	}
	texts := func(name string, cells ...string) {
		row(name, func(route string) (text string) { text, cells = cells[0], cells[1:]; return text })
	}
	count := func(name string, n func(*counts) int) {
		row(name, func(route string) string { return strconv.Itoa(n(r.counts[route])) })
	}
	events := func(name string, kind idem.EventKind) {
		row(name, func(route string) string { return strconv.Itoa(r.events[event{kind.String(), route}]) })
	}
	ledgers := func(name string, cell func(tally) string) {
		row(name, func(route string) string { return cell(r.audit.tallies[route]) })
	}

	fmt.Fprintln(w)
	texts("", routes...)
	texts("can an attempt be repeated?", "one commit: yes", "bank's key: yes", "no", "no")
	texts("so one that was killed is", "run again", "run again", "held", "run again")
	fmt.Fprintln(w)
	count("requests", func(n *counts) int { return n.Requests })
	count("  payment made", func(n *counts) int { return n.Made })
	count("  replays: the stored receipt again", func(n *counts) int { return n.Replayed })
	count("  mismatches: another's key (422)", func(n *counts) int { return n.Mismatched })
	count("  refused for now (409, 502, 503)", func(n *counts) int { return n.NotNow })
	count("  outcome unknown (500)", func(n *counts) int { return n.Unknown })
	count("  answer lost by the network", func(n *counts) int { return n.Lost })
	count("  no answer: server dead, or died", func(n *counts) int { return n.Unanswered })
	count("retries, made by idemhttp.Transport", func(n *counts) int { return n.Retries })
	events("duplicates that met one in flight", idem.ClaimInFlight)
	events("takeovers of a dead attempt's claim", idem.ClaimTakeover)
	kills := strconv.Itoa(r.kills)
	if r.kills != r.wanted {
		kills += " of " + strconv.Itoa(r.wanted)
	}
	row("kills survived", func(string) string { return kills })
	fmt.Fprintln(w)

	row("payments", func(string) string { return strconv.Itoa(r.payments) })
	count("  held at first, then settled", func(n *counts) int { return n.Held })
	ledgers("  charged exactly once", func(t tally) string { return strconv.Itoa(t.once) })
	ledgers("  charged twice or more", func(t tally) string { return strconv.Itoa(t.twice) })
	ledgers("  never charged", func(t tally) string { return strconv.Itoa(t.never) })
	ledgers("charged in all", func(t tally) string { return money(t.cents) })
	ledgers("off by", func(t tally) string { return money(t.cents - t.want) })
	fmt.Fprintln(w)
	r.explain(w)
}

// explain says what the table means.
func (r result) explain(w io.Writer) {
	say := func(route string, lines ...string) {
		for _, line := range lines {
			fmt.Fprintf(w, "%-15s %s\n", route, line)
			route = ""
		}
	}
	say(ownLedger, "Charge and answer are one commit of the service's own database, so that a",
		"killed attempt has done nothing. Promised: exactly once.")
	say(bankWithKeys, "The bank is shown a key that is the same on every attempt, and checks it.",
		"Promised: exactly once.")
	say(bankHeld, "The bank checks nothing, and an attempt that was killed is not run again on a",
		"guess: the default of idemhttp. Promised: exactly once, when what is held has been",
		fmt.Sprintf("settled. Held: %d. On the bank's statement, so charged: %d. Not on it, so paid when",
			r.settled.total(), len(r.settled.charged)),
		fmt.Sprintf("the client asked again: %d.", len(r.settled.never)))
	say(bankCareless, "The same bank, and attempts are run again all the same. Nothing is promised.",
		fmt.Sprintf("Charged twice or more: %d.", r.audit.tallies[bankCareless].twice))
}

// maxTrouble is how much trouble is listed, before it is only counted.
const maxTrouble = 20

func printTrouble(w io.Writer, trouble []string) {
	for i, t := range trouble {
		if i == maxTrouble {
			fmt.Fprintf(w, "FAIL: … and %d more\n", len(trouble)-maxTrouble)
			return
		}
		fmt.Fprintln(w, "FAIL:", t)
	}
}
