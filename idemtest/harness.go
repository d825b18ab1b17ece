package idemtest

import (
	"testing"
	"time"

	"github.com/idemkv/idem/engine"
)

// Harness is what the suite must know of an engine. Open is required, and OpenAgain too
// unless the engine is Volatile; any other nil hook skips the cases that need it. Hooks are called from the test's goroutine
// and fail the test through t if they cannot do what they say.
type Harness struct {
	// Open opens the engine on dir, a folder of the case's own, and returns it
	// unbound. Called again on the same dir after Close, it opens what is there.
	Open func(t testing.TB, dir string) engine.Backend

	// OpenAgain tries to open the engine on dir while another Backend has it, closes what
	// it opened if it could, and returns the error of opening.
	OpenAgain func(t testing.TB, dir string) error

	// Volatile: what the engine holds is gone after Close, as with memory. Cases
	// about a reopened store are then about the next, empty engine.
	Volatile bool

	// OpenBounded opens the engine with room for about that many records of a few
	// dozen bytes each. Nil: the engine has no bound.
	OpenBounded func(t testing.TB, dir string, records int) engine.Backend

	// Stall makes every commit of b stop, until release is called, where the engine
	// itself has made the change visible and it is not durable yet: before the
	// fsync. reached is closed when the first commit has stopped there. release
	// may be called more than once; after it b commits as ever. Nil: the engine is
	// not durable.
	Stall func(t testing.TB, b engine.Backend) (reached <-chan struct{}, release func())

	// FailCommit makes the next commit of b fail with an error although it took
	// effect inside the engine, as after an fsync that answers EIO. It may be called
	// while calls of b are under way. Reopening dir must work in this process. Nil:
	// commits cannot be made to fail.
	FailCommit func(t testing.TB, b engine.Backend)

	// Crash returns a folder that holds what is left of the engine b, open on dir,
	// when its process is killed at this moment. b is not disturbed and is closed
	// later. No call of b is under way, unless Stall holds its commit. Nil: no crash
	// can be staged in this process.
	Crash func(t testing.TB, b engine.Backend, dir string) (left string)

	// Damage flips one bit in the stored value of key's record; the engine on dir
	// is closed. Nil: the engine keeps nothing to be damaged.
	Damage func(t testing.TB, dir, key string)

	// Histories is how many random histories Run checks. Zero: 200, 70 under the race
	// detector, or 20 with go test -short. The environment variable IDEMTEST_HISTORIES
	// outranks it.
	Histories int

	// Patience is how long all goroutines of the process must have waited, for each
	// other or for a timer, before what has not returned counts as hung. A process
	// that works, however slowly, has no bound but that of go test. Zero: 30 s.
	Patience time.Duration
}
