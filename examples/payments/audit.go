package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// books is what the service's database says at the end.
type books struct {
	Charges  []charge
	Balances map[string]int64
	Records  map[string]record // by key in the store
}

// record is what the audit wants of an idem.Record.
type record struct {
	State   idem.State
	Attempt int
	Result  []byte
}

func readBooks(ctx context.Context, store *idem.Store, l ledger) (b books, err error) {
	if b.Charges, b.Balances, err = l.read(); err != nil {
		return b, err
	}
	b.Records = make(map[string]record)
	for r, err := range store.Records(ctx, idem.Filter{}) {
		if err != nil {
			return b, fmt.Errorf("a record: %w", err)
		}
		b.Records[r.Key] = record{r.State, r.Attempt, r.Result}
	}
	return b, nil
}

// tally is the audit of one ledger.
type tally struct {
	once, twice, never int   // payments, by how often they were charged; twice or more
	cents, want        int64 // sum of the charges, and what it should be
}

// audit is the outcome.
type audit struct {
	tallies map[string]tally // by route
	trouble []string
}

// auditAll compares the ledgers and the records with the payments that were to be
// made, each once on every route.
func auditAll(want []payment, b books, at map[string]bankBooks) audit {
	a := audit{tallies: make(map[string]tally)}
	for _, route := range routes {
		charges := b.Charges
		if route != ownLedger {
			charges = at[route].charges
		}
		a.tallies[route] = a.check(route, want, charges)
		a.checkRecords(route, want, charges, b.Records)
		if n := at[route].overlaps; n > 0 {
			a.complain("%s: a payment was being charged by two requests at once, %d times: two owners of one claim", route, n)
		}
	}
	a.checkBalances(b)
	return a
}

func (a *audit) complain(format string, args ...any) {
	a.trouble = append(a.trouble, fmt.Sprintf(format, args...))
}

// check looks for every payment in the charges, and for charges of anything else.
func (a *audit) check(route string, want []payment, got []charge) tally {
	mayRepeat := route == bankCareless // nothing is promised there
	by := byPayment(got)
	var t tally
	for _, p := range want {
		t.want += p.Cents
		charges := by[clientKey(route, p.Key)]
		delete(by, clientKey(route, p.Key))
		switch {
		case len(charges) == 0:
			t.never++
			a.complain("%s: payment %q of %s was never charged", route, p.Key, money(p.Cents))
		case len(charges) == 1:
			t.once++
		default:
			t.twice++
			if !mayRepeat {
				a.complain("%s: payment %q was charged %d times", route, p.Key, len(charges))
			}
		}
		for _, c := range charges {
			if c.Cents != p.Cents || c.Account != p.Account {
				a.complain("%s: payment %q of %s from %q was charged as %s from %q (charge %d)",
					route, p.Key, money(p.Cents), p.Account, money(c.Cents), c.Account, c.Number)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(by)) {
		for _, c := range by[key] {
			a.complain("%s: charge %d of %s is for %q, a payment nobody made", route, c.Number, money(c.Cents), key)
		}
	}
	for _, c := range got {
		t.cents += c.Cents
	}
	if t.cents != t.want && !mayRepeat {
		a.complain("%s: off by %s: %s charged, %s due", route, money(t.cents-t.want), money(t.cents), money(t.want))
	}
	return t
}

// checkBalances: an update of a balance that another one overwrote is seen here.
func (a *audit) checkBalances(b books) {
	sums := make(map[string]int64)
	for _, c := range b.Charges {
		sums[c.Account] += c.Cents
	}
	for account := range b.Balances {
		sums[account] += 0 // a balance without charges is looked at too
	}
	for _, account := range slices.Sorted(maps.Keys(sums)) {
		if sums[account] != b.Balances[account] {
			a.complain("%s: the balance of %q is %s, its charges add up to %s",
				ownLedger, account, money(b.Balances[account]), money(sums[account]))
		}
	}
}

// checkRecords: what is charged is completed, with the receipt of that very charge,
// what is not charged is not, and nothing is charged without a claim.
func (a *audit) checkRecords(route string, want []payment, got []charge, records map[string]record) {
	by := byPayment(got)
	for _, p := range want {
		r, charges := records[storeKey(route, p.Key)], by[clientKey(route, p.Key)]
		if len(charges) > r.Attempt {
			a.complain("%s: payment %q was charged %d times under %d claims", route, p.Key, len(charges), r.Attempt)
		}
		switch {
		case r.State != idem.Completed:
			if len(charges) > 0 {
				a.complain("%s: payment %q is charged, its record is %s", route, p.Key, r.State)
			}
		case len(charges) == 0:
			a.complain("%s: payment %q is recorded as completed and not charged", route, p.Key)
		default:
			var replays idemhttp.Answer
			var shown receipt
			err := replays.UnmarshalBinary(r.Result)
			if err == nil {
				err = json.Unmarshal(replays.Body, &shown)
			}
			if err != nil || !slices.Contains(charges, shown.charge) {
				a.complain("%s: payment %q has the receipt %s, the ledger has charge %d of %s",
					route, p.Key, replays.Body, charges[0].Number, money(charges[0].Cents))
			}
		}
	}
}

func byPayment(charges []charge) map[string][]charge {
	by := make(map[string][]charge)
	for _, c := range charges {
		by[c.Payment] = append(by[c.Payment], c)
	}
	return by
}
