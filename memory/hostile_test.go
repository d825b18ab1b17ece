package memory_test

import (
	"testing"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

func TestHostile(t *testing.T) {
	t.Parallel()
	idemtest.RunHostile(t, idemtest.Harness{
		Open:     func(testing.TB, string) engine.Backend { return memory.New(memory.Options{}) },
		Volatile: true,
	})
}
