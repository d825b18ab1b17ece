package formattest

import (
	"context"
	"testing"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
)

// CheckUnreadable tests an engine on a golden store in which reading the record of key
// returns want, ErrCorrupt or ErrVersion. The record is never granted, replayed or
// swept. Every other key works, and key can be forgotten.
func CheckUnreadable(t *testing.T, b engine.Backend, m Made, key string, want error) {
	t.Helper()
	ctx := context.Background()
	clock := idemtest.NewClock(Start().Add(110 * time.Second))
	s := openStore(t, b, clock)
	defer func() { must(t, s.Close()) }()
	token := idem.Token{Key: key, Fence: m.Entries()[key].Fence}
	_, err := s.Get(ctx, key)
	is(t, "Get", err, want)
	c, err := s.Claim(ctx, idem.Request{Key: key})
	is(t, "Claim", err, want)
	equal(t, "claim", idem.Claim{Record: idem.Record{Key: key}}, c)
	_, err = s.Wait(ctx, key)
	is(t, "Wait", err, want)
	is(t, "Complete", s.Complete(ctx, token, m.Entries()[key].Result), want)
	is(t, "Release", s.Release(ctx, token, nil), want)
	many := s.ClaimMany(ctx, []idem.Request{{Key: key}, {Key: KeyNil}})
	is(t, "ClaimMany of it", many[0].Err, want)
	is(t, "ClaimMany of another", many[1].Err, idem.ErrCompleted)

	unreadable := 0
	for r, err := range s.Records(ctx, idem.Filter{}) {
		if r.Key == key {
			is(t, "Records", err, want)
			unreadable++
		} else {
			must(t, err)
			equal(t, r.Key, m.Entries()[r.Key].Result, r.Result)
		}
	}
	equal(t, "times it was listed", 1, unreadable)
	st, err := s.Stats(ctx)
	must(t, err)
	equal(t, "Stats.Corrupt", 1, st.Corrupt)

	clock.Advance(365 * 24 * time.Hour) // its place is due, and the sweep skips it
	removed, err := s.Sweep(ctx, 1000)
	must(t, err)
	equal(t, "removed", len(m.Entries())-1-3, removed) // 3 never expire
	_, err = s.Get(ctx, key)
	is(t, "Get after the sweep", err, want)
	_, err = s.Claim(ctx, idem.Request{Key: key})
	is(t, "Claim after the sweep", err, want)

	must(t, s.Forget(ctx, idem.Token{Key: key}))
	c, err = s.Claim(ctx, idem.Request{Key: key})
	must(t, err)
	if c.Token.Fence <= m.Meta().Fence {
		t.Errorf("fence %d, after %d", c.Token.Fence, m.Meta().Fence)
	}
	is(t, "Complete with the old token", s.Complete(ctx, token, nil), idem.ErrFenced)
	removed, err = s.Sweep(ctx, 1000) // finds the place left behind
	must(t, err)
	equal(t, "removed", 0, removed)
	r, err := s.Get(ctx, key)
	must(t, err)
	equal(t, "fence", c.Token.Fence, r.Fence)
}
