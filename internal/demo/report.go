package main

import (
	"fmt"
	"io"
	"strconv"
	"sync"

	"github.com/idemkv/idem"
)

// Rows of the report that are counted while the clients are at work. Every request ends
// in one of the second group.
const (
	requests = "requests"
	retries  = "retries by idemhttp.Transport"

	made       = "  payment made"
	replayed   = "  replay of the stored answer"
	mismatched = "  refused: key of another payment (422)"
	notNow     = "  refused for now (409, 502, 503)"
	unknown    = "  refused: outcome unknown (500)"
	lost       = "  answer lost by the network"
	unanswered = "  no answer: server dead, or died"

	accepted    = "answered" // payments
	outcomeHeld = "  held at first, then settled"
)

var (
	inFlight  = idem.ClaimInFlight.String()
	takenOver = idem.ClaimTakeover.String()
)

// tally counts, and keeps what must not happen and did.
type tally struct {
	mu      sync.Mutex
	counts  map[[2]string]int // by row and way
	trouble []string
}

func newTally() *tally { return &tally{counts: make(map[[2]string]int)} }

func (t *tally) count(row, way string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.counts[[2]string{row, way}]++
}

func (t *tally) get(row string, ways ...string) (n int) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, way := range ways {
		n += t.counts[[2]string{row, way}]
	}
	return n
}

func (t *tally) complain(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.trouble = append(t.trouble, fmt.Sprintf(format, args...))
}

// report prints all that there is to show at the end.
func report(w io.Writer, t *tally, kills, payments int, settled settled, audits []*audit) {
	row := func(name string, cell func(i int) string) {
		fmt.Fprintf(w, "  %-38s", name)
		for i := range ways {
			fmt.Fprintf(w, " %16s", cell(i))
		}
		fmt.Fprintln(w)
	}
	texts := func(name string, cells ...string) { row(name, func(i int) string { return cells[i] }) }
	count := func(key, name string) { row(name, func(i int) string { return strconv.Itoa(t.get(key, ways[i])) }) }
	audited := func(name string, n func(*audit) int) {
		row(name, func(i int) string { return strconv.Itoa(n(audits[i])) })
	}

	fmt.Fprintln(w)
	texts("", ways...)
	texts("can an attempt be repeated?", "one commit: yes", "bank's key: yes", "no", "no")
	texts("so an attempt that was killed", "runs again", "runs again", "is held", "runs again")
	fmt.Fprintln(w)
	for _, name := range []string{requests, made, replayed, mismatched, notNow, unknown, lost, unanswered, retries} {
		count(name, name)
	}
	count(inFlight, "duplicates that met one in flight")
	count(takenOver, "takeovers of a dead attempt's claim")
	row("kills survived", func(int) string { return strconv.Itoa(kills) })
	fmt.Fprintln(w)
	row("payments", func(int) string { return strconv.Itoa(payments) })
	count(outcomeHeld, outcomeHeld)
	audited("  made exactly once", func(a *audit) int { return a.once })
	audited("  made twice or more", func(a *audit) int { return a.twice })
	audited("  never made", func(a *audit) int { return a.never })
	row("paid in all", func(i int) string { return money(audits[i].cents) })
	row("off by", func(i int) string { return money(audits[i].cents - audits[i].due) })
	fmt.Fprintln(w)
	fmt.Fprintf(w, "The first three ways promise that every payment is made exactly once.\n"+
		"%s: of %d payments that were held, the bank's statement had %d; the other %d were made when\n"+
		"their clients asked again. %s promises nothing: it is what a lock, or a key alone, gives you.\n",
		held, settled.total(), len(settled.paid), len(settled.never), careless)
}

// maxTrouble is how much trouble is listed; the rest is only counted.
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
