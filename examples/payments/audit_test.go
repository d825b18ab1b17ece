package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/idemkv/idem"
	"github.com/stretchr/testify/require"
)

// audited is everything the audit looks at, for two payments, and right.
type audited struct {
	want  []payment
	books books
	at    map[string]*bankBooks
}

func rightBooks(t *testing.T) *audited {
	a := &audited{
		want:  []payment{{"p1", "alice", 1000}, {"p2", "alice", 250}},
		books: books{Balances: map[string]int64{"alice": 1250}, Records: make(map[string]record)},
		at:    make(map[string]*bankBooks),
	}
	for _, route := range routes {
		a.at[route] = new(bankBooks)
		for i, p := range a.want {
			c := charge{uint64(i + 1), clientKey(route, p.Key), p.Account, p.Cents, ""}
			if route == ownLedger {
				a.books.Charges = append(a.books.Charges, c)
			} else {
				c.Reference = idem.DownstreamKey(storeKey(route, p.Key), "charge")
				a.at[route].charges = append(a.at[route].charges, c)
			}
			shown, err := json.Marshal(receipt{charge: c})
			require.NoError(t, err)
			result, err := paid(shown)
			require.NoError(t, err)
			a.books.Records[storeKey(route, p.Key)] = record{idem.Completed, 1, result}
		}
	}
	return a
}

func (a *audited) audit() audit {
	at := make(map[string]bankBooks)
	for route, b := range a.at {
		at[route] = *b
	}
	return auditAll(a.want, a.books, at)
}

func (a *audited) setRecord(route, key string, f func(*record)) {
	r := a.books.Records[storeKey(route, key)]
	f(&r)
	a.books.Records[storeKey(route, key)] = r
}

// chargeAgain charges p1 once more, at a bank.
func (a *audited) chargeAgain(route string) {
	b := a.at[route]
	c := b.charges[0]
	c.Number = uint64(len(b.charges) + 1)
	b.charges = append(b.charges, c)
}

func TestAuditPassesWhatIsRight(t *testing.T) {
	t.Parallel()
	a := rightBooks(t)
	// A kill between charge and completion, where nothing is promised.
	a.chargeAgain(bankCareless)
	a.setRecord(bankCareless, "p1", func(r *record) { r.Attempt = 2 })

	got := a.audit()
	require.Empty(t, got.trouble)
	right := tally{once: 2, cents: 1250, want: 1250}
	require.Equal(t, map[string]tally{
		ownLedger: right, bankWithKeys: right, bankHeld: right,
		bankCareless: {once: 1, twice: 1, cents: 2250, want: 1250},
	}, got.tallies)
}

