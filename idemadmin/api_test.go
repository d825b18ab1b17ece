package idemadmin_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/internal/operator"
)

func TestAPIStatsAndHealth(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	s.everything()
	var stats operator.Stats
	s.api(http.MethodGet, "stats", "", http.StatusOK, &stats)
	assert.Equal(t, 3, stats.InFlight)
	assert.Equal(t, 2, stats.Lapsed)
	assert.InDelta(t, 120, stats.OldestInFlightSeconds, 0.001)
	var h operator.Health
	s.api(http.MethodGet, "health", "", http.StatusOK, &h)
	assert.Equal(t, operator.Health{Ready: true}, h)
}

// A program goes through a list of any length, at the size that it asks for.
func TestAPIList(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Look: 50})
	for i := range 120 {
		s.claim(idem.Request{Key: fmt.Sprint(i)})
	}
	seen := map[string]int{}
	looked := 0
	for after, n := "", 0; ; n++ {
		require.Less(t, n, 100)
		var l operator.List
		s.api(http.MethodGet, "records?limit=20&after="+after, "", http.StatusOK, &l)
		require.LessOrEqual(t, len(l.Records), 20)
		looked += l.Looked
		for _, r := range l.Records {
			seen[r.KeyHash]++
		}
		if after = l.Next; after == "" {
			break
		}
	}
	assert.Len(t, seen, 120)
	assert.Equal(t, 120, looked)
	var none operator.List
	s.api(http.MethodGet, "records?hash=0123456789ab", "", http.StatusOK, &none)
	assert.NotNil(t, none.Records, "an empty list is [], not null")
	for _, q := range []string{"limit=0", "limit=201", "limit=x", "limit=-1", "state=x", "stuck=x", "unsettled=2", "hash=x", "after=x"} {
		p := s.problem(http.MethodGet, "records?"+q, "", operator.TypeInvalid)
		assert.NotEmpty(t, p.Detail)
	}
}

func TestAPIRecord(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: all})
	c := s.claim(idem.Request{Key: "k"}, s.store.Hold)
	hash := s.store.KeyHash("k")
	var r operator.Record
	for _, q := range []string{"", "?fence=" + fence(c.Token)} {
		s.api(http.MethodGet, "records/"+hash+q, "", http.StatusOK, &r)
		assert.Equal(t, "k", r.Key)
		assert.Equal(t, "held", r.State)
		assert.Equal(t, fence(c.Token), r.Fence)
		assert.Equal(t, "why k", r.Result.Text)
		assert.Equal(t, operator.ReasonHeld, r.Stuck.Reason)
	}
	p := s.problem(http.MethodGet, "records/"+hash+"?fence=7", "", operator.TypeLost)
	assert.Equal(t, fence(c.Token), p.Record.Fence)
	p = s.problem(http.MethodGet, "records/"+s.store.KeyHash("absent"), "", operator.TypeNotFound)
	assert.Equal(t, s.store.KeyHash("absent"), p.KeyHash)
	s.problem(http.MethodGet, "records/x", "", operator.TypeInvalid)
	s.problem(http.MethodGet, "records/"+hash+"?fence=x", "", operator.TypeInvalid)
	s.problem(http.MethodGet, "nothing", "", operator.TypeNoPage)
	s.problem(http.MethodDelete, "records", "", operator.TypeMethod)
}

// A search that ends at its bound says where to go on, and ends in the record or in the
// certainty that there is none.
func TestAPIRecordSearchesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Look: 10})
	for i := range 35 {
		s.claim(idem.Request{Key: fmt.Sprint(i)})
	}
	search := func(hash, fence string) (found bool) {
		after := ""
		for range 10 {
			target := "api/records/" + hash + "?after=" + after + "&fence=" + fence
			w := s.ask("oncall", http.MethodGet, target, nil)
			if w.Code == http.StatusOK {
				return true
			}
			var p operator.Problem
			decode(t, w, &p)
			if found = found || len(p.Records) > 0; p.Type == operator.TypeNotFound {
				return found
			}
			require.Equal(t, operator.TypeNotReached, p.Type)
			after = p.Next
		}
		require.Fail(t, "the search has no end")
		return false
	}
	for i := range 35 {
		key := fmt.Sprint(i)
		require.True(t, search(s.store.KeyHash(key), fence(s.record(key).Token())), key)
		require.True(t, search(s.store.KeyHash(key), ""), key)
	}
	require.False(t, search("0123456789ab", "7"))
}

func decode(t *testing.T, w *httptest.ResponseRecorder, into any) {
	t.Helper()
	require.NoError(t, json.NewDecoder(w.Body).Decode(into))
}

