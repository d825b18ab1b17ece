package contenders

import (
	"errors"
	"fmt"
	"sync/atomic"

	"github.com/idemkv/idem/engine"
)

// absent is the size of a value that is not there.
const absent = -1

var (
	errMissing  = errors.New("a key that was stored is not there")
	errShort    = errors.New("the value of a key is shorter than what was stored")
	errUnlooked = errors.New("a key that was never stored is there")
)

// recordHead is what a record of idem's has beside its result.
const recordHead = 124

// lookups is an instance for GetHit and GetMiss. get returns the size
// of the value that it has read, which is at least the result's and beside, or
// absent.
func lookups(w Workload, beside int, closing func() error, get func(worker int, key string) (size int, err error)) (Instance, error) {
	keys, least := w.Keys, w.ResultBytes+beside
	op := func(worker int, n uint64) error {
		size, err := get(worker, keys.Hit(worker, n))
		if err == nil && size < least {
			err = tooSmall(size)
		}
		return err
	}
	if w.Group == GetMiss {
		op = func(worker int, n uint64) error {
			size, err := get(worker, keys.Miss(worker, n))
			if err == nil && size != absent {
				err = errUnlooked
			}
			return err
		}
	}
	return Instance{Op: op, Close: closing}, nil
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

func newBuffers(w Workload) []buffer { return make([]buffer, w.Callers) }

// deletes is an instance for SweepUnloaded: each operation removes the next
// w.Batch of places, in order of time.
func deletes(w Workload, places []engine.Due, closing func() error, remove func([]engine.Due) error) (Instance, error) {
	var next atomic.Int64
	return Instance{
		Op: func(int, uint64) error {
			from := int(next.Add(int64(w.Batch))) - w.Batch
			if from >= len(places) {
				return ErrDone
			}
			return remove(places[from:min(from+w.Batch, len(places))])
		},
		Close: closing,
	}, nil
}

// expectKeys returns an error unless found is how many keys w stores.
func expectKeys(w Workload, found int) error {
	if found != w.Keys.Len() {
		return fmt.Errorf("%d of %d keys are stored", found, w.Keys.Len())
	}
	return nil
}
