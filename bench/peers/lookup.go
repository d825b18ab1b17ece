package peers

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/idemkv/idem/bench"
	"github.com/idemkv/idem/engine"
)

// absent is the size of a value that is not there.
const absent = -1

var (
	errMissing  = errors.New("peers: a key that was stored is not there")
	errShort    = errors.New("peers: the value of a key is shorter than what was stored")
	errUnlooked = errors.New("peers: a key that was never stored is there")
)

// recordHead is what a record of idem's has beside its result.
const recordHead = 124

// lookups is an instance for bench.GetHit and bench.GetMiss. get returns the size
// of the value that it has read, which is at least the result's and beside, or
// absent.
func lookups(w bench.Workload, beside int, closing func() error, get func(worker int, key string) (size int, err error)) bench.Instance {
	keys, least := w.Keys, w.ResultBytes+beside
	op := func(worker int, n uint64) error {
		size, err := get(worker, keys.Hit(worker, n))
		if err == nil && size < least {
			err = tooSmall(size)
		}
		return err
	}
	if w.Group == bench.GetMiss {
		op = func(worker int, n uint64) error {
			size, err := get(worker, keys.Miss(worker, n))
			if err == nil && size != absent {
				err = errUnlooked
			}
			return err
		}
	}
	return bench.Instance{Op: op, Close: closing}
}

func tooSmall(size int) error {
	if size == absent {
		return errMissing
	}
	return errShort
}

// buffer is what a worker reads into, and uses again.
type buffer struct {
	b, key []byte
	_      [16]byte // to a cache line
}

func newBuffers(w bench.Workload) []buffer { return make([]buffer, w.Callers) }

// deletes is an instance for bench.SweepUnloaded: each operation removes the next
// w.Batch of places, in order of time.
func deletes(w bench.Workload, places []engine.Due, closing func() error, remove func([]engine.Due) error) bench.Instance {
	var next atomic.Int64
	return bench.Instance{
		Op: func(int, uint64) error {
			from := int(next.Add(int64(w.Batch))) - w.Batch
			if from >= len(places) {
				return bench.ErrDone
			}
			return remove(places[from:min(from+w.Batch, len(places))])
		},
		Close: closing,
	}
}

// expectKeys returns an error unless found is how many keys w stores.
func expectKeys(w bench.Workload, found int) error {
	if found != w.Keys.Len() {
		return fmt.Errorf("peers: %d of %d keys are stored", found, w.Keys.Len())
	}
	return nil
}