func TestAPIFind(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: "k\xff"})
	token, err := c.Token.MarshalText()
	require.NoError(t, err)
	for _, body := range []string{`{"key_hex":"6bff"}`, `{"token":"` + string(token) + `"}`} {
		var r operator.Record
		s.api(http.MethodPost, "find", body, http.StatusOK, &r)
		assert.Equal(t, s.store.KeyHash("k\xff"), r.KeyHash)
		assert.Empty(t, r.KeyHex, "hidden")
	}
	stale, err := idem.Token{Key: "k\xff", Fence: c.Token.Fence - 1}.MarshalText()
	require.NoError(t, err)
	p := s.problem(http.MethodPost, "find", `{"token":"`+string(stale)+`"}`, operator.TypeLost)
	assert.Equal(t, fence(c.Token), p.Record.Fence)
	s.problem(http.MethodPost, "find", `{"key":"absent"}`, operator.TypeNotFound)
	for _, body := range []string{``, `{}`, `{"key":""}`, `{"key":"a","token":"b"}`, `{"key_hex":"x"}`, `{"token":"x"}`, `{"kee":"a"}`, `{"key":"a"} {}`, `[]`, `{"key":`, `{"key":"` + strings.Repeat("x", 1025) + `"}`} {
		p := s.problem(http.MethodPost, "find", body, operator.TypeInvalid)
		assert.NotContains(t, p.Detail, "kee", "the text of a body is not repeated")
	}
	s.problem(http.MethodPost, "find", `{"key":"`+strings.Repeat("x", 10_000)+`"}`, operator.TypeTooLarge)
}

func TestAPISettle(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: all})
	for action, want := range map[string]string{"complete": "completed", "fail": "failed", "release": "released", "hold": "held", "forget": ""} {
		c := s.claim(idem.Request{Key: action})
		body := `{"format":"text","payload":"by API","state":"in_flight"}`
		if action == "forget" {
			s.problem(http.MethodPost, "records/"+s.store.KeyHash(action)+"/"+fence(c.Token)+"/forget", body, operator.TypeInvalid)
			body = ""
		}
		var done operator.Settled
		s.api(http.MethodPost, "records/"+s.store.KeyHash(action)+"/"+fence(c.Token)+"/"+action, body, http.StatusOK, &done)
		assert.Equal(t, operator.Action(action), done.Action)
		assert.Equal(t, s.store.KeyHash(action), done.KeyHash)
		assert.Equal(t, fence(c.Token), done.Fence)
		if want == "" {
			assert.Nil(t, done.Record)
			continue
		}
		assert.Equal(t, want, done.Record.State)
		assert.Equal(t, "by API", done.Record.Result.Text)
	}
	c := s.claim(idem.Request{Key: "k"})
	at := "records/" + s.store.KeyHash("k") + "/" + fence(c.Token)
	s.problem(http.MethodPost, at+"/explode", `{}`, operator.TypeNoPage)
	s.problem(http.MethodPost, at+"/hold", `{"state":"gone"}`, operator.TypeInvalid)
	s.problem(http.MethodPost, at+"/hold", `{"format":"hex","payload":"x"}`, operator.TypeInvalid)
	s.problem(http.MethodPost, at+"/hold", `{"payload":"x"}`, operator.TypeInvalid)
	s.problem(http.MethodPost, at+"/hold", `{"payload":1}`, operator.TypeInvalid)
	s.problem(http.MethodPost, "records/x/1/hold", `{}`, operator.TypeInvalid)
	s.problem(http.MethodPost, "records/"+s.store.KeyHash("k")+"/x/hold", `{}`, operator.TypeInvalid)
	s.problem(http.MethodPost, "records/0123456789ab/1/hold", `{}`, operator.TypeLost)
	require.Equal(t, idem.InFlight, s.record("k").State)
	require.NotContains(t, s.log.text(), "by API")
}

// Settling beyond the bound of a search says so and changes nothing. Once the record has
// been found, it can be settled.
func TestAPISettleAfterASearch(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Look: 1})
	for i := range 5 {
		s.claim(idem.Request{Key: fmt.Sprint(i)})
	}
	refused := 0
	for i := range 5 {
		tok := s.record(fmt.Sprint(i)).Token()
		at := "records/" + s.store.KeyHash(tok.Key) + "/" + fence(tok) + "/hold"
		w := s.ask("oncall", http.MethodPost, "api/"+at, strings.NewReader(`{}`), "Content-Type", "application/json")
		if w.Code != http.StatusOK {
			refused++
			require.Equal(t, "refused", s.log.last(t)["outcome"])
			require.Equal(t, idem.InFlight, s.record(tok.Key).State)
			p := s.problem(http.MethodPost, at, `{}`, operator.TypeNotReached)
			for p.Type == operator.TypeNotReached {
				w = s.ask("oncall", http.MethodGet, "api/records/"+s.store.KeyHash(tok.Key)+"?fence="+fence(tok)+"&after="+p.Next, nil)
				p = operator.Problem{}
				if w.Code != http.StatusOK {
					decode(t, w, &p)
				}
			}
			require.Equal(t, http.StatusOK, w.Code)
			var done operator.Settled
			s.api(http.MethodPost, at, `{}`, http.StatusOK, &done)
		}
		require.Equal(t, idem.Held, s.record(tok.Key).State)
	}
	require.Equal(t, 4, refused)
}