func TestAuditFinds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		spoil func(*audited)
		says  []string
	}{
		"a cent too much": {
			func(a *audited) { a.books.Charges[1].Cents++; a.books.Balances["alice"]++ },
			[]string{
				`own-ledger: payment "p2" of 2.50 from "alice" was charged as 2.51 from "alice" (charge 2)`,
				"own-ledger: off by 0.01: 12.51 charged, 12.50 due",
				`own-ledger: payment "p2" has the receipt`,
			},
		},
		"a cent moved from one payment to another": {
			func(a *audited) { a.books.Charges[0].Cents--; a.books.Charges[1].Cents++ },
			[]string{`payment "p1" of 10.00 from "alice" was charged as 9.99`, `payment "p2" of 2.50 from "alice" was charged as 2.51`},
		},
		"a payment charged twice": {
			func(a *audited) {
				a.books.Charges = append(a.books.Charges, charge{3, "own-ledger:p1", "alice", 1000, ""})
				a.books.Balances["alice"] += 1000
			},
			[]string{`own-ledger: payment "p1" was charged 2 times`, "off by 10.00"},
		},
		"a payment never charged": {
			func(a *audited) { a.books.Charges = a.books.Charges[:1]; a.books.Balances["alice"] = 1000 },
			[]string{
				`own-ledger: payment "p2" of 2.50 was never charged`, "off by -2.50",
				`payment "p2" is recorded as completed and not charged`,
			},
		},
		"a charge nobody asked for": {
			func(a *audited) {
				a.books.Charges = append(a.books.Charges, charge{3, "p9", "bob", 1, ""})
				a.books.Balances["bob"] = 1
			},
			[]string{`charge 3 of 0.01 is for "p9", a payment nobody made`, "off by 0.01"},
		},
		"the wrong account": {
			func(a *audited) {
				a.books.Charges[1].Account = "bob"
				a.books.Balances = map[string]int64{"alice": 1000, "bob": 250}
			},
			[]string{`was charged as 2.50 from "bob"`},
		},
		"a lost update of a balance": {
			func(a *audited) { a.books.Balances["alice"] = 1000 },
			[]string{`the balance of "alice" is 10.00, its charges add up to 12.50`},
		},
		"a balance out of nothing": {
			func(a *audited) { a.books.Balances["eve"] = 7 },
			[]string{`the balance of "eve" is 0.07, its charges add up to 0.00`},
		},
		"a charge without its record": {
			func(a *audited) { delete(a.books.Records, storeKey(ownLedger, "p1")) },
			[]string{`own-ledger: payment "p1" is charged, its record is none`},
		},
		"a record that never completed": {
			func(a *audited) { a.setRecord(bankWithKeys, "p1", func(r *record) { r.State = idem.InFlight }) },
			[]string{`bank-with-keys: payment "p1" is charged, its record is in_flight`},
		},
		"the receipt of another charge": {
			func(a *audited) {
				other := a.books.Records[storeKey(ownLedger, "p2")].Result
				a.setRecord(ownLedger, "p1", func(r *record) { r.Result = other })
			},
			[]string{`payment "p1" has the receipt {"charge":2`},
		},
		"a charge without a claim": {
			func(a *audited) { a.chargeAgain(bankCareless) },
			[]string{`bank-careless: payment "p1" was charged 2 times under 1 claims`},
		},
		"two owners at once": {
			func(a *audited) { a.at[bankCareless].overlaps = 1 },
			[]string{"bank-careless: a payment was being charged by two requests at once", "two owners of one claim"},
		},
		"the bank with keys charging twice": {
			func(a *audited) {
				a.chargeAgain(bankWithKeys)
				a.setRecord(bankWithKeys, "p1", func(r *record) { r.Attempt = 2 })
			},
			[]string{`bank-with-keys: payment "p1" was charged 2 times`, "bank-with-keys: off by 10.00"},
		},
		"a guess where payments are held": {
			func(a *audited) {
				a.chargeAgain(bankHeld)
				a.setRecord(bankHeld, "p1", func(r *record) { r.Attempt = 2 })
			},
			[]string{`bank-held: payment "p1" was charged 2 times`, "bank-held: off by 10.00"},
		},
		"a held payment settled without its charge": {
			func(a *audited) { a.at[bankHeld].charges = a.at[bankHeld].charges[:1] },
			[]string{`bank-held: payment "p2" of 2.50 was never charged`, `bank-held: payment "p2" is recorded as completed and not charged`},
		},
		"a payment never charged where nothing is promised": {
			func(a *audited) { a.at[bankCareless].charges = a.at[bankCareless].charges[:1] },
			[]string{`bank-careless: payment "p2" of 2.50 was never charged`},
		},
		"an answer that is none": {
			func(a *audited) { a.setRecord(bankHeld, "p1", func(r *record) { r.Result = []byte("paid") }) },
			[]string{`bank-held: payment "p1" has the receipt`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := rightBooks(t)
			tc.spoil(a)
			trouble := a.audit().trouble
			require.NotEmpty(t, trouble)
			for _, says := range tc.says {
				require.Contains(t, strings.Join(trouble, "\n"), says)
			}
		})
	}
}
