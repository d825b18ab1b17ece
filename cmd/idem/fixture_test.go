package main

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemtest"
	idempebble "github.com/idemkv/idem/pebble"
)

func openEngine(k kind, path string) (engine.Backend, error) {
	if k == pebbleKind {
		return idempebble.Open(path, idempebble.Options{})
	}
	return bolt.Open(path, bolt.Options{})
}

// mkstoreMain is the program mkstore: mkstore bolt|pebble PATH [killed]. A store that is
// killed is not closed: the process ends while it has it open.
func mkstoreMain() {
	k, path := kind(os.Args[1]), os.Args[2]
	must(os.MkdirAll(filepath.Dir(path), 0o755))
	s, _ := fill(k, path)
	if len(os.Args) > 3 {
		p, err := os.FindProcess(os.Getpid())
		must(err)
		must(p.Signal(syscall.SIGKILL))
		select {}
	}
	must(s.Close())
}

// past is how long ago the fixture's story ends.
const past = 3 * time.Hour

// fill makes a store with an operation of every kind, by a clock that ends three hours
// ago. Each is claimed a minute after the one before.
func fill(k kind, path string) (*idem.Store, *idemtest.Clock) {
	b, err := openEngine(k, path)
	must(err)
	clock := idemtest.NewClock(time.Now().Add(-past - 15*time.Minute))
	s, err := idem.New(b, idem.Options{Clock: clock, SweepInterval: -1})
	must(err)
	ctx := context.Background()
	claim := func(r idem.Request) idem.Token {
		c, err := s.Claim(ctx, r)
		must(err)
		clock.Advance(time.Minute)
		return c.Token
	}
	answer, err := idemhttp.Answer{
		Status: http.StatusCreated,
		Header: http.Header{"Content-Type": {"application/json"}, "Location": {"/orders/2"}},
		Body:   []byte(`{"order":2}`),
	}.MarshalBinary()
	must(err)
	must(s.Complete(ctx, claim(idem.Request{Key: "order-1", Fingerprint: idem.FingerprintOf([]byte("19.99"))}), []byte(`{"paid":true,"reference":"4711"}`)))
	must(s.Complete(ctx, claim(idem.Request{Key: "order-2"}), answer))
	must(s.Fail(ctx, claim(idem.Request{Key: "order-3"}), []byte("card declined")))
	must(s.Hold(ctx, claim(idem.Request{Key: "order-4"}), []byte("the bank timed out, ticket 12")))
	claim(idem.Request{Key: "order-5", HoldUnknown: true})
	six := claim(idem.Request{Key: "order-6", Lease: 90 * time.Second})
	must(s.Checkpoint(ctx, six, []byte(`{"step":"reserved"}`)))
	must(s.Release(ctx, claim(idem.Request{Key: "order-7"}), []byte("bank busy")))
	must(s.Release(ctx, claim(idem.Request{Key: "order-7"}), []byte("bank busy again")))
	claim(idem.Request{Key: "order-8", Lease: 24 * time.Hour})
	must(s.Complete(ctx, claim(idem.Request{Key: "order-9", Retention: idem.Forever}), []byte{0, 1, 2, 0xfe, 0xff}))
	must(s.Complete(ctx, claim(idem.Request{Key: "order-91", Retention: time.Minute}), nil))
	must(s.Complete(ctx, claim(idem.Request{Key: "tenant 7\x00\x1b[31m"}), []byte("fine\nor\x1b[2Jnot")))
	return s, clock
}
