package oracle

import (
	"testing"

	"go.uber.org/goleak"
)

// A goroutine that a test left running keeps the watches of the other tests from
// finding that nobody moves. Mutants may leave some that wait.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/idemkv/idem.(*Store).Wait"))
}
