// Package oracle attacks an idem.Store with random operations and judges whether
// what was answered, and what is there after a crash, can be true.
//
// # How it judges
//
// Workers do random operations on a few keys (Workload). Each operation is an
// event in a Journal before it is called and another after it has returned, so
// that the order of the journal is one in which the operations really lay: what
// returned before another was called came first. After a crash the store is opened
// again and audited: every record, and the whole ledger, are events too.
//
// The Checker reads the events in order and keeps, for each key, the set of states
// that the record may be in: a linearizability check, done just in time. A call is
// added to what may take effect; a return removes every state in which there is no
// order of the operations under way that gives the answer it had. When no state is
// left, no history explains the journal: a violation. An operation that a crash
// cut off may have taken effect whole or not at all, so that both kinds of state
// live on until the audit decides. As a duplicate, a Get or a Wait may be answered
// from an operation only once that has taken effect, and effects of a crashed life
// are never taken back, this holds every answer that anybody ever had against what
// is there afterwards: durability of what was acknowledged, of what was shown
// (rule 3), at most one owner (rule 1), fencing (rule 2), exact expiry (rule 7)
// and identical replay (rule 9).
//
// Times are real. An operation decides at some instant between its two events; a
// deadline that follows from that is kept as the span it may lie in, and narrowed
// by what is seen of it. Only answers that no instant explains are refused.
//
// Fences are judged over all keys: a claim's fence is larger than every fence known
// when it was called, and is given to nobody else, for the store's whole life.
//
// Same-commit operations write an entry of their own to a ledger, and add to one of
// a few balances. After each crash the entries are exactly those of the operations
// that were acknowledged, and of some that were cut off; for those the record must
// show the completion if and only if the ledger has the entry; and each balance is
// the sum of its entries: no effect is lost, doubled or torn from its completion.
//
// What was answered ErrBroken is unknown in the same way: its commit failed, and may
// have taken effect whole or not at all. From the first such answer on nothing else
// may be answered to whoever asks, and nothing be changed. A Trial lets the disk of a
// store fail in the middle of a script that has every operation in it, and holds the
// store to that.
//
// # How to use it
//
// A life is one opening of a store: Journal.Begin, open, Audit, Workload, and then
// a crash or a Close. Journals are kept in memory (power cuts in this process) or
// in a file that each event is written to with one call of write(2), and which
// survives the process (kills). Feed the events of all lives to one Checker, in
// order. Checker.Image judges a store that was opened from an image of the disk at
// some point of the journal, as often as one likes and without changing the
// Checker; Cut makes the history of the next life one that goes on from there.
package oracle
