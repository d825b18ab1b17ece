package idemadmin_test

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/operator"
)

// Each action, by the form, does what the store's method does, and the log says who did
// it to what. Neither the key nor the payload is in the log.
func TestSettleByForm(t *testing.T) {
	t.Parallel()
	for action, want := range map[idemadmin.Action]idem.State{
		idemadmin.Complete: idem.Completed, idemadmin.Fail: idem.Failed, idemadmin.Release: idem.Released, idemadmin.Hold: idem.Held, idemadmin.Forget: 0,
	} {
		t.Run(string(action), func(t *testing.T) {
			t.Parallel()
			s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
			c := s.claim(idem.Request{Key: "order 7"})
			form := s.form("oncall", action, c)
			if action != idemadmin.Forget {
				form.Set("payload", "line 1\r\nline 2 \xc3\xa9")
				form.Set("format", "text")
			}
			w := s.post("oncall", "settle", form)
			require.Equal(t, http.StatusOK, w.Code, w.Body)
			require.Contains(t, w.Body.String(), "done")
			if want == 0 {
				_, err := s.store.Get(t.Context(), "order 7")
				require.Equal(t, idem.ErrNotFound, err)
			} else {
				rec := s.record("order 7")
				assert.Equal(t, want, rec.State)
				assert.Equal(t, "line 1\nline 2 é", string(rec.Result), "browsers end lines with CR LF")
			}
			line := s.log.last(t)
			for name, value := range map[string]string{
				"level": "INFO", "who": "oncall", "action": string(action), "key_hash": s.store.KeyHash("order 7"), "fence": fence(c.Token), "outcome": "done",
			} {
				assert.Equal(t, value, line[name], name)
			}
			assert.NotContains(t, s.log.text(), "order 7")
			assert.NotContains(t, s.log.text(), "line 1")
		})
	}
}

// The payload as the operator writes it, and as it is stored.
func TestSettleFormats(t *testing.T) {
	t.Parallel()
	answer, err := idemhttp.Answer{Status: 201, Header: http.Header{"X-A": {"b"}}, Body: []byte("ok")}.MarshalBinary()
	require.NoError(t, err)
	for _, c := range []struct {
		format, text string
		want         []byte
	}{
		{"none", "", nil},
		{"text", "", nil},
		{"text", " x ", []byte(" x ")},
		{"json", `{"a":1}`, []byte(`{"a":1}`)},
		{"hex", "00 ff", []byte{0, 255}},
		{"http", "201\r\nX-A: b\r\n\r\nok", answer},
	} {
		s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
		form := s.form("oncall", idemadmin.Complete, s.claim(idem.Request{Key: "k"}))
		form.Set("format", c.format)
		form.Set("payload", c.text)
		w := s.post("oncall", "settle", form)
		require.Equal(t, http.StatusOK, w.Code, "%s: %s", c.format, w.Body)
		require.Equal(t, c.want, s.record("k").Result)
	}
	for _, c := range [][2]string{{"none", "x"}, {"json", ""}, {"json", "{secret"}, {"hex", "xyz"}, {"http", "secret"}, {"xml", "<secret/>"}} {
		s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
		form := s.form("oncall", idemadmin.Complete, s.claim(idem.Request{Key: "k"}))
		form.Set("format", c[0])
		form.Set("payload", c[1])
		w := s.post("oncall", "settle", form)
		require.Equal(t, http.StatusBadRequest, w.Code, "%s: %s", c[0], w.Body)
		require.NotContains(t, w.Body.String(), "secret")
		require.Equal(t, idem.InFlight, s.record("k").State)
	}
}

// The form of an operation that idemhttp keyed asks for an HTTP answer, since retries
// replay it as one.
func TestSettleFormOfAnHTTPOperation(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	for key, want := range map[string]string{"http/x": "http", "x": "json"} {
		q := s.named(s.claim(idem.Request{Key: key}, s.store.Hold))
		q.Set("action", "complete")
		require.Contains(t, s.get("settle?"+q.Encode(), http.StatusOK), `<option value="`+want+`" selected>`)
	}
}

// Nobody has looked twice: without the tick nothing is done.
func TestSettleTakesAConfirmation(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	form := s.form("oncall", idemadmin.Forget, s.claim(idem.Request{Key: "k"}))
	for _, sure := range []string{"", "no", "YES"} {
		form.Set("sure", sure)
		require.Equal(t, http.StatusBadRequest, s.post("oncall", "settle", form).Code)
	}
	s.record("k")
}

