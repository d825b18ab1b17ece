package memory_test

import (
	"testing"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

func TestHostile(t *testing.T) {
	t.Parallel()
	idemtest.RunHostile(t, idemtest.Harness{
		Open:     func(testing.TB, string) idem.Backend { return memory.New(memory.Options{}) },
		Volatile: true,
	})
}
