// Package bench measures idem stores: against each other, against bare engines
// that write the same bytes, against limits, and against what people use instead
// (in bench/peers, a module of its own). The program that runs it all and writes
// the report is bench/peers/cmd/bench; docs/BENCHMARKS.md says how to read it.
package bench

import "errors"

// The groups of workloads. What one operation is in each, so that contenders do
// the same work:
//
//   - GetHit: look Keys.Hit(worker, n) up and have its record at hand: the result
//     and every field that the contender keeps. Before, all keys of Keys were
//     stored as completed, each with ResultBytes of random bytes, in the order of
//     Keys.Fill, and the store was settled: flushed and compacted, where there is
//     such a thing.
//   - GetMiss: the same with Keys.Miss(worker, n), which is never stored.
//   - ClaimReplay: ask to run Keys.Hit(worker, n) and be given the stored result.
//   - CycleDurable: claim Fresh(worker, n) durably so that a second claim would be
//     refused, then complete it durably with Result. Two steps, each on disk
//     before the next begins. What a crash may lose when it returns is said in
//     Contender.Does.
//   - CycleMemory: the same without a disk.
//   - DoSameCommit: as CycleDurable, and one write of the caller's own (the key
//     and Result) that commits together with the completion, or is vanished.
//   - SweepUnloaded: remove the next Workload.Batch of the Keys, that were stored
//     as expired with their index entries; ErrDone when there are no more. One
//     operation is one batch, and durable when it returns.
const (
	GetHit        = "Get/hit"
	GetMiss       = "Get/miss"
	ClaimReplay   = "Claim/replay"
	CycleDurable  = "Cycle/durable"
	CycleMemory   = "Cycle/memory"
	DoSameCommit  = "Do/same-commit"
	SweepUnloaded = "Sweep/unloaded"
)

// Names that the table of ratios looks for beside idem's own. A name is a family
// and, after a slash, what it does. Maps are looked for by their family: the
// fastest of a family counts.
const (
	// FloorMaps is the family of maps that also read the clock once and copy a
	// Record out, as "floor-map/xsync": what a lookup in memory cannot do without.
	FloorMaps = "floor-map"
	// RawMaps is the family of maps alone, as "raw-map/sync.Map".
	RawMaps = "raw-map"

	RawBoltView     = "raw-bbolt/view"     // GetHit, GetMiss: View and Get of the same bytes, copied out
	RawPebbleGet    = "raw-pebble/get"     // GetHit, GetMiss
	RawPebbleSeek   = "raw-pebble/seek"    // GetHit, GetMiss: a filtered iterator, SeekPrefixGE
	RawBoltTwo      = "raw-bbolt/two"      // CycleDurable: two Updates, with idem's record and index bytes
	RawBoltOne      = "raw-bbolt/one"      // DoSameCommit: one Update, with the completion's record, its place, meta and the caller's own write
	RawBoltHalves   = "raw-bbolt/two"      // DoSameCommit: two Updates, a claim's and a completion's, without the caller's own write
	RawPebbleTwo    = "raw-pebble/two"     // CycleDurable: two synced batches, with idem's record and index bytes
	RawBoltGroup    = "raw-bbolt/grouped"  // CycleDurable: the same bytes, grouped without delay
	RawPebbleGroup  = "raw-pebble/grouped" // CycleDurable: the same bytes, grouped without delay
	RawBoltUpdate   = "raw-bbolt/update"   // CycleDurable: DB.Update for each step
	RawBoltBatch    = "raw-bbolt/batch"    // CycleDurable: DB.Batch for each step
	RawPebblePerOp  = "raw-pebble/per-op"  // CycleDurable: Set with Sync for each step, under striped locks
	LimitLog        = "limit/log"          // CycleDurable: an append-only log, grouped, fdatasync
	RawBoltDelete   = "raw-bbolt/deletes"  // SweepUnloaded: the same deletes, a batch each commit
	RawPebbleDelete = "raw-pebble/deletes" // SweepUnloaded: the same deletes, a batch each commit
	IdemPrefix      = "idem/"              // of idem's own: "idem/bolt"
	Uncached        = "/uncached"          // idem with its cache off: "idem/bolt/uncached"
)

var (
	// ErrAbsent is returned when what a contender needs is not on this machine; it
	// is wrapped with what is missing, and the report says so.
	ErrAbsent = errors.New("bench: absent")
	// ErrDone is returned by an operation that found nothing left to do: the
	// contender's slice ends without it, and it gets no more.
	ErrDone = errors.New("bench: done")
)

// Workload says what is measured, on how much of it and by how many. It is the
// same for every contender that it is compared with.
type Workload struct {
	// Group is one of the constants.
	Group string
	// Keys are the keys that are stored before, or are never; nil or empty in
	// cycles.
	Keys *Keys
	// ResultBytes is the size of Result.
	ResultBytes int
	// Procs is GOMAXPROCS while it runs, at most.
	Procs int
	// Callers is how many workers call Instance.Op at once, at most.
	Callers int
	// Batch is how many records one operation of SweepUnloaded removes.
	Batch int
}

// Result is what every operation is completed with: ResultBytes random bytes, the
// same ones each time. It is shared: read it only.
func (w Workload) Result() []byte { return randomBytes(w.ResultBytes) }

// Contender is one thing that is measured: idem on an engine, a bare engine, a
// rival, or a limit.
type Contender struct {
	// Name is unique in a group.
	Name string
	// Does says in a line what one operation does and what it syncs, for the report.
	Does string
	// External: the work is done in another process, so that allocations and memory
	// are not counted.
	External bool
	// Open stores Workload.Keys, as the group says, and returns what to measure. dir
	// is empty and the contender's own; what it needs to know about its work is in
	// w. ErrAbsent, wrapped, skips it with a note.
	Open func(dir string, w Workload) (Instance, error)
}

// Instance is a contender that is open.
type Instance struct {
	// Op runs one operation. Each worker, from 0 to Callers-1, calls it with n
	// counting up over the whole life of the instance; workers call it at once. An
	// answer other than the expected one is an error: it ends the run.
	Op func(worker int, n uint64) error
	// Pid is the process that writes for an External contender; 0: this one.
	Pid int
	// Close ends it. The directory is removed afterwards.
	Close func() error
}
