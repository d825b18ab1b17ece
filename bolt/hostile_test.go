package bolt

import (
	"testing"

	"github.com/idemkv/idem/idemtest"
)

func TestHostile(t *testing.T) {
	t.Parallel()
	idemtest.RunHostile(t, harness())
}
