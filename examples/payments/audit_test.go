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
	want   []payment
	books  books
	remote remoteBooks
}

func rightBooks(t *testing.T) *audited {
	a := &audited{
		want:  []payment{{"p1", "alice", 1000}, {"p2", "alice", 250}},
		books: books{Balances: map[string]int64{"alice": 1250}, Records: make(map[string]record)},
	}
	for i, p := range a.want {
		c := charge{uint64(i + 1), p.Key, p.Account, p.Cents}
		b, err := json.Marshal(receipt{charge: c})
		require.NoError(t, err)
		a.books.Charges = append(a.books.Charges, c)
		a.remote.charged = append(a.remote.charged, c)
		a.remote.arrived = append(a.remote.arrived, c)
		for _, route := range routes {
			a.books.Records[storeKey(route, p.Key)] = record{idem.Completed, 1, b}
		}
	}
	return a
}

func (a *audited) setRecord(route, key string, f func(*record)) {
	r := a.books.Records[storeKey(route, key)]
	f(&r)
	a.books.Records[storeKey(route, key)] = r
}

func TestAuditPassesWhatIsRight(t *testing.T) {
	t.Parallel()
	a := rightBooks(t)
	// A kill between charge and completion: the payment arrives again.
	a.remote.arrived = append(a.remote.arrived, charge{3, "p2", "alice", 250})
	a.setRecord(overNetwork, "p2", func(r *record) { r.Attempt = 2 })

	got := auditAll(a.want, a.books, a.remote)
	require.Empty(t, got.trouble)
	require.Equal(t, tally{once: 2, cents: 1250, want: 1250}, got.same)
	require.Equal(t, tally{once: 1, twice: 1, cents: 1500, want: 1250}, got.arrived)
	require.Equal(t, tally{once: 2, cents: 1250, want: 1250}, got.remote)
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
				`same-commit ledger: payment "p2" of 2.50 from "alice" was charged as 2.51 from "alice" (charge 2)`,
				"same-commit ledger: off by 0.01: 12.51 charged, 12.50 due",
				`same-commit ledger: payment "p2" has the receipt`,
			},
		},
		"a cent moved from one payment to another": {
			func(a *audited) { a.books.Charges[0].Cents--; a.books.Charges[1].Cents++ },
			[]string{`payment "p1" of 10.00 from "alice" was charged as 9.99`, `payment "p2" of 2.50 from "alice" was charged as 2.51`},
		},
		"a payment charged twice": {
			func(a *audited) {
				a.books.Charges = append(a.books.Charges, charge{3, "p1", "alice", 1000})
				a.books.Balances["alice"] += 1000
			},
			[]string{`same-commit ledger: payment "p1" was charged 2 times`, "off by 10.00"},
		},
		"a payment never charged": {
			func(a *audited) { a.books.Charges = a.books.Charges[:1]; a.books.Balances["alice"] = 1000 },
			[]string{
				`same-commit ledger: payment "p2" of 2.50 was never charged`, "off by -2.50",
				`payment "p2" is recorded as completed and not charged`,
			},
		},
		"a charge nobody asked for": {
			func(a *audited) {
				a.books.Charges = append(a.books.Charges, charge{3, "p9", "bob", 1})
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
			func(a *audited) { delete(a.books.Records, storeKey(sameCommit, "p1")) },
			[]string{`same-commit ledger: payment "p1" is charged, its record is none`},
		},
		"a record that never completed": {
			func(a *audited) { a.setRecord(overNetwork, "p1", func(r *record) { r.State = idem.InFlight }) },
			[]string{`remote ledger: payment "p1" is charged, its record is in_flight`},
		},
		"the receipt of another charge": {
			func(a *audited) {
				other := a.books.Records[storeKey(sameCommit, "p2")].Result
				a.setRecord(sameCommit, "p1", func(r *record) { r.Result = other })
			},
			[]string{`payment "p1" has the receipt {"charge":2`},
		},
		"an arrival without a claim": {
			func(a *audited) { a.remote.arrived = append(a.remote.arrived, charge{3, "p1", "alice", 1000}) },
			[]string{`remote ledger: payment "p1" arrived 2 times under 1 claims`},
		},
		"two owners at once": {
			func(a *audited) { a.remote.overlaps = 1 },
			[]string{"two owners of one claim"},
		},
		"the remote ledger charging twice": {
			func(a *audited) { a.remote.charged = append(a.remote.charged, charge{3, "p1", "alice", 1000}) },
			[]string{`remote ledger: payment "p1" was charged 2 times`, "remote ledger: off by 10.00"},
		},
		"a payment that never arrived": {
			func(a *audited) { a.remote.arrived, a.remote.charged = a.remote.arrived[:1], a.remote.charged[:1] },
			[]string{`arrivals at the remote ledger: payment "p2" of 2.50 was never charged`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := rightBooks(t)
			tc.spoil(a)
			trouble := auditAll(a.want, a.books, a.remote).trouble
			require.NotEmpty(t, trouble)
			for _, says := range tc.says {
				require.Contains(t, strings.Join(trouble, "\n"), says)
			}
		})
	}
}
