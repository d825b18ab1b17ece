package main

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/examples/payments/service"
)

// audited is all that the audit looks at, for two payments, and right.
type audited struct {
	want, ledger []service.Payment
	records      map[string]record
}

func rightBooks(t *testing.T, way string) *audited {
	a := &audited{
		want:    []service.Payment{{ID: "p1", Account: "alice", Cents: 1000}, {ID: "p2", Account: "alice", Cents: 250}},
		records: make(map[string]record),
	}
	for i, p := range a.want {
		line := p
		line.Number, line.ID = uint64(i+1), clientKey(way, p.ID)
		a.ledger = append(a.ledger, line)
		receipt, err := json.Marshal(line)
		require.NoError(t, err)
		result, err := paid(receipt)
		require.NoError(t, err)
		a.records[storeKey(way, p.ID)] = record{idem.Completed, 1, result}
	}
	return a
}

// again makes p1 once more, under a second claim.
func (a *audited) again(way string) {
	line := a.ledger[0]
	line.Number = 3
	a.ledger = append(a.ledger, line)
	a.setRecord(way, func(r *record) { r.Attempt = 2 })
}

// setRecord changes the record of p1.
func (a *audited) setRecord(way string, f func(*record)) {
	r := a.records[storeKey(way, "p1")]
	f(&r)
	a.records[storeKey(way, "p1")] = r
}

func TestAuditPassesWhatIsRight(t *testing.T) {
	t.Parallel()
	for _, way := range ways {
		a := rightBooks(t, way)
		got := check(way, a.want, a.ledger, a.records)
		require.Equal(t, &audit{way: way, once: 2, cents: 1250, due: 1250}, got)
	}
	a := rightBooks(t, careless)
	a.again(careless)
	got := check(careless, a.want, a.ledger, a.records)
	require.Equal(t, &audit{way: careless, once: 1, twice: 1, cents: 2250, due: 1250}, got, "counted, and no trouble: nothing is promised")
}

func TestAuditFinds(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		way   string // default: payments
		spoil func(*audited)
		says  []string
	}{
		"a cent too much": {
			spoil: func(a *audited) { a.ledger[1].Cents++ },
			says:  []string{"payment p2 of 2.50 from alice was made as 2.51 from alice", "off by 0.01: 12.51 paid, 12.50 due", "receipt of payment p2 is in no ledger"},
		},
		"a cent moved from one payment to another": {
			spoil: func(a *audited) { a.ledger[0].Cents--; a.ledger[1].Cents++ },
			says:  []string{"payment p1 of 10.00 from alice was made as 9.99", "payment p2 of 2.50 from alice was made as 2.51"},
		},
		"a payment made twice": {
			spoil: func(a *audited) { a.again(payments) },
			says:  []string{"payments: payment p1 was made 2 times", "off by 10.00"},
		},
		"a bank with keys that pays twice": {
			way:   payouts,
			spoil: func(a *audited) { a.again(payouts) },
			says:  []string{"payouts: payment p1 was made 2 times", "off by 10.00"},
		},
		"a guess where payouts are held": {
			way:   held,
			spoil: func(a *audited) { a.again(held) },
			says:  []string{"payouts-held: payment p1 was made 2 times", "off by 10.00"},
		},
		"a payment never made": {
			spoil: func(a *audited) { a.ledger = a.ledger[:1] },
			says:  []string{"payment p2 of 2.50 was never made", "off by -2.50", "receipt of payment p2 is in no ledger"},
		},
		"a payment never made where nothing is promised": {
			way:   careless,
			spoil: func(a *audited) { a.ledger = a.ledger[:1] },
			says:  []string{"payment p2 of 2.50 was never made"},
		},
		"a payment nobody asked for": {
			spoil: func(a *audited) { a.ledger = append(a.ledger, service.Payment{Number: 3, ID: "p9", Cents: 1}) },
			says:  []string{`"p9" was paid, and nobody asked for it`, "off by 0.01"},
		},
		"the wrong account": {
			spoil: func(a *audited) { a.ledger[1].Account = "bob" },
			says:  []string{"was made as 2.50 from bob"},
		},
		"a line overwritten": {
			spoil: func(a *audited) { a.ledger[1].Number = 3 },
			says:  []string{"line 2 of the ledger is numbered 3"},
		},
		"a payment without its record": {
			spoil: func(a *audited) { delete(a.records, storeKey(payments, "p1")) },
			says:  []string{"payment p1 was made, its record is none"},
		},
		"a record that never completed": {
			spoil: func(a *audited) { a.setRecord(payments, func(r *record) { r.State = idem.InFlight }) },
			says:  []string{"payment p1 was made, its record is in_flight"},
		},
		"the receipt of another payment": {
			spoil: func(a *audited) {
				other := a.records[storeKey(payments, "p2")].Result
				a.setRecord(payments, func(r *record) { r.Result = other })
			},
			says: []string{`the receipt of payment p1 is in no ledger: {"number":2`},
		},
		"a payment without a claim": {
			way: careless,
			spoil: func(a *audited) {
				a.again(careless)
				a.setRecord(careless, func(r *record) { r.Attempt = 1 })
			},
			says: []string{"payment p1 was made 2 times under 1 claims"},
		},
		"an answer that is none": {
			spoil: func(a *audited) { a.setRecord(payments, func(r *record) { r.Result = []byte("paid") }) },
			says:  []string{"the receipt of payment p1 is in no ledger"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			way := payments
			if tc.way != "" {
				way = tc.way
			}
			a := rightBooks(t, way)
			tc.spoil(a)
			trouble := strings.Join(check(way, a.want, a.ledger, a.records).trouble, "\n")
			for _, says := range tc.says {
				require.Contains(t, trouble, says)
			}
		})
	}
}
