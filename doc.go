// Package idem is an embedded, durable idempotency store. It remembers which
// operations were asked for and what came of them, so that a retry gets the first
// answer back and the work is not done twice.
//
// It is a library over one local file or directory, for one process at a time;
// there is no server. A store is opened on an engine:
//
//	backend, err := bolt.Open(path, bolt.Options{})
//	if err != nil {
//		return nil, err
//	}
//	return idem.New(backend, idem.Options{})
//
// # Claim and complete
//
// An operation is named by a key that its client chooses and repeats when it
// tries again: a payment ID, a message ID, an Idempotency-Key header. Before the
// work is done its key is claimed; when it is done the claim is completed with
// the result; every later claim of the key is refused and gets that result:
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
// A nil error of [Store.Claim] is the only licence to run the work. A caller that
// checks nothing else can never run an operation that is running or done.
//
// A claim whose work was begun ends in one of four ways. [Store.Complete] records success and
// [Store.Fail] a failure that no retry will mend; both are final, and both replay.
// [Store.Release] gives the claim up so that it can be claimed again at once.
// [Store.Hold] says that nobody knows: see below. [Store.Unclaim] undoes a claim whose
// work was not begun.
//
// Keys of many clients or purposes share one store: [JoinKey] joins a tenant, a
// kind and the client's key so that no two lists of parts meet. [FingerprintOf]
// digests what was asked; a claim with another fingerprint gets [ErrMismatch] and
// learns nothing of the request that has the key. [Store.ClaimMany] and
// [Store.CompleteMany] do many in one commit.
//
// # Tokens and fences
//
// A granted claim comes with a [Token], the key and a fence: a number that grows
// with every claim of the store and is never given out again, not after a
// restart and not after the record is gone. The token is what Complete and the
// others want to see. If another attempt has taken the key over meanwhile, or
// somebody has forgotten it, the token is stale: the answer is [ErrFenced] and
// nothing changes, however late it comes.
//
// A token is plain data. It has a text form, and can be saved beside a job, sent
// to another service and used after a restart of this one:
//
//	text, err := claim.Token.MarshalText() // idem1.<fence>.<key>
//
// Complete and Fail may be repeated with the same token and the same bytes, so
// that a caller that got no answer can ask again.
//
// # Leases and takeover
//
// The process that holds a claim may die. So a claim has a lease
// (Request.Lease, 30 s by default). While it holds, other claims of the key get
// [ErrInFlight]. When it has lapsed, the next claim takes the operation over: it
// is granted with a new fence and Record.Attempt counts up, and the token of the
// attempt before is stale. A lease that lapses without anybody asking for the key
// costs its holder nothing: it may still complete.
//
// Work that may outlast its lease extends it now and then, and stops when it is
// told that it has lost the claim:
//
//	if err := store.Extend(ctx, claim.Token, 0); err != nil {
//		return err // idem.ErrFenced: another attempt has taken over
//	}
//
// Work in several steps saves how far it came. The next attempt, after a takeover
// or a release, finds the last checkpoint in its claim:
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
// Options.MaxAttempts puts an end to work that never ends well ([ErrExhausted]).
// Options.LapseOnOpen counts all claims of the process before as lapsed: right
// where the process that opens the store is the only one that runs its work.
// [Store.Wait] waits until a key is not in flight any more, and [Store.Shutdown]
// until all claims granted here have ended.
//
// # Held: the outcome is unknown
//
// A takeover runs the work again. If the attempt before may have charged the
// card, and the bank cannot be shown a key of our own, that is a guess nobody
// should make. With Request.HoldUnknown an attempt that ends without saying how
// is not taken over: claims get [ErrHeld], and the record does not expire, until
// somebody who knows settles it with the record's own token:
//
//	claim, err := store.Claim(ctx, idem.Request{Key: id, HoldUnknown: true})
//	if errors.Is(err, idem.ErrHeld) {
//		if receipt, found := bank.find(id); found {
//			return store.Complete(ctx, claim.Record.Token(), receipt)
//		}
//		return store.Release(ctx, claim.Record.Token(), nil) // it never happened
//	}
//
// An attempt that itself does not know, because the bank's answer never came, says
// so at once with [Store.Hold]. [Store.Records] with Filter.Unsettled lists what waits
// to be settled.
//
// # Replay
//
// A completed record replays its result, byte for byte, and a failed one its
// reason, for Request.Retention after it was finished (24 h by default; [Forever]
// is allowed). After that the key is free, exactly then: expiry is decided when a
// record is read, and the sweeper that removes expired records only frees space.
// Nothing is evicted. A store that has reached its bound answers [ErrFull] to new
// claims and still takes every completion.
//
// A result over Options.MaxResult (1 MiB by default) is not kept: Complete answers
// [ErrTooLarge], the operation is recorded as completed all the same, and
// Record.ResultDropped says so. The work is never run again for that.
//
// # Do
//
// [Do] puts claim, heartbeat, completion and replay together. The value is stored
// as JSON, or as it is if it is a []byte:
//
//	receipt, replayed, err := idem.Do(ctx, store, idem.Request{Key: id},
//		func(ctx context.Context, claim idem.Claim) (Receipt, error) {
//			return send(ctx, claim.Record.Attempt)
//		})
//
// Callers with one key at one time share one run: the others wait and get its
// value. An error of the function releases the claim; an error marked with
// [Permanent] is recorded as the operation's failure. The lease is extended while
// the function runs; if the claim is lost all the same, the function's context is
// cancelled with cause ErrFenced.
//
// # Effects in the same commit
//
// Between the work and its completion a process can die. Then the work is done
// and the record does not say so. Where the effect is a write to a database,
// there is a way out: keep that data in the engine's own database, and commit it
// together with the completion. Both are there after a crash, or neither:
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
// The function touches its transaction and nothing else, and never calls the
// store: it may be run more than once, and one run's writes commit. Packages bolt
// and pebble have Do and Complete of this kind, and Update for writes of the
// caller's own without a key. Nothing else may write to the database.
//
// Where the effect is a request to another service, show that service a key
// derived from ours, which is the same on every attempt: [DownstreamKey].
//
// # Engines
//
// Package memory keeps records in memory and loses them with the process, package
// bolt keeps them in one file (bbolt), package pebble in a directory (Pebble, a
// log-structured tree). The rules are the same in all three, because an engine
// holds none of them: it runs the store's one state machine inside its commits.
// A [Backend] is what an engine implements; package idemtest proves one.
//
// An answer is given when it is durable. In bolt and pebble, calls that arrive
// while a commit is being written to the disk share the next one, so that many
// callers pay for few writes and a lone caller waits for nobody. Refusals and
// reads wait for no commit, and none of them shows what a crash could undo.
//
// # Time
//
// Leases and retention run on the store's own timeline. While a store is open it
// follows elapsed time, and each commit saves it with the wall clock beside it;
// an opened store goes on from there and counts the time it was closed, up to 7 days,
// if the wall clock says that any has passed. So a clock that steps, either way, neither
// ends a lease nor prolongs one, and a machine that boots in 1970 replays what it
// should. The times in a [Record] are converted to the wall clock, for people.
//
// ctx counts until an operation has joined a commit: cancelled before, nothing has
// changed. From then on the call returns that commit's true answer. What settles a
// claim (Complete, Fail, Release, Unclaim, Hold) is recorded although ctx has ended.
//
// # Errors
//
// Errors are told apart with [errors.Is]. The refusals of Claim come with the
// record in the way:
//
//   - [ErrCompleted], [ErrFailed]: done before; replay Record.Result.
//   - [ErrInFlight]: another attempt is running; tell the client to come back, or
//     use [Store.Wait].
//   - [ErrHeld]: the outcome is unknown and must be settled.
//   - [ErrMismatch]: the key is another request's. A mistake of the client.
//   - [ErrExhausted]: the attempts are used up.
//   - [ErrTooLate]: there is no record, and Request.IssuedAt says that there may
//     have been one.
//
// Of the answers to a token, [ErrFenced] says that the claim is lost: stop, and
// record nothing. [ErrCompleted] and [ErrFailed] say that this claim has been
// settled before, otherwise.
//
// The rest is about input ([ErrInvalid], [ErrTooLarge]), about room ([ErrFull]),
// about one record ([ErrCorrupt], [ErrVersion]) or about the whole store.
// [ErrLocked] says that it is open elsewhere. [ErrBroken] says that a commit
// failed or hung, or that the file was moved or replaced, and what the disk holds is
// unknown: the store then answers nothing else, grants nothing and replays nothing,
// until it is closed and opened again.
//
// Keys are not written into errors, events and logs; [Store.KeyHash] stands for the key.
// Options.Observer is told what happens, as an [Event] each; [Store.Stats],
// [Store.Records], [Store.Get] and [Store.Forget] are for whoever is on call.
// Filter.KeyHash finds the record that an event or a log line names. [Store.Health]
// answers a readiness probe: it says what a new claim would meet.
//
// # What is not promised
//
//   - Exactly-once effects, in general. The store promises at most one owner and
//     one recorded outcome of a key. What the work did before a crash it cannot
//     know. The same commit (bolt.Do, pebble.Do) or a service that checks a
//     derived key closes that gap; nothing else does.
//   - That a lapsed attempt has stopped. Its token is refused here; a service that
//     it still calls knows nothing of that, unless it is shown the fence and
//     compares it.
//   - More than one process, or more than one machine. One process has the store
//     open; another gets ErrLocked. Nothing is replicated.
//   - Anything after the retention. The key is then a new operation.
//   - Detection of every flipped bit. Records carry a checksum over key and
//     value; the engine's own pages do not all have one.
package idem