// The token of a form is good for what the form said: this user, action, record, claim and
// state, for half an hour, and this handler.
func TestSettleTokenIsBound(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c, other := s.claim(idem.Request{Key: "k"}), s.claim(idem.Request{Key: "other"})
	before, otherBefore := s.record("k"), s.record("other")
	form := s.form("oncall", idemadmin.Release, c)
	another := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	foreign := another.form("oncall", idemadmin.Release, another.claim(idem.Request{Key: "k"})).Get("token")
	refused := func(what, user string, change func(f url.Values)) {
		t.Helper()
		f := url.Values{}
		for name, values := range form {
			f[name] = []string{values[0]}
		}
		change(f)
		w := s.post(user, "settle", f)
		require.Equal(t, http.StatusBadRequest, w.Code, "%s: %s", what, w.Body)
		require.Equal(t, "refused", s.log.last(t)["outcome"], what)
		require.Equal(t, user, s.log.last(t)["who"], what)
	}
	refused("another user", "another", func(url.Values) {})
	refused("another action", "oncall", func(f url.Values) { f.Set("action", "forget") })
	refused("another record", "oncall", func(f url.Values) {
		f.Set("hash", s.named(other).Get("hash"))
		f.Set("fence", s.named(other).Get("fence"))
	})
	refused("another claim", "oncall", func(f url.Values) { f.Set("fence", "1") })
	refused("another state", "oncall", func(f url.Values) { f.Set("state", "held") })
	refused("no token", "oncall", func(f url.Values) { f.Del("token") })
	refused("another handler's", "oncall", func(f url.Values) { f.Set("token", foreign) })
	tok := form.Get("token")
	flipped := "A"
	if tok[0] == 'A' {
		flipped = "B"
	}
	refused("a later time", "oncall", func(f url.Values) { f.Set("token", flipped+tok[1:]) })
	refused("cut", "oncall", func(f url.Values) { f.Set("token", tok[:len(tok)-1]) })
	require.Equal(t, http.StatusBadRequest, s.post("oncall", "settle?"+form.Encode(), url.Values{}).Code, "the body alone counts")
	s.clock.Advance(30 * time.Minute)
	refused("late", "oncall", func(url.Values) {})
	require.Equal(t, before.Fence, s.record("k").Fence)
	require.Equal(t, idem.InFlight, s.record("k").State)
	require.Equal(t, otherBefore.State, s.record("other").State)

	fresh := s.form("oncall", idemadmin.Release, c)
	s.clock.Advance(30*time.Minute - 1)
	require.Equal(t, http.StatusOK, s.post("oncall", "settle", fresh).Code)
}

// A page of another site cannot settle anything, even with a good form: neither by the
// form nor by the API, which besides takes no form.
func TestSettleFromAnotherSite(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: "k"})
	form := s.form("oncall", idemadmin.Forget, c).Encode()
	api := "api/records/" + s.named(c).Get("hash") + "/" + s.named(c).Get("fence") + "/forget"
	const urlencoded, asJSON = "application/x-www-form-urlencoded", "application/json"
	for _, from := range [][2]string{
		{"Sec-Fetch-Site", "cross-site"}, {"Sec-Fetch-Site", "same-site"}, {"Origin", "https://evil.example"}, {"Origin", "null"},
	} {
		for target, media := range map[string]string{"settle": urlencoded, "find": urlencoded, api: asJSON, "api/find": asJSON} {
			body := form
			if media == asJSON {
				body = "{}"
			}
			w := s.ask("oncall", http.MethodPost, target, strings.NewReader(body), "Content-Type", media, from[0], from[1])
			require.Equal(t, http.StatusForbidden, w.Code, "%s from %v", target, from)
		}
	}
	for _, media := range []string{urlencoded, "text/plain", "multipart/form-data; boundary=x", ""} { // what a form can send
		w := s.ask("oncall", http.MethodPost, api, strings.NewReader("{}"), "Content-Type", media)
		require.Equal(t, http.StatusUnsupportedMediaType, w.Code, media)
	}
	for _, media := range []string{asJSON, "text/plain", "multipart/form-data; boundary=x", ""} {
		w := s.ask("oncall", http.MethodPost, "settle", strings.NewReader(form), "Content-Type", media)
		require.Equal(t, http.StatusUnsupportedMediaType, w.Code, media)
	}
	require.Equal(t, idem.InFlight, s.record("k").State)
	w := s.ask("oncall", http.MethodPost, "settle", strings.NewReader(form), "Content-Type", urlencoded, "Origin", "http://example.com")
	require.Equal(t, http.StatusOK, w.Code, "from the page itself: %s", w.Body)
}