// Two keys with one hash are both shown, and the fence says which is settled.
func TestKeysWithOneHash(t *testing.T) {
	t.Parallel()
	s := newSite(t, newSecretive(), idem.Options{}, idemadmin.Options{})
	const one, two = collisionA, collisionB
	hash := s.store.KeyHash(one)
	require.Equal(t, hash, s.store.KeyHash(two))
	a, b := s.claim(idem.Request{Key: one}, s.store.Hold), s.claim(idem.Request{Key: two}, s.store.Hold)
	p := s.problem(http.MethodGet, "records/"+hash, "", operator.TypeAmbiguous)
	require.Len(t, p.Records, 2)
	page := s.get("record?hash="+hash, http.StatusOK)
	assert.Contains(t, page, "Several keys have this hash.")
	assert.Contains(t, page, "fence="+fence(a.Token))
	assert.Contains(t, page, "fence="+fence(b.Token))
	for range 2 { // whichever was seen last
		s.get("record?hash="+hash+"&fence="+fence(a.Token), http.StatusOK)
		assert.Contains(t, s.get("record?hash="+hash+"&fence="+fence(b.Token), http.StatusOK), "Settle")
	}
	form := s.form("oncall", idemadmin.Release, a)
	require.Equal(t, http.StatusOK, s.post("oncall", "settle", form).Code)
	require.Equal(t, idem.Released, s.record(one).State)
	require.Equal(t, idem.Held, s.record(two).State)
	var done operator.Settled
	s.api(http.MethodPost, "records/"+hash+"/"+fence(b.Token)+"/complete", `{}`, http.StatusOK, &done)
	require.Equal(t, idem.Released, s.record(one).State)
	require.Equal(t, idem.Completed, s.record(two).State)
	s.problem(http.MethodPost, "records/"+hash+"/7/complete", `{}`, operator.TypeLost)
}

// Counting walks over the store once in a few seconds of its clock, however many ask.
func TestCountsAreKept(t *testing.T) {
	t.Parallel()
	b := newSecretive()
	s := newSite(t, b, idem.Options{}, idemadmin.Options{})
	s.claim(idem.Request{Key: "a"})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			s.ask("oncall", http.MethodGet, "", nil)
			s.ask("oncall", http.MethodGet, "api/stats", nil)
		})
	}
	all.Wait()
	require.EqualValues(t, 1, b.scans.Load())
	s.claim(idem.Request{Key: "b"})
	s.clock.Advance(5*time.Second - 1)
	var stats operator.Stats
	s.api(http.MethodGet, "stats", "", http.StatusOK, &stats)
	require.Equal(t, 1, stats.InFlight)
	s.clock.Advance(1)
	s.api(http.MethodGet, "stats", "", http.StatusOK, &stats)
	require.Equal(t, 2, stats.InFlight)
	require.EqualValues(t, 2, b.scans.Load())
}

// A request that is gone while it counts, or while it waits for one that does, spoils
// nothing for the others.
func TestCountsOfARequestThatLeaves(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, prefix+"api/stats", nil)
	r.Header.Set("X-User", "oncall")
	w := httptest.NewRecorder()
	s.admin.ServeHTTP(w, r)
	require.Equal(t, http.StatusServiceUnavailable, w.Code)
	var stats operator.Stats
	s.api(http.MethodGet, "stats", "", http.StatusOK, &stats)
}

// Counting that takes too long is given up, and not begun again at once.
func TestCountsGiveUp(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newSlow(time.Hour)
		s := newSite(t, b, idem.Options{}, idemadmin.Options{})
		for range 3 {
			p := s.problem(http.MethodGet, "stats", "", operator.TypeUnavailable)
			require.Equal(t, "timeout", p.Cause)
		}
		require.EqualValues(t, 1, b.scans.Load())
	})
}

// A store that takes longer to count than a page may wait can still be counted by the API.
// The page then shows those counts, and goes on showing them when it cannot get newer ones.
func TestCountsOfALargeStore(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newSlow(20 * time.Second)
		s := newSite(t, b, idem.Options{}, idemadmin.Options{})
		s.claim(idem.Request{Key: "a"})
		for range 2 {
			require.Contains(t, text(s.get("", http.StatusOK)), "too many to count for a page")
		}
		require.EqualValues(t, 1, b.scans.Load())
		var stats operator.Stats
		s.api(http.MethodGet, "stats", "", http.StatusOK, &stats)
		require.Equal(t, 1, stats.InFlight)
		s.claim(idem.Request{Key: "b"})
		s.clock.Advance(7 * time.Second)
		for range 2 {
			page := text(s.get("", http.StatusOK))
			require.Contains(t, page, "1 in flight")
			require.Contains(t, page, "Counted 7 s ago")
		}
		require.EqualValues(t, 3, b.scans.Load())
		s.api(http.MethodGet, "stats", "", http.StatusOK, &stats)
		require.Equal(t, 2, stats.InFlight, "who waits longer gets new ones")
	})
}
