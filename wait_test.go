package idem_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/idemkv/idem"
)

type waited struct {
	rec idem.Record
	err error
}

// waitAll starts n calls of Wait in the current bubble, and returns when they wait.
func waitAll(t *testing.T, s *idem.Store, key string, n int) <-chan waited {
	t.Helper()
	out := make(chan waited, n)
	for range n {
		go func() {
			rec, err := s.Wait(context.Background(), key)
			out <- waited{rec, err}
		}()
	}
	synctest.Wait()
	if len(out) > 0 {
		w := <-out
		t.Fatalf("Wait returned at once: %v %v", w.rec, w.err)
	}
	return out
}
