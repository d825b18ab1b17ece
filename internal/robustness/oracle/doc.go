// Package oracle attacks an idem.Store with random operations and judges whether its
// answers, and what is there after a crash, can be true.
//
// # How it judges
//
// Workers do random operations on a few keys (Workload). Each operation adds an event to a
// Journal before it is called and another after it has returned. The order of the journal is
// therefore one that the operations really had: if one returned before another was called, it
// comes first. After a crash the store is opened again and audited: every record, and the
// whole ledger, become events too.
//
// The Checker reads the events in order. For each key it keeps the set of states that the
// record may be in: a linearizability check, done just in time. A call is added to the
// operations that may take effect. A return removes every state in which no order of the
// operations under way gives that answer. When no state is left, no history explains the
// journal: that is a violation. An operation that a crash cut off may have taken effect
// entirely or not at all, and both kinds of state stay until the audit decides.
//
// A duplicate, a Get or a Wait may be answered from an operation only once that has taken
// effect, and effects of a crashed life are never taken back. So every answer anyone ever got
// is compared with what is there afterwards. This checks that what was acknowledged is durable
// and so is what was shown, that there is at most one owner, that stale tokens are fenced,
// that expiry is exact, and that replays are identical.
//
// Times are real. An operation decides at some instant between its two events. A deadline
// that follows from that is kept as the span in which it may lie, and narrowed by later
// answers. Only answers that no instant explains are refused.
//
// Fences are judged over all keys. A claim's fence is larger than every fence known when the
// claim was called, and it is granted to nobody else in the store's whole life.
//
// Same-commit operations write their own entry to a ledger and add to one of a few balances.
// After each crash the entries are exactly those of the operations that were acknowledged, and
// of some that were cut off. For the latter, the record must show the completion if and only
// if the ledger has the entry. Each balance is the sum of its entries. So no effect is lost,
// doubled or torn from its completion.
//
// An operation answered with ErrBroken is unknown in the same way: its commit failed, and may
// have taken effect entirely or not at all. From the first such answer on, every call must get
// it, and nothing may change. A Trial makes the disk of a store fail in the middle of a script
// that has every operation in it, and checks this.
//
// # How to use it
//
// A life is one opening of a store: Journal.Begin, open, Audit, Workload, and then a crash or
// a Close. Journals are kept in memory (power cuts in this process) or in a file, to which each
// event is written with one call of write(2) and which survives the process (kills). Feed the
// events of all lives to one Checker, in order. Checker.Image judges a store that was opened
// from an image of the disk at some point of the journal, any number of times and without
// changing the Checker. Cut makes the next life continue from such an image.
package oracle
