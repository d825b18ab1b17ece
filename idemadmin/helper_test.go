package idemadmin_test

import (
	"bytes"
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/operator"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// site is a store with its admin pages, mounted at /ops/idem.
type site struct {
	t     *testing.T
	store *idem.Store
	clock *idemtest.Clock
	admin http.Handler
	log   *logbook

	mayOnly map[string]bool // what oncall may do; nil: everything
}

// logbook collects log lines.
type logbook struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logbook) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logbook) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// last is the last line.
func (l *logbook) last(t *testing.T) map[string]any {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(l.text()), "\n")
	var m map[string]any
	require.NoError(t, json.Unmarshal([]byte(lines[len(lines)-1]), &m), "a line was logged")
	return m
}

// newSite serves a store on b, in memory if nil.
func newSite(t *testing.T, b engine.Backend, so idem.Options, o idemadmin.Options) *site {
	t.Helper()
	s := &site{t: t, clock: idemtest.NewClock(time.Unix(1_800_000_000, 0)), log: &logbook{}}
	if b == nil {
		b = memory.New(memory.Options{})
	}
	so.Clock, so.SweepInterval = s.clock, -1
	if so.Lease == 0 {
		so.Lease = time.Minute
	}
	s.store = storetest.Open(t, b, so)
	o.Authorize = s.authorize
	o.Logger = slog.New(slog.NewJSONHandler(s.log, nil))
	if o.Title == "" {
		o.Title = "Payments"
	}
	h, err := idemadmin.New(s.store, o)
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/ops/idem/", http.StripPrefix("/ops/idem", h))
	s.admin = mux
	return s
}

// authorize knows its users by a header.
func (s *site) authorize(r *http.Request, a idemadmin.Action) (string, bool) {
	switch who := r.Header.Get("X-User"); who {
	case "oncall", "another":
		return who, a == idemadmin.Read || s.mayOnly == nil || s.mayOnly[string(a)]
	case "reader":
		return who, a == idemadmin.Read
	case "nameless":
		return "", true
	default:
		return who, false
	}
}

const prefix = "/ops/idem/"

// ask sends a request of user to a path below the prefix.
func (s *site) ask(user, method, target string, body io.Reader, header ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequestWithContext(s.t.Context(), method, prefix+target, body)
	r.Header.Set("X-User", user)
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.admin.ServeHTTP(w, r)
	return w
}

// get requires a page of the status.
func (s *site) get(target string, status int) string {
	s.t.Helper()
	w := s.ask("oncall", http.MethodGet, target, nil)
	require.Equal(s.t, status, w.Code, "%s: %s", target, w.Body)
	return w.Body.String()
}

func (s *site) post(user, target string, form url.Values) *httptest.ResponseRecorder {
	s.t.Helper()
	return s.ask(user, http.MethodPost, target, strings.NewReader(form.Encode()),
		"Content-Type", "application/x-www-form-urlencoded", "Sec-Fetch-Site", "same-origin")
}

// api requires an answer of the API, and decodes it.
func (s *site) api(method, target, body string, status int, into any) {
	s.t.Helper()
	w := s.ask("oncall", method, "api/"+target, strings.NewReader(body), "Content-Type", "application/json")
	require.Equal(s.t, status, w.Code, "%s: %s", target, w.Body)
	want := "application/json"
	if status != http.StatusOK && !strings.HasPrefix(target, "health") {
		want = "application/problem+json"
	}
	require.Equal(s.t, want, w.Header().Get("Content-Type"))
	d := json.NewDecoder(w.Body)
	d.DisallowUnknownFields()
	require.NoError(s.t, d.Decode(into))
}

func (s *site) problem(method, target, body string, kind string) operator.Problem {
	s.t.Helper()
	var p operator.Problem
	s.api(method, target, body, operator.NewProblem(kind, "").Status, &p)
	require.Equal(s.t, kind, p.Type)
	require.NotEmpty(s.t, p.Title)
	return p
}

// claim claims key and lets settle do the rest.
func (s *site) claim(r idem.Request, settle ...func(context.Context, idem.Token, []byte) error) idem.Claim {
	s.t.Helper()
	c, err := s.store.Claim(s.t.Context(), r)
	require.NoError(s.t, err)
	for _, f := range settle {
		require.NoError(s.t, f(s.t.Context(), c.Token, []byte("why "+r.Key)))
	}
	return c
}

func (s *site) record(key string) idem.Record {
	s.t.Helper()
	rec, err := s.store.Get(s.t.Context(), key)
	require.NoError(s.t, err)
	return rec
}

// named is the query that names the record of c.
func (s *site) named(c idem.Claim) url.Values {
	tok := c.Token
	return url.Values{"hash": {s.store.KeyHash(tok.Key)}, "fence": {fence(tok)}}
}

func fence(t idem.Token) string { return strconv.FormatUint(t.Fence, 10) }

var hidden = regexp.MustCompile(`<input type="hidden" name="([a-z]+)" value="([^"]*)">`)

// form opens the page that confirms action, and returns its form, ready to be sent.
func (s *site) form(user string, action idemadmin.Action, c idem.Claim) url.Values {
	s.t.Helper()
	q := s.named(c)
	q.Set("action", string(action))
	w := s.ask(user, http.MethodGet, "settle?"+q.Encode(), nil)
	require.Equal(s.t, http.StatusOK, w.Code, w.Body)
	form := url.Values{"sure": {"yes"}}
	for _, m := range hidden.FindAllStringSubmatch(w.Body.String(), -1) {
		form.Set(m[1], m[2])
	}
	require.NotEmpty(s.t, form.Get("token"))
	return form
}

// everything fills a store with a record of each kind, and returns the claims by name.
func (s *site) everything() map[string]idem.Claim {
	s.t.Helper()
	st := s.store
	c := map[string]idem.Claim{
		"lapsed":  s.claim(idem.Request{Key: "a/lapsed"}),
		"unknown": s.claim(idem.Request{Key: "a/unknown", HoldUnknown: true}),
	}
	s.clock.Advance(2 * time.Minute)
	c["held"] = s.claim(idem.Request{Key: "a/held"}, st.Hold)
	c["released"] = s.claim(idem.Request{Key: "b/released"}, st.Release)
	c["completed"] = s.claim(idem.Request{Key: "b/completed"}, st.Complete)
	c["failed"] = s.claim(idem.Request{Key: "b/failed"}, st.Fail)
	c["running"] = s.claim(idem.Request{Key: "b/running"})
	return c
}
