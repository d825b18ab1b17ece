package idem_test

import (
	"context"
	"fmt"

	"github.com/idemkv/idem"
)

// contentKey derives the key of an order for clients that send none. The order number
// is what makes two equal orders two.
func contentKey(orderNumber string, body []byte) (string, error) {
	canonical, err := idem.CanonicalJSON(body)
	if err != nil {
		return "", err
	}
	return idem.JoinKey("orders", idem.ContentKey([]byte(orderNumber), canonical)), nil
}

// A client that sends no key: the key comes from what it asks for. Spelled another way
// it is the same operation; under another order number it is another.
func ExampleContentKey() {
	for _, o := range []struct{ number, body string }{
		{"2026-1107", `{"sku":"coffee","count":2}`},
		{"2026-1107", `{ "count": 2.0, "sku": "\u0063offee" }`},
		{"2026-1108", `{"sku":"coffee","count":2}`},
	} {
		key, err := contentKey(o.number, []byte(o.body))
		fmt.Println(key, err)
	}
	// Output:
	// orders/wQbdHkeMhLM_fzDErHl-hoDxLorI4HFDbmf-0Mh8rmk <nil>
	// orders/wQbdHkeMhLM_fzDErHl-hoDxLorI4HFDbmf-0Mh8rmk <nil>
	// orders/3kIXrgVtbAY7HAWJNJWJL3k6qjCmlYaOi0N7eW6Y--w <nil>
}

// One way to write each value. What two readers could take for different things is an
// error.
func ExampleCanonicalJSON() {
	for _, text := range []string{
		`{ "b": 1.50, "a": [ 1E2, "\u0041" ] }`,
		`{"account": 12345678901234567890}`,
		`{"amount": 1, "amount": 100}`,
	} {
		canonical, err := idem.CanonicalJSON([]byte(text))
		fmt.Printf("%s %v\n", canonical, err)
	}
	// Output:
	// {"a":[100,"A"],"b":1.5} <nil>
	// {"account":12345678901234567890} <nil>
	//  idem: invalid argument: JSON: at byte 14: a name that the object has already
}

// Work that is claimed by hand and may outlast its lease.
func ExampleStore_Heartbeat() {
	store := memoryStore(idem.Options{})
	defer store.Close()
	ctx := context.Background()
	write := func(context.Context) ([]byte, error) { return []byte("the report"), nil } // takes long

	claim, err := store.Claim(ctx, idem.Request{Key: "report-7"})
	if err != nil {
		panic(err)
	}
	kept, stop := store.Heartbeat(ctx, claim)
	report, err := write(kept) // kept ends if the claim is lost
	stop()
	if err != nil {
		panic(store.Release(ctx, claim.Token, nil))
	}
	fmt.Println(store.Complete(ctx, claim.Token, report))
	// Output: <nil>
}
