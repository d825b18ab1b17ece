package main

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/examples/payments/service"
	"github.com/idemkv/idem/idemhttp"
)

// books are what the service's store says at the end.
type books struct {
	Ledger  []service.Payment
	Records map[string]record // by key
}

type record struct {
	State   idem.State
	Attempt int
	Result  []byte
}

func readBooks(ctx context.Context, store *idem.Store, l ledger) (b books, err error) {
	if b.Ledger, err = l.read(ctx); err != nil {
		return b, err
	}
	b.Records = make(map[string]record)
	for r, err := range store.Records(ctx, idem.Filter{}) {
		if err != nil {
			return b, err
		}
		b.Records[r.Key] = record{r.State, r.Attempt, r.Result}
	}
	return b, nil
}

// audit compares one ledger, and the records, with the payments that were to be made.
type audit struct {
	way                string
	once, twice, never int   // payments, by how often they were made; twice or more
	cents, due         int64 // what was paid, and what should have been
	trouble            []string
}

func (a *audit) complain(format string, args ...any) {
	a.trouble = append(a.trouble, a.way+": "+fmt.Sprintf(format, args...))
}

// check looks for each payment in the ledger, for its record, and for anything else that
// was paid.
func check(way string, want, ledger []service.Payment, records map[string]record) *audit {
	a := &audit{way: way}
	exact := way != careless // nothing is promised there
	by := make(map[string][]service.Payment)
	for i, p := range ledger {
		by[p.ID] = append(by[p.ID], p)
		a.cents += p.Cents
		if p.Number != uint64(i+1) {
			a.complain("line %d of the ledger is numbered %d", i+1, p.Number)
		}
	}
	for _, p := range want {
		key := clientKey(way, p.ID)
		lines := by[key]
		delete(by, key)
		a.due += p.Cents
		switch {
		case len(lines) == 0:
			a.never++
			a.complain("payment %s of %s was never made", p.ID, money(p.Cents))
		case len(lines) == 1:
			a.once++
		default:
			a.twice++
			if exact {
				a.complain("payment %s was made %d times", p.ID, len(lines))
			}
		}
		for _, l := range lines {
			if l.Cents != p.Cents || l.Account != p.Account {
				a.complain("payment %s of %s from %s was made as %s from %s", p.ID, money(p.Cents), p.Account, money(l.Cents), l.Account)
			}
		}
		a.checkRecord(p.ID, lines, records[storeKey(way, p.ID)])
	}
	for _, id := range slices.Sorted(maps.Keys(by)) {
		a.complain("%q was paid, and nobody asked for it", id)
	}
	if a.cents != a.due && exact {
		a.complain("off by %s: %s paid, %s due", money(a.cents-a.due), money(a.cents), money(a.due))
	}
	return a
}

// checkRecord: what was paid is completed with the receipt of that payment, what was not
// paid is not, and nothing is paid without a claim.
func (a *audit) checkRecord(id string, lines []service.Payment, r record) {
	if len(lines) > r.Attempt {
		a.complain("payment %s was made %d times under %d claims", id, len(lines), r.Attempt)
	}
	if r.State != idem.Completed {
		if len(lines) > 0 {
			a.complain("payment %s was made, its record is %s", id, r.State)
		}
		return
	}
	var replays idemhttp.Answer
	var receipt service.Payment
	err := replays.UnmarshalBinary(r.Result)
	if err == nil {
		err = json.Unmarshal(replays.Body, &receipt)
	}
	if err != nil || !slices.Contains(lines, receipt) {
		a.complain("the receipt of payment %s is in no ledger: %s", id, replays.Body)
	}
}
