package memory_test

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	idemtest.Run(t, idemtest.Harness{
		Open:     func(testing.TB, string) idem.Backend { return memory.New(memory.Options{}) },
		Volatile: true,
		OpenBounded: func(_ testing.TB, _ string, records int) idem.Backend {
			return memory.New(memory.Options{MaxRecords: int64(records)})
		},
	})
}
