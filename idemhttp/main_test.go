package idemhttp_test

import (
	"testing"

	"go.uber.org/goleak"
)

// No goroutine outlives the middleware and the clients of these tests: heartbeats,
// waiting requests, tries.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }
