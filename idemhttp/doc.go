// Package idemhttp makes HTTP requests idempotent by a key, in the server and in the
// client. A client that got no answer sends its request again with the same
// Idempotency-Key header. The server runs it once, and answers each retry as it
// answered the first request. The package follows the IETF draft "The Idempotency-Key HTTP
// Header Field" (draft-ietf-httpapi-idempotency-key-header-07) and what Stripe does.
//
// # The server
//
// [New] makes a middleware of the usual shape, func(http.Handler) http.Handler, from a
// store and a function that says whose request it is. One line protects a handler:
//
//	mux.Handle("POST /payments", idemhttp.New(store, account, idemhttp.Options{})(payments))
//
// Here account names the tenant, as authentication has established it:
//
//	func account(r *http.Request) (string, error) {
//		id, _ := r.Context().Value(accountKey{}).(string)
//		return id, nil // "" is nobody: 403
//	}
//
// Tenants do not see or block each other's keys. A service with one tenant passes
// [GlobalScope]. Put the middleware inside whatever authenticates, limits, compresses and
// logs, and outside whatever reads the body.
//
// Never put [http.TimeoutHandler] inside it, or anything else that answers while the
// handler goes on. Its bare 503 leaves the outcome unknown, and with Options.RetryUnknown
// the next request runs the handler a second time while the first still runs. Put it
// outside, where its deadline reaches the handler's context and the claim stays with the
// handler. If nothing outside bounds the handler, set [Options.MaxRun].
//
// The middleware handles POST and PATCH requests that have a key. All others pass through
// untouched. Of several requests with the same key
//
//   - the first runs the handler, and its answer is stored before it is sent;
//   - one that arrives while the first runs gets 409 or, with Options.Wait, its answer;
//   - a later one gets the stored answer, marked Idempotent-Replayed: true;
//   - a different request (method, target or body) gets 422.
//
// The middleware's own answers are [Problem] values, each with a type. docs/HTTP.md in the
// repository lists all problems and all options.
//
// # What becomes of the operation
//
// Final answers are stored: 2xx, 3xx, and most 4xx. Answers that turn a request away mean
// "not now", and the request may come again: 401, 403, 407, 408, 412, 421, 423, 425, 429,
// and 503 or any 4xx with Retry-After. They are no attempts and do not count towards
// MaxAttempts. [DefaultOutcome] is this rule; [Options.Outcome] replaces it.
//
// Any other 5xx, a bare 503, 499, a panic and a process that died leave the outcome
// unknown. A handler that writes nothing answers an empty 200, as always in net/http. But
// if its context has ended, it reported an error, or something was written to a
// ResponseWriter further out, that leaves the outcome unknown too. By default the
// middleware does not guess: it holds the operation, and retries get 500 until someone
// finds out what happened and settles it. If a handler can be repeated, set
// Options.RetryUnknown: the next request then runs it again.
//
// A handler that knows better says so, whatever its status. It finds its operation in the
// context:
//
//	op := idemhttp.FromContext(r.Context())
//	if op.Checkpoint() == nil { // no attempt has come this far
//		if err := stock.reserve(op.Key()); err != nil {
//			op.Retryable() // nothing has happened
//			http.Error(w, "sold out for now", http.StatusConflict)
//			return
//		}
//		if err := op.SaveCheckpoint(r.Context(), []byte("reserved")); err != nil {
//			panic(err) // the claim is lost, or the store is
//		}
//	}
//	receipt, err := bank.charge(r.Context(), op.DownstreamKey("charge"))
//	if err != nil {
//		op.Unknown() // charged or not? somebody has to look
//		http.Error(w, "the bank does not answer", http.StatusBadGateway)
//		return
//	}
//
// To settle a held operation, use the token of its record. If the work was done, complete
// it with the bytes of an [Answer]:
//
//	answer, err := idemhttp.Answer{Status: http.StatusCreated, Body: []byte("paid")}.MarshalBinary()
//	if err != nil {
//		return err
//	}
//	rec, err := store.Get(ctx, idemhttp.StoreKey("account-7", "order-1"))
//	if err != nil {
//		return err
//	}
//	return store.Complete(ctx, rec.Token(), answer)
//
// Frameworks whose handlers return errors need an adaptor. It calls [Operation.Returned],
// and writes the answer inside the middleware.
//
// # When the answer is sent
//
// The middleware buffers the handler's answer, records it, and then sends it: no client
// sees what a crash could undo. If the client has left by then, the handler still finishes,
// because its context does not end with the client, and the retry gets the answer. If the
// outcome cannot be recorded, the client gets 503, never the handler's success.
//
// An answer that the handler flushes, or that is over Options.MaxResponse, cannot wait. It
// is sent as it is written. A flushed answer is still stored if it fits. If an answer is
// too long, has trailers, hijacks the connection or breaks off, the record only says that
// the operation is done. A retry learns that, and that the answer was not retained.
//
// # The client
//
// [Transport] gives each POST and PATCH one key for all its tries, and tries again where
// that is safe.
package idemhttp
