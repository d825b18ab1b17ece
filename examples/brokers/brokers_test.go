package brokers

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func openStore(t *testing.T, o idem.Options) *idem.Store {
	t.Helper()
	s, err := idem.New(memory.New(memory.Options{}), o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// bills is the handler of all three: it counts by ID, fails "busy" once, and "never"
// for good.
type bills struct {
	mu   sync.Mutex
	runs map[string]int
	done map[string]int
}

func newBills() *bills { return &bills{runs: map[string]int{}, done: map[string]int{}} }

func (b *bills) handle(_ context.Context, id string) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.runs[id]++
	switch {
	case id == "busy" && b.runs[id] == 1:
		return errors.New("the bank is busy")
	case id == "never":
		return idem.Permanent(errors.New("no such account"))
	}
	b.done[id]++
	return nil
}

// processed returns what was done, sorted; an ID twice if it was done twice.
func (b *bills) processed() (ids []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, id := range slices.Sorted(maps.Keys(b.done)) {
		for range b.done[id] {
			ids = append(ids, id)
		}
	}
	return ids
}
