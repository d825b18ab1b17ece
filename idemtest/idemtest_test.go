package idemtest_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestMemory and TestToy run the suite on two engines without a fault, a volatile
// one and a durable one, so that what fails a mutant is its fault.
func TestMemory(t *testing.T) {
	t.Parallel()
	idemtest.Run(t, idemtest.Harness{
		Open:     func(testing.TB, string) engine.Backend { return memory.New(memory.Options{}) },
		Volatile: true,
		OpenBounded: func(_ testing.TB, _ string, records int) engine.Backend {
			return memory.New(memory.Options{MaxRecords: int64(records)})
		},
	})
}

func TestToy(t *testing.T) {
	t.Parallel()
	idemtest.Run(t, toyHarness(func(b *toy) engine.Backend { return b }))
}

// The engine of ExampleRun passes.
func TestShelf(t *testing.T) {
	t.Parallel()
	testShelf(t)
}
