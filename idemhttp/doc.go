// Package idemhttp makes HTTP requests idempotent by a key, in the server and in the
// client. A client that got no answer sends its request again with the same
// Idempotency-Key header; the server runs it once, and answers every repetition as it
// answered the first. It follows the IETF draft "The Idempotency-Key HTTP Header
// Field" (draft-ietf-httpapi-idempotency-key-header-07) and the practice of Stripe.
//
// # The server
//
// [New] makes a middleware of the usual shape, func(http.Handler) http.Handler, from a
// store and a function that says whose request it is. One line protects a handler:
//
//	mux.Handle("POST /payments", idemhttp.New(store, account, idemhttp.Options{})(payments))
//
// where account names the tenant, from what the service has checked:
//
//	func account(r *http.Request) (string, error) {
//		id, _ := r.Context().Value(accountKey{}).(string)
//		return id, nil // "" is nobody: 403
//	}
//
// Tenants do not see or block each other's keys. A service with one tenant says so,
// with [GlobalScope]. The middleware belongs inside of what authenticates, limits,
// compresses and logs, and outside of whatever reads the body.
//
// Never put [http.TimeoutHandler] inside of it, nor anything else that answers while the
// handler goes on: its bare 503 leaves the outcome unknown, and with Options.RetryUnknown
// the next request runs the handler a second time next to the first. Put it outside: its
// deadline reaches the handler's context. [Options.MaxRun] bounds the handler where
// nothing outside does. Neither frees the key while the handler runs.
//
// POST and PATCH requests that bring a key are its business; all others pass through
// untouched. Of those with a key
//
//   - the first is run, its answer is stored, and then it is sent;
//   - one that comes meanwhile gets 409, or with Options.Wait the first one's answer;
//   - one that comes later gets the stored answer, marked Idempotent-Replayed: true;
//   - one that is a different request (method, target, body) gets 422.
//
// What the middleware answers by itself is a [Problem], with a type of its own each.
// The tables of all problems and all options are in docs/HTTP.md.
//
// # What becomes of the operation
//
// Answers that are final are stored: 2xx, 3xx, and most 4xx. Those by which a request is
// turned away are "not now", and leave it free to come again: 401, 403, 407, 408, 412,
// 421, 423, 425, 429, and 503 or any 4xx with Retry-After. That is not an attempt: it does
// not count towards MaxAttempts. [DefaultOutcome] is this rule, [Options.Outcome] another.
//
// Any other 5xx, a bare 503, 499, a panic and a process that died leave the outcome
// unknown. So does an answer that nobody wrote: net/http makes an empty 200 of it, which
// counts only if the handler returned in time, without an error, and nothing was written
// to a ResponseWriter further out. Unless told otherwise the middleware does not guess:
// the operation is held, retries are told so, and nothing runs a second time until someone
// who has found out settles it. Where a handler can be repeated, Options.RetryUnknown lets
// the next request run it again.
//
// A handler that knows better says so, whatever its status. It finds its operation,
// with what it can be sure of on every attempt, in the context:
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
// A held operation is settled with its record's own token; the bytes to complete it
// with are those of an [Answer]:
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
// Handlers of frameworks that return errors need an adaptor, which tells
// [Operation.Returned] and has the answer written inside of the middleware.
//
// # When the answer is sent
//
// An answer is taken down while the handler writes it, recorded, and then sent, so that
// no client sees what a crash could undo. The client may be gone by then: the handler's
// context does not end with it, and its retry gets the answer. If the outcome cannot
// be recorded the client gets 503 instead, never the handler's success.
//
// An answer that the handler flushes, or that is over Options.MaxResponse, cannot wait
// and goes out as it is written. A flushed one that turns out to fit is stored all the
// same. Of longer ones, and of those that have trailers, hijack the connection or break
// off, it is stored that the operation is done; a retry is told that, and that its
// answer was not retained. Half an answer is never replayed.
//
// # The client
//
// [Transport] gives each POST and PATCH one key for all its tries, and makes those that
// are safe to make.
package idemhttp
