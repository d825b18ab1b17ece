package peers

import "github.com/idemkv/idem/bench"

// cycles is an instance for bench.CycleDurable: each operation makes the claim of
// a new key and its completion durable with commit, one after the other.
func cycles(w bench.Workload, s *stamps, commit func(*step) error, closing func() error) bench.Instance {
	steps := make([]step, w.Callers)
	result := w.Result()
	return bench.Instance{
		Op: func(worker int, n uint64) error {
			t := &steps[worker]
			t.claim(s, bench.Fresh(worker, n))
			if err := commit(t); err != nil {
				return err
			}
			t.complete(result)
			return commit(t)
		},
		Close: closing,
	}
}
