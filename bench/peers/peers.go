// Package peers holds what idem is measured against: the limits (a bare log, bare
// engines that write the same bytes, raw maps) and what people use in its place
// (caches, badger, SQLite, Redis). Each is configured to be as fast as it can be
// while it does what it is asked for; docs/BENCHMARKS.md says how and why.
package peers

import "github.com/idemkv/idem/bench"

// Contenders returns everything to compare idem with in the workload's group; what
// a contender does is in its Does.
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
	case bench.SweepUnloaded:
		return []bench.Contender{boltDeletes(), pebbleDeletes()}
	}
	return nil
}
