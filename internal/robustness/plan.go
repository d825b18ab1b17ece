package robustness

import (
	"math/rand/v2"
	"time"

	"github.com/idemkv/idem/internal/robustness/oracle"
)

// RandomPlan returns a life of the store at path, from rng. n is its number.
func RandomPlan(rng *rand.Rand, engine, path string, n int) Plan {
	pick := func(of ...int) int { return of[rng.IntN(len(of))] }
	return Plan{
		Engine: engine, Path: path,
		Life: oracle.Life{N: n, LapseOnOpen: rng.IntN(3) == 0, MaxAttempts: pick(0, 0, 4)},
		Load: oracle.Workload{
			Seed: rng.Uint64(), Life: n, Keys: pick(4, 12, 24), Workers: pick(2, 8, 12),
			Lease:     time.Duration(pick(2, 10, 50)) * time.Millisecond,
			Retention: time.Duration(pick(10, 50, 200)) * time.Millisecond,
			MaxBytes:  pick(200, 4<<10, 20<<10),
		},
		CacheBytes: int64(pick(0, 0, -1, 4<<10)),
		Sizes:      Sizes{Map: pick(0, 1<<15, 1<<15), MemTable: int64(pick(0, 32<<10, 32<<10))},
	}
}
