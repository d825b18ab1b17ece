package idemhttp_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// The bank took the money and its answer was lost, so the operation is held. A program
// asks the bank by the key that the handler sent, and stores the answer that the handler
// would have written.
func ExampleAnswer_resolve() {
	store := exampleStore()
	defer store.Close()
	paid := map[string]string{} // at the bank
	h := idemhttp.New(store, account, idemhttp.Options{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		op := idemhttp.FromContext(r.Context())
		paid[op.DownstreamKey("charge")] = "receipt 42"
		op.Unknown()
		http.Error(w, "the bank does not answer", http.StatusBadGateway)
	}))
	show(h, "order-1", "12.50")
	show(h, "order-1", "12.50")

	settle := func(ctx context.Context, rec idem.Record) error {
		if !strings.HasPrefix(rec.Key, "http/") {
			return nil // of another door
		}
		number, found := paid[idem.DownstreamKey(rec.Key, "charge")]
		if !found {
			return store.Release(ctx, rec.Token(), []byte("the bank has no such payment"))
		}
		receipt, err := json.Marshal(map[string]string{"receipt": number})
		if err != nil {
			return err
		}
		answer, err := idemhttp.Answer{
			Status: http.StatusCreated,
			Header: http.Header{"Content-Type": {"application/json"}},
			Body:   receipt,
		}.MarshalBinary()
		if err != nil {
			return err
		}
		return store.Complete(ctx, rec.Token(), answer)
	}
	fmt.Println(idem.Resolve(context.Background(), store, settle))
	show(h, "order-1", "12.50")
	// Output:
	// 502 the bank does not answer
	// 500 Outcome of this operation is unknown
	// <nil>
	// 201 {"receipt":"receipt 42"}, replayed
}