// The log has every attempt to settle, also one that is turned away before anybody has read
// what it wants, and nothing of what a stranger sends.
func TestEveryAttemptToSettleIsLogged(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: "k"})
	form := s.form("oncall", idemadmin.Forget, c).Encode()
	api := "api/records/" + s.named(c).Get("hash") + "/" + s.named(c).Get("fence") + "/forget"
	const urlencoded, asJSON = "application/x-www-form-urlencoded", "application/json"
	lines := 0
	for _, try := range []struct {
		user, target, media, site, outcome string
	}{
		{"oncall", "settle", urlencoded, "cross-site", "from another site"},
		{"oncall", api, asJSON, "cross-site", "from another site"},
		{"stranger", "settle", urlencoded, "same-origin", "not allowed"},
		{"stranger", api, asJSON, "same-origin", "not allowed"},
		{"stranger", "api/records/evil/evil/evil", asJSON, "same-origin", "not allowed"},
		{"oncall", "settle", "text/plain", "same-origin", "refused"},
		{"oncall", "api/records/evil/1/forget", asJSON, "same-origin", "refused"},
		{"oncall", api, "text/plain", "same-origin", "refused"},
	} {
		s.ask(try.user, http.MethodPost, try.target, strings.NewReader(form), "Content-Type", try.media, "Sec-Fetch-Site", try.site)
		lines++
		require.Equal(t, lines, strings.Count(s.log.text(), "\n"), try)
		require.Equal(t, try.outcome, s.log.last(t)["outcome"], try)
		require.Equal(t, try.user, s.log.last(t)["who"], try)
	}
	require.NotContains(t, s.log.text(), "evil")
	s.post("stranger", "find", url.Values{"q": {"k"}})
	require.Equal(t, lines, strings.Count(s.log.text(), "\n"), "finding changes nothing")
	require.Equal(t, idem.InFlight, s.record("k").State)
}

// Looking never changes anything, whatever the query says.
func TestGetChangesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: "k"})
	for _, action := range operator.Actions() {
		form := s.form("oncall", idemadmin.Action(action), c)
		for _, target := range []string{"", "list", "stuck", "record", "settle", "api/records"} {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				s.ask("oncall", method, target+"?"+form.Encode(), nil)
			}
		}
	}
	rec := s.record("k")
	require.Equal(t, idem.InFlight, rec.State)
	require.Equal(t, c.Token.Fence, rec.Fence)
	require.Empty(t, s.log.text())
}

// Somebody else was faster. What is there now is shown, and stays.
func TestSettleLost(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		action  idemadmin.Action
		between func(s *site, c idem.Claim)
		shows   string
	}{
		"taken over": {idemadmin.Complete, func(s *site, _ idem.Claim) {
			s.clock.Advance(2 * time.Minute)
			s.claim(idem.Request{Key: "k"})
		}, "in flight"},
		"completed by its caller": {idemadmin.Fail, func(s *site, c idem.Claim) {
			require.NoError(s.t, s.store.Complete(s.t.Context(), c.Token, []byte("first")))
		}, "completed"},
		"completed with another result": {idemadmin.Complete, func(s *site, c idem.Claim) {
			require.NoError(s.t, s.store.Complete(s.t.Context(), c.Token, []byte("first")))
		}, "completed"},
		"completed before it is forgotten": {idemadmin.Forget, func(s *site, c idem.Claim) {
			require.NoError(s.t, s.store.Complete(s.t.Context(), c.Token, []byte("first")))
		}, "completed"},
		"released by another operator": {idemadmin.Complete, func(s *site, c idem.Claim) {
			require.NoError(s.t, s.store.Release(s.t.Context(), c.Token, nil))
		}, "released"},
		"forgotten": {idemadmin.Release, func(s *site, c idem.Claim) {
			require.NoError(s.t, s.store.Forget(s.t.Context(), c.Token))
		}, "Nothing is there"},
		"forgotten twice": {idemadmin.Forget, func(s *site, c idem.Claim) {
			require.NoError(s.t, s.store.Forget(s.t.Context(), c.Token))
		}, "Nothing is there"},
		"forgotten and claimed again": {idemadmin.Hold, func(s *site, c idem.Claim) {
			require.NoError(s.t, s.store.Forget(s.t.Context(), c.Token))
			s.claim(idem.Request{Key: "k"}, s.store.Complete)
		}, "completed"},
	} {
		for _, way := range []string{"form", "API"} {
			t.Run(name+" by "+way, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
				claim := s.claim(idem.Request{Key: "k"})
				form := s.form("oncall", c.action, claim)
				form.Set("payload", "mine")
				form.Set("format", "text")
				if c.action == idemadmin.Forget {
					form.Del("payload")
				}
				c.between(s, claim)
				before, beforeErr := s.store.Get(t.Context(), "k")
				if way == "form" {
					w := s.post("oncall", "settle", form)
					require.Equal(t, http.StatusConflict, w.Code, w.Body)
					require.Contains(t, w.Body.String(), c.shows)
				} else {
					p := s.problem(http.MethodPost, fmt.Sprintf("records/%s/%s/%s", form.Get("hash"), form.Get("fence"), c.action),
						fmt.Sprintf(`{"format":"text","payload":%q,"state":"in_flight"}`, form.Get("payload")), operator.TypeLost)
					require.Equal(t, beforeErr == nil, p.Record != nil)
					if p.Record != nil {
						require.Equal(t, before.State.String(), p.Record.State)
					}
				}
				after, afterErr := s.store.Get(t.Context(), "k")
				require.Equal(t, before, after)
				require.Equal(t, beforeErr, afterErr)
				require.Equal(t, "lost", s.log.last(t)["outcome"])
				require.Equal(t, "WARN", s.log.last(t)["level"])
			})
		}
	}
}

