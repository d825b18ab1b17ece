// Package idem is an embedded, durable idempotency store. It remembers which operations
// were asked for and how they ended. A retry gets the first answer, and the work is not done
// twice.
//
// The store is a library over one local file or directory, for one process at a time. There is
// no server. Open it on an engine:
//
//	backend, err := bolt.Open(path, bolt.Options{})
//	if err != nil {
//		return nil, err
//	}
//	return idem.New(backend, idem.Options{})
//
// # Claim and complete
//
// A key names an operation: a payment ID, a message ID, an Idempotency-Key header. The client
// chooses it and repeats it when it tries again. Claim the key before the work and complete
// the claim with the result. Every later claim of the key is refused and gets that result:
//
//	claim, err := store.Claim(ctx, idem.Request{
//		Key:         id,
//		Fingerprint: idem.FingerprintOf(body), // the same ID with another body is refused
//	})
//	switch {
//	case err == nil: // ours to run
//		receipt, err := bank.charge(ctx, idem.DownstreamKey(id, "charge"), body)
//		if err != nil {
//			return nil, errors.Join(err, store.Release(ctx, claim.Token, []byte(err.Error()))) // may be tried again
//		}
//		return receipt, store.Complete(ctx, claim.Token, receipt)
//	case errors.Is(err, idem.ErrCompleted): // a retry: the same receipt again
//		return claim.Record.Result, nil
//	default: // in flight elsewhere, another body under this ID, failed for good, …
//		return nil, err
//	}
//
// A nil error from [Store.Claim] is the only permission to run the work. A caller that checks
// nothing else never runs an operation that is running or done.
//
// A claim whose work has begun ends in one of four ways:
//
//   - [Store.Complete] records success. It is final and replays.
//   - [Store.Fail] records a failure that no retry will fix. It is final and replays.
//   - [Store.Release] gives the claim up: the key can be claimed again at once.
//   - [Store.Hold] says that nobody knows the outcome; see below.
//
// [Store.Unclaim] undoes a claim whose work has not begun.
//
// Many clients and purposes can share one store: [JoinKey] joins a tenant, a kind and the
// client's key without collisions. [FingerprintOf] makes a digest of what was asked. A claim with
// another fingerprint gets [ErrMismatch] and learns nothing about the request that has the key.
// [Store.ClaimMany] and [Store.CompleteMany] do many in one commit.
//
// # Tokens and fences
//
// A granted claim comes with a [Token]: the key and a fence, a number that is never given out
// again, not after a restart and not after the record is gone. Pass the token to Complete,
// Fail, Release and so on. If another attempt has taken the key over, or the record has been
// removed with [Store.Forget], the token is stale: the answer is [ErrFenced] and nothing changes,
// however late it comes.
//
// A token is plain data. It has a text form and can be saved with a job, sent to another
// service, and used after a restart:
//
//	text, err := claim.Token.MarshalText() // idem1.<fence>.<key>
//
// Complete and Fail may be repeated with the same token and the same bytes, so a caller that
// got no answer can ask again.
//
// # Leases and takeover
//
// The process that holds a claim may die, so every claim has a lease (Request.Lease, 30 s by
// default). While the lease holds, other claims of the key get [ErrInFlight]. After it has
// lapsed, the next claim takes the operation over: it gets a new fence, Record.Attempt goes up by
// one, and the previous token is stale. If nobody claims the key, a lapsed lease costs its holder
// nothing: it may still complete.
//
// Work that may outlast its lease extends it from time to time, and stops once it has lost the
// claim:
//
//	if err := store.Extend(ctx, claim.Token, 0); err != nil {
//		return err // idem.ErrFenced: another attempt has taken over
//	}
//
// Work in several steps saves how far it came. The next attempt, after a takeover or a
// release, finds the last checkpoint in its claim:
//
//	if claim.Record.Checkpoint == nil { // no attempt has come this far
//		if err := reserve(id); err != nil {
//			return err
//		}
//		if err := store.Checkpoint(ctx, claim.Token, []byte("reserved")); err != nil {
//			return err
//		}
//	}
//
// Options.MaxAttempts ends work that never succeeds ([ErrExhausted]). Set Options.LapseOnOpen
// if only the process that opens the store runs its work: it frees the claims of the previous
// process. [Store.Wait] waits until a key is no longer in flight, and [Store.Shutdown] until all
// claims granted by this store have ended.
//
// # Held: the outcome is unknown
//
// A takeover runs the work again. If the previous attempt may have charged the card, and the
// bank does not check our key, nobody should make that guess. With Request.HoldUnknown, an
// attempt that ends without reporting a result is held instead: claims get [ErrHeld], and the
// record does not expire, until someone settles it with the record's own token:
//
//	claim, err := store.Claim(ctx, idem.Request{Key: id, HoldUnknown: true})
//	if errors.Is(err, idem.ErrHeld) {
//		if receipt, found := bank.find(id); found {
//			return store.Complete(ctx, claim.Record.Token(), receipt)
//		}
//		return store.Release(ctx, claim.Record.Token(), nil) // it never happened
//	}
//
// An attempt that cannot tell either, because the bank never answered, says so at once with
// [Store.Hold]. [Store.Records] with Filter.Unsettled lists what waits to be settled.
//
// # Replay
//
// A completed record replays its result, byte for byte, and a failed one its reason. That
// lasts for Request.Retention after it finished (24 h by default; [Forever] is allowed). The key is
// free at exactly that moment, because expiry is decided when a record is read. The sweeper only
// frees space. Nothing is evicted: a full store answers [ErrFull] to new claims and still
// takes every completion.
//
// A result over Options.MaxResult (1 MiB by default) is not kept. Complete answers
// [ErrTooLarge], but the operation is recorded as completed, with Record.ResultDropped set, and
// the work never runs again.
//
// # Do
//
// [Do] combines claim, heartbeat, completion and replay. The value is stored as JSON; a []byte is
// stored as it is:
//
//	receipt, replayed, err := idem.Do(ctx, store, idem.Request{Key: id},
//		func(ctx context.Context, claim idem.Claim) (Receipt, error) {
//			return send(ctx, claim.Record.Attempt)
//		})
//
// Concurrent callers with one key share one run: the others wait and get its value. An error
// of the function releases the claim; an error marked with [Permanent] is recorded as the
// operation's failure. The lease is extended while the function runs. If the claim is lost,
// the function's context is cancelled with cause ErrFenced.
//
// # Effects in the same commit
//
// A process can die between the work and its completion. Then the work is done and the record
// does not say so. If the work is a write to a database, keep that data in the engine's own
// database and commit it together with the completion. After a crash both are there, or
// neither:
//
//	result, replayed, err := bolt.Do(ctx, store, idem.Request{Key: id},
//		func(ctx context.Context, tx *bbolt.Tx) ([]byte, error) {
//			ledger, err := tx.CreateBucketIfNotExists([]byte("ledger"))
//			if err != nil {
//				return nil, err
//			}
//			return []byte("paid"), ledger.Put([]byte(id), []byte("12.50"))
//		})
//
// The function may use only its transaction and must not call the store. It may run more than
// once, but the writes of only one run commit. Packages bolt and pebble both have such a Do and
// Complete, and Update for your own writes without a key. Nothing else may write to the database.
//
// If the work is a request to another service, send it a key that is derived from yours and is
// the same on every attempt: [DownstreamKey].
//
// # Engines
//
// Package memory keeps records in memory and loses them with the process. Package bolt keeps
// them in one file (bbolt), package pebble in a directory (Pebble, a log-structured tree). All
// three follow the same rules, because an engine holds none: it runs the store's one state
// machine inside its commits. To write an engine, implement engine.Backend and test it with
// package idemtest.
//
// An answer is given when it is durable. In bolt and pebble, calls that arrive while a commit
// is being written share the next one: many callers pay for few writes, and a lone caller waits
// for nobody. Refusals and reads wait for no commit and never show what a crash could undo.
//
// # Time
//
// Leases and retention follow the store's own timeline. While a store is open, that is elapsed
// time; each commit saves it together with the wall clock. An opened store continues from
// there, and counts the time it was closed, up to 7 days, if the wall clock says that any has
// passed. So a wall clock that steps while the store is open, either way, neither ends a lease nor
// prolongs one, and a machine that boots in 1970 replays what it should. The times in a [Record]
// are converted to the wall clock, for people to read.
//
// A call's ctx counts until the operation has joined a commit. If ctx ends before that, nothing
// has changed. After that the call returns the commit's true answer. Calls that settle a claim
// (Complete, Fail, Release, Unclaim, Hold, End) are recorded even if ctx has ended.
//
// # Errors
//
// Tell errors apart with [errors.Is]. The refusals of Claim come with the record in the way:
//
//   - [ErrCompleted], [ErrFailed]: done before; replay Record.Result.
//   - [ErrInFlight]: another attempt is running; tell the client to come back, or use
//     [Store.Wait].
//   - [ErrHeld]: the outcome is unknown and must be settled.
//   - [ErrMismatch]: the key belongs to another request. A mistake of the client.
//   - [ErrExhausted]: the attempts are used up.
//   - [ErrTooLate]: there is no record, and Request.IssuedAt says that there may have been
//     one.
//
// Of the answers to a token, [ErrFenced] says that the claim is lost: stop, and record
// nothing. [ErrCompleted] and [ErrFailed] say that this claim was settled before, differently.
//
// The rest are about input ([ErrInvalid], [ErrTooLarge]), room ([ErrFull]), one record
// ([ErrCorrupt], [ErrVersion]) or the whole store. [ErrLocked] says that the store is open
// elsewhere. [ErrBroken] says that a commit failed or hung, or that the file was moved or
// replaced, and nobody knows what the disk holds. The store answers nothing else until it is
// closed and opened again. [ErrClosed] is what a closed store answers.
//
// # Operating a store
//
// Errors, events and logs never contain keys; [Store.KeyHash] stands for the key, and
// Filter.KeyHash finds the record that an event or a log line names. Options.Observer gets an
// [Event] for each thing that happens. [Store.Stats], [Store.Records], [Store.Get] and
// [Store.Forget] are for whoever is on call, and [Resolve] settles many operations by what
// another service knows of them. [Store.Health] answers a readiness probe: it says what a new
// claim would get. [Store.Export] and [Store.Import] move the records to another engine; the
// engines on disk make backups.
//
// The command cmd/idem does all that from a shell, package idemadmin in a browser. Packages
// idemprom and idemotel have metrics and traces. docs/OPERATIONS.md has the runbook.
//
// # What is not promised
//
//   - Exactly-once effects, in general. The store promises at most one owner and one recorded
//     outcome for each key. It cannot know what the work did before a crash. Only the same commit
//     (bolt.Do, pebble.Do) or a service that checks a derived key closes that gap.
//   - That a lapsed attempt has stopped. Its token is refused here. A service that it still
//     calls does not know that, unless it gets the fence and compares it.
//   - More than one process, or more than one machine. Another process gets ErrLocked. Nothing
//     is replicated.
//   - Anything after the retention. The key then names a new operation.
//   - Detection of every flipped bit. Records carry a checksum over key and value; not all of
//     the engines' own pages do.
package idem
