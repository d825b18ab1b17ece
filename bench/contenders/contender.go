// Package contenders holds what is measured: idem on its engines, the limits (a bare
// log, bare engines that write the same bytes, raw maps) and what people use instead
// (caches, Badger, SQLite, Redis). The program in the folder above measures them, and
// docs/BENCHMARKS.md says how to read the figures.
//
// Each rival is as fast as it can be while every step of a cycle is on disk before the
// next begins; the program counts the syncs. A rival stores as little for a claim as it
// needs, and no more than idem stores.
//
// Limits:
//
//   - limit-log: a file that was written over beforehand, as the recycled segments of a
//     log are. One write and one fdatasync for all who wait, led by the first of them.
//   - floor-map: sync.Map, xsync and a map in 64 shards, with one reading of the clock
//     and one copy of a Record. raw-map is without the two.
//   - raw-bbolt-grouped, raw-pebble-grouped: the engine with idem's options, idem's
//     record, index and meta bytes made by idem's codec, and the group commit of the
//     log. Nothing is read, checked or cached.
//   - raw-bbolt-two, raw-pebble-two: the record and index bytes alone, a commit a step.
//   - raw-bbolt-one, raw-bbolt-two of same-commit effects: what one commit for everything
//     can gain over two.
//   - raw-bbolt-view, raw-pebble-get, raw-pebble-seek, raw-*-deletes: on stores that
//     idem filled, where the bytes lie as they lie for idem.
//
// Rivals:
//
//   - raw-bbolt-update, raw-pebble-per-op: what one writes by hand, with a look before
//     each claim. Pebble shares the syncs of its callers by itself.
//   - raw-bbolt-batch is DB.Batch as bbolt has it. raw-bbolt-batch-tuned knows how many
//     callers there are and sets off each batch with the last of them.
//   - badger: SyncWrites, conflict detection, a TTL on each entry, no compression and
//     therefore no block cache. badger-grouped shares one transaction among those who
//     wait, by the group commit of the limits: the best that can be built on it.
//   - sqlite: WAL with synchronous=FULL, one connection that keeps the file lock, a table
//     that is its own index, no index on the expiry. sqlite-grouped shares transactions.
//   - redis: the machine's redis-server with appendfsync always on a Unix socket, a
//     connection for each caller. redis-pipelined uses go-redis's AutoPipeline.
//   - golang-lru, otter: caches without expiry and with room for every key.
package contenders

import "errors"

// The groups of workloads, and what one operation is in each.
const (
	// GetHit looks Keys.Hit(worker, n) up. All Keys were stored as completed, in the
	// order of Keys.Fill, and the store was flushed and compacted.
	GetHit = "Get/hit"
	// GetMiss looks Keys.Miss(worker, n) up, which was never stored.
	GetMiss = "Get/miss"
	// ClaimReplay claims Keys.Hit(worker, n) and gets the stored result.
	ClaimReplay = "Claim/replay"
	// CycleDurable claims Fresh(worker, n), then completes it with Result. Each step is
	// on disk before the next begins.
	CycleDurable = "Cycle/durable"
	// CycleMemory is the same without a disk.
	CycleMemory = "Cycle/memory"
	// DoSameCommit is CycleDurable with a write of the caller's own (the key and Result)
	// in the commit of the completion.
	DoSameCommit = "Do/same-commit"
	// SweepUnloaded removes the next Workload.Batch of the Keys, which were stored as
	// expired with their index entries. It is durable when it returns.
	SweepUnloaded = "Sweep/unloaded"
)

var (
	// ErrAbsent, wrapped with what is missing, skips a contender with a note.
	ErrAbsent = errors.New("absent")
	// ErrDone is returned by an operation that found nothing left to do.
	ErrDone = errors.New("nothing left to do")
)

// Workload says what is measured, on how much of it and by how many. It is the same for
// all that are compared.
type Workload struct {
	Group       string
	Keys        *Keys // stored before the first operation; nil in cycles
	ResultBytes int
	Procs       int     // GOMAXPROCS, at most
	Callers     int     // workers that call Instance.Op at once, at most
	Batch       int     // records that one operation of SweepUnloaded removes
	Filled      *Filled // makes the stores that hold Keys
}

// Result is what every operation is completed with: random bytes, the same each time.
func (w Workload) Result() []byte { return randomBytes(w.ResultBytes) }

// Contender is one thing that is measured.
type Contender struct {
	// Name is unique in a group. Names that begin with raw- or limit- or floor- are bare
	// engines and limits.
	Name string
	// Does says what one operation does and syncs, for the report.
	Does string
	// External: another process does the work, whose allocations are not counted.
	External bool
	// Open stores Workload.Keys, as the group says. dir is empty and the contender's own.
	Open func(dir string, w Workload) (Instance, error)
}

// Instance is a contender that is open.
type Instance struct {
	// Op runs one operation. Workers call it at once, each with n counting up over the
	// whole life of the instance. An answer other than the expected one is an error.
	Op func(worker int, n uint64) error
	// Pid is the process that writes for an External contender; 0: this one.
	Pid   int
	Close func() error
}

// All returns everybody who takes part in a group, idem first.
func All(group string) []Contender {
	all := Idem(group)
	switch group {
	case GetHit, GetMiss:
		all = append(append(append(all, mapReads()...), cacheReads()...), boltView())
		all = append(append(all, pebbleReads()...), badgerReads(), sqliteReads(), redisReads())
	case CycleDurable:
		all = append(append(append(all, limitLog()), boltCycles()...), pebbleCycles()...)
		all = append(append(all, badgerCycle(), badgerGrouped(), sqliteCycle(), sqliteGrouped()), redisCycles()...)
	case DoSameCommit:
		all = append(all, boltEffects()...)
	case SweepUnloaded:
		all = append(all, boltDeletes(), pebbleDeletes())
	}
	return all
}

// opened makes an Open of a function that opens something and one that uses it.
func opened[T any](open func(dir string, w Workload) (T, error), use func(T, Workload) (Instance, error)) func(string, Workload) (Instance, error) {
	return func(dir string, w Workload) (Instance, error) {
		t, err := open(dir, w)
		if err != nil {
			return Instance{}, err
		}
		return use(t, w)
	}
}
