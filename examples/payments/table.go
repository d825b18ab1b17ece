package main

import (
	"fmt"
	"io"
	"strconv"
)

// result is all there is to show at the end.
type result struct {
	payments  int // on each route
	counts    map[string]*counts
	takeovers map[string]int // by route
	kills     int
	wanted    int // kills asked for
	stale     int
	audit     audit
}

func (r result) print(w io.Writer) {
	same, remote := r.counts[sameCommit], r.counts[overNetwork]
	row := func(name string, cells ...string) {
		fmt.Fprintf(w, "  %-42s", name)
		for _, c := range cells {
			fmt.Fprintf(w, " %17s", c)
		}
		fmt.Fprintln(w)
	}
	count := func(name string, n func(*counts) int) {
		row(name, strconv.Itoa(n(same)), strconv.Itoa(n(remote)))
	}

	fmt.Fprintln(w)
	row("traffic", "same commit", "over network")
	row("payments", strconv.Itoa(r.payments), strconv.Itoa(r.payments))
	count("requests", func(n *counts) int { return n.Requests })
	count("  payment made", func(n *counts) int { return n.Made })
	count("  replays: the stored receipt again", func(n *counts) int { return n.Replayed })
	count("  duplicates refused: in flight (409)", func(n *counts) int { return n.InFlight })
	count("  mismatches: another payment's key (422)", func(n *counts) int { return n.Mismatched })
	count("  refused for now (503)", func(n *counts) int { return n.NotNow })
	count("  answers dropped by the client", func(n *counts) int { return n.Dropped })
	count("  no answer: server dead, or died", func(n *counts) int { return n.Unanswered })
	count("retries among the requests", func(n *counts) int { return n.Retries })
	row("takeovers of a dead attempt's claim", strconv.Itoa(r.takeovers[sameCommit]), strconv.Itoa(r.takeovers[overNetwork]))
	kills := strconv.Itoa(r.kills)
	if r.kills != r.wanted {
		kills += " of " + strconv.Itoa(r.wanted)
	}
	row("kills survived", kills, kills)
	fmt.Fprintln(w)

	a := r.audit
	tallies := []tally{a.same, a.arrived, a.remote}
	ledgers := func(name string, cell func(tally) string) {
		cells := make([]string, len(tallies))
		for i, t := range tallies {
			cells[i] = cell(t)
		}
		row(name, cells...)
	}
	row("ledgers", "same commit", "network:", "network: claim")
	row("", "", "claim alone", "+ derived key")
	ledgers("charged exactly once", func(t tally) string { return strconv.Itoa(t.once) })
	ledgers("charged twice or more", func(t tally) string { return strconv.Itoa(t.twice) })
	ledgers("never charged", func(t tally) string { return strconv.Itoa(t.never) })
	ledgers("charged in all", func(t tally) string { return money(t.cents) })
	ledgers("off by", func(t tally) string { return money(t.cents - t.want) })
	fmt.Fprintln(w)

	if r.stale > 0 {
		fmt.Fprintf(w, "The remote ledger turned away %d requests whose claim had been taken over, by their fence.\n", r.stale)
	}
	if a.arrived.twice > 0 {
		fmt.Fprintf(w, "%d payments reached the remote ledger more than once: the server was killed after the\n"+
			"charge and before it could record it. No claim can prevent that; the derived key did.\n", a.arrived.twice)
	}
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
