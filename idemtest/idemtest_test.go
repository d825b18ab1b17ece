package idemtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestToy runs the suite on the toy without a fault, so that what fails a mutant is its
// fault.
func TestToy(t *testing.T) {
	t.Parallel()
	idemtest.Run(t, toyHarness(func(b *toy) engine.Backend { return b }))
}

// The engine of ExampleRun passes.
func TestShelf(t *testing.T) {
	t.Parallel()
	testShelf(t)
}