// The page that confirms says when an attempt may be at work, and is not shown for what
// cannot be done.
func TestSettlePage(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	all := s.everything()
	page := func(action, name string, status int) string {
		q := s.named(all[name])
		q.Set("action", action)
		return s.get("settle?"+q.Encode(), status)
	}
	assert.Contains(t, page("complete", "running", http.StatusOK), "may be at work")
	assert.NotContains(t, page("complete", "unknown", http.StatusOK), "may be at work")
	page("complete", "completed", http.StatusConflict)
	page("hold", "held", http.StatusConflict)
	page("explode", "held", http.StatusBadRequest)
	q := s.named(all["held"])
	q.Set("action", "forget")
	q.Del("fence")
	s.get("settle?"+q.Encode(), http.StatusBadRequest)
	q.Set("fence", "7")
	s.get("settle?"+q.Encode(), http.StatusConflict)
}

// Bodies that are too long, and payloads over the store's limit, change nothing.
func TestSettleTooLarge(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{MaxResult: 1000}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: "k"})
	form := s.form("oncall", idemadmin.Complete, c)
	form.Set("format", "text")
	api := "records/" + form.Get("hash") + "/" + form.Get("fence") + "/complete"
	for _, n := range []int{1001, 100_000} {
		form.Set("payload", strings.Repeat("x", n))
		require.Equal(t, http.StatusRequestEntityTooLarge, s.post("oncall", "settle", form).Code, n)
		s.problem(http.MethodPost, api, `{"format":"text","payload":"`+form.Get("payload")+`"}`, operator.TypeTooLarge)
	}
	require.Equal(t, idem.InFlight, s.record("k").State)
	form.Set("payload", strings.Repeat("\x01", 1000)) // three bytes each in a form
	w := s.post("oncall", "settle", form)
	require.Equal(t, http.StatusOK, w.Code, w.Body)
	require.Len(t, s.record("k").Result, 1000)
}

// A record that cannot be read is listed, and can be forgotten and nothing else.
func TestSettleUnreadable(t *testing.T) {
	t.Parallel()
	b := newBad("bad")
	s := newSite(t, b, idem.Options{}, idemadmin.Options{})
	s.claim(idem.Request{Key: "good"})
	hash := s.store.KeyHash("bad")
	for _, target := range []string{"list", "stuck", "record?hash=" + hash, "record?hash=" + hash + "&fence=0"} {
		body := s.get(target, http.StatusOK)
		require.Contains(t, body, "unreadable", target)
		require.Contains(t, body, hash, target)
	}
	var rec operator.Record
	s.api(http.MethodGet, "records/"+hash, "", http.StatusOK, &rec)
	require.Equal(t, []operator.Action{operator.Forget}, rec.Actions)
	require.Equal(t, "0", rec.Fence)
	require.NotEmpty(t, rec.Error)
	for _, action := range operator.Actions() {
		if action == operator.Forget {
			continue
		}
		s.get("settle?action="+string(action)+"&fence=0&hash="+hash, http.StatusConflict)
		p := s.problem(http.MethodPost, "records/"+hash+"/0/"+string(action), `{}`, operator.TypeInvalid)
		require.NotContains(t, p.Detail, "bad")
	}
	s.problem(http.MethodPost, "records/"+s.store.KeyHash("good")+"/0/forget", `{}`, operator.TypeLost)
	s.record("good")
	form := s.form("oncall", idemadmin.Forget, idem.Claim{Token: idem.Token{Key: "bad"}})
	require.Equal(t, http.StatusOK, s.post("oncall", "settle", form).Code)
	_, err := s.store.Get(t.Context(), "bad")
	require.Equal(t, idem.ErrNotFound, err)
}
