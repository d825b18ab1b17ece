package bolt

import (
	"testing"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

func TestAllocs(t *testing.T) {
	s, _ := newStore(t, Options{}, idem.Options{SweepInterval: -1})
	storetest.LookupsAllocateNothing(t, s, false)
}
