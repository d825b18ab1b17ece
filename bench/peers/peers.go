// Package peers holds what idem is measured against: the limits (a bare log, bare
// engines that write the same bytes, raw maps) and what people use in its place
// (caches, badger, SQLite, Redis). Each is configured to be as fast as it can be
// while every step of a cycle is on the disk before the next one begins; cmd/syncs
// counts that. docs/BENCHMARKS.md says how to read the figures.
//
// # Limits
//
//   - limit/log: a file that was written over beforehand, as the recycled segments of
//     a log are, so that an fdatasync has no journal of the file system to commit; one
//     write and one fdatasync for all who wait, led by the first of them.
//   - floor-map: the fastest of sync.Map, xsync and a map in 64 shards, with one
//     reading of the clock and one copy of a Record. raw-map is without the two.
//   - raw-bbolt/grouped, raw-pebble/grouped: the engine with the options of idem's,
//     the record, index and meta bytes of idem, made by idem's own codec, and the group
//     commit of the log. Nothing is read, checked, cached or told to anybody.
//   - raw-bbolt/two, raw-pebble/two: the record and index bytes alone, a commit for
//     each step.
//   - raw-bbolt/one, raw-bbolt/two of same-commit effects: what one commit for
//     everything can gain over two.
//   - raw-bbolt/view, raw-pebble/get, raw-pebble/seek, raw-*/deletes: on stores that
//     idem has filled, so that the bytes lie as they lie for idem.
//
// # Rivals
//
//   - raw-bbolt/update, raw-pebble/per-op: what one writes by hand, with a look before
//     each claim. Pebble shares the syncs of its callers by itself.
//   - raw-bbolt/batch is DB.Batch as bbolt has it; raw-bbolt/batch/tuned knows how many
//     callers there are and sets off each batch with the last of them, which is the
//     fastest that was found, and more than a program can know of itself.
//   - badger: SyncWrites, transactions with conflict detection, a TTL on each entry;
//     no compression and, as its documentation advises then, no block cache; no
//     metrics. badger/grouped shares one transaction among those who wait, by the
//     group commit of the limits: the best that can be built on it.
//   - sqlite: WAL with synchronous=FULL, the least that syncs each commit; one
//     connection that keeps the file lock, prepared statements, a table that is its
//     own index, no index on the expiry. sqlite/grouped shares transactions likewise.
//   - redis: the machine's redis-server with appendfsync always, a Unix socket, no
//     snapshots and no rewriting of the log; a connection for each caller of go-redis,
//     without deadlines and retries. redis/pipelined sends the commands of all callers
//     by go-redis's AutoPipeline, which its makers advise for many.
//   - golang-lru, otter: caches without expiry that have room for every key.
//
// What rivals store for a claim is as little as they need, and no more than idem
// does: "in flight" and a TTL in badger and Redis, a row of five columns in SQLite.
package peers

import "github.com/idemkv/idem/bench"

// Contenders returns everything to compare idem with in the workload's group; what
// each does is in its Does.
func Contenders(w bench.Workload) []bench.Contender {
	switch w.Group {
	case bench.GetHit, bench.GetMiss:
		all := append(mapReads(), cacheReads()...)
		all = append(all, boltView())
		all = append(all, pebbleReads()...)
		return append(all, badgerReads(), sqliteReads(), redisReads())
	case bench.CycleDurable:
		all := append([]bench.Contender{limitLog()}, boltCycles()...)
		all = append(all, pebbleCycles()...)
		all = append(all, badgerCycle(), badgerGrouped(), sqliteCycle(), sqliteGrouped())
		return append(all, redisCycles()...)
	case bench.DoSameCommit:
		return boltEffects()
	case bench.SweepUnloaded:
		return []bench.Contender{boltDeletes(), pebbleDeletes()}
	}
	return nil
}
