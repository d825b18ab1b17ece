package formattest

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
)

// Fill does to a new store what was done to the golden stores. open opens its engine
// and is called twice. inCommit writes the caller's own data in the commit that
// completes KeySameCommit with the result "charged".
func Fill(t testing.TB, open func() engine.Backend, inCommit func(s *idem.Store, r idem.Request)) (m Made) {
	t.Helper()
	ctx := context.Background()
	clock := idemtest.NewClock(Start())
	s := openStore(t, restored{open()}, clock)
	claim := func(r idem.Request) idem.Token {
		t.Helper()
		c, err := s.Claim(ctx, r)
		must(t, err)
		m.Tokens = append(m.Tokens, c.Token)
		return c.Token
	}
	complete := func(r idem.Request, result []byte) {
		t.Helper()
		must(t, s.Complete(ctx, claim(r), result))
	}

	claim(idem.Request{Key: KeyInFlight})
	token := claim(idem.Request{Key: KeyTakenOver, Lease: time.Second, Fingerprint: Fingerprint()})
	must(t, s.Checkpoint(ctx, token, []byte("step 1")))
	extended := claim(idem.Request{Key: KeyExtended, Lease: 10 * time.Second})

	clock.Advance(2 * time.Second)
	claim(idem.Request{Key: KeyTakenOver})
	must(t, s.Extend(ctx, extended, time.Hour))
	claim(idem.Request{Key: KeyHoldUnknown, HoldUnknown: true})
	token = claim(idem.Request{Key: KeyReleased})
	must(t, s.Checkpoint(ctx, token, []byte{}))
	must(t, s.Release(ctx, token, nil))
	must(t, s.Hold(ctx, claim(idem.Request{Key: KeyHeld}), []byte("timeout at the bank")))
	token = claim(idem.Request{Key: KeyCompleted, Fingerprint: Fingerprint()})

	clock.Advance(3 * time.Second)
	must(t, s.Complete(ctx, token, []byte(`{"charged":100}`)))
	complete(idem.Request{Key: KeyNil}, nil)
	complete(idem.Request{Key: KeyEmpty}, []byte{})
	complete(idem.Request{Key: KeyBinary}, Binary())
	if err := s.Complete(ctx, claim(idem.Request{Key: KeyDropped}), make([]byte, 1025)); !errors.Is(err, idem.ErrTooLarge) {
		t.Fatalf("golden: a result over Options.MaxResult: %v", err)
	}
	complete(idem.Request{Key: KeyForever, Retention: idem.Forever}, []byte("ok"))
	must(t, s.Fail(ctx, claim(idem.Request{Key: KeyFailed}), []byte("card declined")))
	complete(idem.Request{Key: KeyNUL}, []byte("NUL"))
	complete(idem.Request{Key: KeyNotUTF8}, []byte("not UTF-8"))
	complete(idem.Request{Key: KeyLong()}, []byte("long"))
	complete(idem.Request{Key: KeyExpired, Retention: time.Second}, []byte("gone"))
	claim(idem.Request{Key: KeyForgotten})
	must(t, s.Forget(ctx, idem.Token{Key: KeyForgotten}))
	must(t, s.Release(ctx, claim(idem.Request{Key: KeyReason}), Reason()))
	must(t, s.Release(ctx, claim(idem.Request{Key: KeyRetried}), Reason()))
	claim(idem.Request{Key: KeyRetried})
	must(t, s.Release(ctx, claim(idem.Request{Key: KeyBound, Fingerprint: Fingerprint()}), Reason()))
	must(t, s.Unclaim(ctx, claim(idem.Request{Key: KeyBound})))
	must(t, s.Unclaim(ctx, claim(idem.Request{Key: KeyUndone})))
	if err := s.Fail(ctx, claim(idem.Request{Key: KeyFailDropped}), make([]byte, 1025)); !errors.Is(err, idem.ErrTooLarge) {
		t.Fatalf("golden: a reason over Options.MaxResult: %v", err)
	}
	m.KeyHash = s.KeyHash(KeyCompleted)

	clock.Advance(4 * time.Second)
	must(t, s.Close())
	clock.Advance(51 * time.Second)
	s = openStore(t, open(), clock)
	claim(idem.Request{Key: KeySecondOpening, Lease: 2 * time.Hour})
	inCommit(s, idem.Request{Key: KeySameCommit})
	r, err := s.Get(ctx, KeySameCommit)
	must(t, err)
	m.Tokens = append(m.Tokens, r.Token())
	clock.Advance(40 * time.Second)
	must(t, s.Close())
	return m
}

// restored is an engine that reports lost records, as that of a restored backup would.
type restored struct{ engine.Backend }

func (r restored) Bind(host engine.Host) (engine.Binding, error) {
	binding, err := r.Backend.Bind(host)
	binding.Saved.LostUntil = LostUntil
	return binding, err
}

func openStore(t testing.TB, b engine.Backend, c engine.Clock) *idem.Store {
	t.Helper()
	s, err := idem.New(b, Options(c))
	must(t, err)
	return s
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatalf("golden: %v", err)
	}
}
