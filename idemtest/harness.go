package idemtest

import (
	"testing"
	"time"

	"github.com/idemkv/idem/engine"
)

// Harness describes an engine to the suite. Open is required, and so is OpenAgain
// unless the engine is Volatile. Any other nil hook skips the cases that need it. Hooks
// are called from the test's goroutine. They fail the test through t if they cannot do
// what they say.
type Harness struct {
	// Open opens the engine on dir, a folder of the case's own, and returns it unbound.
	// Called again on the same dir after Close, it opens what is there.
	Open func(t testing.TB, dir string) engine.Backend

	// OpenAgain tries to open the engine on dir while another Backend has it open. It
	// returns the error from opening. If opening succeeds, it closes what it opened.
	OpenAgain func(t testing.TB, dir string) error

	// Volatile: the engine loses everything on Close, like memory. Cases about a
	// reopened store then use a new, empty engine.
	Volatile bool

	// OpenBounded opens the engine with room for about records records of a few dozen
	// bytes each. Nil: the engine has no bound.
	OpenBounded func(t testing.TB, dir string, records int) engine.Backend

	// Stall makes every commit of b stop until release is called. It stops where the
	// engine has made the change visible internally but not durable: before the fsync.
	// reached is closed when the first commit has stopped there. release may be called
	// more than once; after it, b commits normally. Nil: the engine is not durable.
	Stall func(t testing.TB, b engine.Backend) (reached <-chan struct{}, release func())

	// FailCommit makes the next commit of b fail with an error although it took effect
	// inside the engine, as after an fsync that returns EIO. It may be called while
	// calls of b are under way. Reopening dir must work in this process. Nil: commits
	// cannot be made to fail.
	FailCommit func(t testing.TB, b engine.Backend)

	// Crash returns a folder with what the engine b, open on dir, would leave if its
	// process were killed at this moment. b is not disturbed and is closed later. No
	// call of b is under way, unless Stall holds its commit. Nil: a crash cannot be
	// staged in this process.
	Crash func(t testing.TB, b engine.Backend, dir string) (left string)

	// Damage flips one bit in the stored value of key's record. The engine on dir is
	// closed. Nil: the engine stores nothing that could be damaged.
	Damage func(t testing.TB, dir, key string)

	// OpenReadOnly opens the engine on dir for reading only; it is closed by now. Several may
	// be open at once. Nil: the engine cannot be opened like that.
	OpenReadOnly func(t testing.TB, dir string) engine.Backend

	// Backup makes a backup of the engine b, open on dir. It returns the backup's folder,
	// for Open. Nil: the engine makes none.
	Backup func(t testing.TB, b engine.Backend, dir string) (folder string)

	// Histories is how many random histories Run checks. Zero: 210, or 70 under the race
	// detector, or 20 with go test -short. The environment variable IDEMTEST_HISTORIES
	// overrides it.
	Histories int

	// Patience is how long all goroutines of the process must have been waiting, for
	// each other or for a timer, before a call counts as hung. A process that is
	// working, however slowly, is bounded only by go test. Zero: 30 s.
	Patience time.Duration
}
