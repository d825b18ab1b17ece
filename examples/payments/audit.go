package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/idemkv/idem"
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
			return b, fmt.Errorf("record %s: %w", idem.KeyHash(r.Key), err)
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
	same    tally // the ledger in the same commit
	arrived tally // what a remote ledger without keys would have charged
	remote  tally // the remote ledger, which checks the derived key
	trouble []string
}

// auditAll compares the ledgers and the records with the payments that were to
// be made, each once.
func auditAll(want []payment, b books, r remoteBooks) audit {
	var a audit
	a.same = a.check("same-commit ledger", want, b.Charges, false)
	a.checkBalances(b)
	a.checkRecords("same-commit ledger", sameCommit, want, b.Charges, b.Records)

	// Only what arrives is up to us: a payment may arrive once for each claim.
	a.arrived = a.check("arrivals at the remote ledger", want, r.arrived, true)
	a.checkAttempts(want, r.arrived, b.Records)
	if r.overlaps > 0 {
		a.complain("remote ledger: a payment was being charged by two requests at once, %d times: two owners of one claim", r.overlaps)
	}
	a.remote = a.check("remote ledger", want, r.charged, false)
	a.checkRecords("remote ledger", overNetwork, want, r.charged, b.Records)
	return a
}

func (a *audit) complain(format string, args ...any) {
	a.trouble = append(a.trouble, fmt.Sprintf(format, args...))
}

// check looks for every payment in the charges, and for charges of anything else.
func (a *audit) check(name string, want []payment, got []charge, mayRepeat bool) tally {
	by := byPayment(got)
	var t tally
	for _, p := range want {
		t.want += p.Cents
		charges := by[p.Key]
		delete(by, p.Key)
		switch {
		case len(charges) == 0:
			t.never++
			a.complain("%s: payment %q of %s was never charged", name, p.Key, money(p.Cents))
		case len(charges) == 1:
			t.once++
		default:
			t.twice++
			if !mayRepeat {
				a.complain("%s: payment %q was charged %d times", name, p.Key, len(charges))
			}
		}
		for _, c := range charges {
			if c.Cents != p.Cents || c.Account != p.Account {
				a.complain("%s: payment %q of %s from %q was charged as %s from %q (charge %d)",
					name, p.Key, money(p.Cents), p.Account, money(c.Cents), c.Account, c.Number)
			}
		}
	}
	for _, key := range slices.Sorted(maps.Keys(by)) {
		for _, c := range by[key] {
			a.complain("%s: charge %d of %s is for %q, a payment nobody made", name, c.Number, money(c.Cents), key)
		}
	}
	for _, c := range got {
		t.cents += c.Cents
	}
	if t.cents != t.want && !mayRepeat {
		a.complain("%s: off by %s: %s charged, %s due", name, money(t.cents-t.want), money(t.cents), money(t.want))
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
			a.complain("same-commit ledger: the balance of %q is %s, its charges add up to %s",
				account, money(b.Balances[account]), money(sums[account]))
		}
	}
}

// checkRecords: what is charged is completed, with the receipt of that very
// charge, and what is not charged is not.
func (a *audit) checkRecords(name, route string, want []payment, got []charge, records map[string]record) {
	by := byPayment(got)
	for _, p := range want {
		r, charges := records[storeKey(route, p.Key)], by[p.Key]
		switch {
		case r.State != idem.Completed:
			if len(charges) > 0 {
				a.complain("%s: payment %q is charged, its record is %s", name, p.Key, r.State)
			}
		case len(charges) == 0:
			a.complain("%s: payment %q is recorded as completed and not charged", name, p.Key)
		default:
			var shown receipt
			if err := json.Unmarshal(r.Result, &shown); err != nil || !slices.Contains(charges, shown.charge) {
				a.complain("%s: payment %q has the receipt %s, the ledger has charge %d of %s",
					name, p.Key, r.Result, charges[0].Number, money(charges[0].Cents))
			}
		}
	}
}

// checkAttempts: nothing arrives at the remote ledger without a claim.
func (a *audit) checkAttempts(want []payment, arrived []charge, records map[string]record) {
	by := byPayment(arrived)
	for _, p := range want {
		if n, claims := len(by[p.Key]), records[storeKey(overNetwork, p.Key)].Attempt; n > claims {
			a.complain("remote ledger: payment %q arrived %d times under %d claims", p.Key, n, claims)
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
