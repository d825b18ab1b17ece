package idemadmin_test

import (
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/internal/operator"
)

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	all := func(*http.Request, idemadmin.Action) (string, bool) { return "x", true }
	for name, o := range map[string]idemadmin.Options{
		"no Authorize":   {},
		"Reveal":         {Authorize: all, Reveal: 4},
		"PageSize":       {Authorize: all, PageSize: -1},
		"large PageSize": {Authorize: all, PageSize: 201},
		"Look":           {Authorize: all, Look: -1},
	} {
		h, err := idemadmin.New(s.store, o)
		require.ErrorIs(t, err, idem.ErrInvalid, name)
		require.Nil(t, h)
	}
	_, err := idemadmin.New(nil, idemadmin.Options{Authorize: all})
	require.ErrorIs(t, err, idem.ErrInvalid)
	_, err = idemadmin.New(s.store, idemadmin.Options{Authorize: all})
	require.NoError(t, err)
}

// targets are all that can be asked of a record, by GET and by POST.
func targets(s *site, c idem.Claim) (gets, posts []string) {
	q := s.named(c).Encode()
	gets = []string{
		"", "list", "stuck", "record?" + q, "api/stats", "api/health", "api/records",
		"api/records/" + s.named(c).Get("hash"), "api/records/x", "nothing", "api/nothing",
	}
	for _, action := range operator.Actions() {
		gets = append(gets, "settle?action="+string(action)+"&"+q)
		posts = append(posts, "settle", "api/records/"+s.named(c).Get("hash")+"/"+s.named(c).Get("fence")+"/"+string(action))
	}
	return gets, append(posts, "find", "api/find")
}

// Whoever may not read gets 403 everywhere, and learns nothing: neither names, nor which
// pages there are, nor whether there is a store.
func TestNobodySeesNothing(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: idemadmin.RevealKeys | idemadmin.RevealPayloads})
	c := s.claim(idem.Request{Key: "secret"}, s.store.Hold)
	good := s.form("oncall", idemadmin.Forget, c)
	before := s.record("secret")
	gets, posts := targets(s, c)
	for _, user := range []string{"", "stranger"} {
		for _, target := range gets {
			for _, method := range []string{http.MethodGet, http.MethodHead, http.MethodDelete, http.MethodOptions} {
				w := s.ask(user, method, target, nil)
				require.Equal(t, http.StatusForbidden, w.Code, "%s %s", method, target)
				for _, word := range []string{"secret", s.store.KeyHash("secret"), "Payments"} {
					require.NotContains(t, w.Body.String(), word, target)
				}
			}
		}
		for _, target := range posts {
			require.Equal(t, http.StatusForbidden, s.post(user, target, good).Code, target)
			w := s.ask(user, http.MethodPost, target, strings.NewReader(`{}`), "Content-Type", "application/json")
			require.Equal(t, http.StatusForbidden, w.Code, target)
		}
	}
	require.Equal(t, before, s.record("secret"))
}

// Whoever may only read is offered nothing else, and refused it, by every way. The log
// says so.
func TestReaderMaySettleNothing(t *testing.T) {
	t.Parallel()
	for _, user := range []string{"reader", "nameless"} {
		s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
		c := s.claim(idem.Request{Key: "k"}, s.store.Hold)
		q := s.named(c)
		w := s.ask(user, http.MethodGet, "record?"+q.Encode(), nil)
		require.Equal(t, http.StatusOK, w.Code)
		require.NotContains(t, w.Body.String(), "settle?")
		before := s.record("k")
		for _, action := range operator.Actions() {
			w := s.ask(user, http.MethodGet, "settle?action="+string(action)+"&"+q.Encode(), nil)
			require.Equal(t, http.StatusForbidden, w.Code, action)
			form := url.Values{"sure": {"yes"}, "token": {"AAAA"}, "state": {"held"}, "action": {string(action)}, "hash": q["hash"], "fence": q["fence"]}
			if user == "reader" && action != operator.Hold { // a held one cannot be held
				form = s.form("oncall", idemadmin.Action(action), c)
			}
			require.Equal(t, http.StatusForbidden, s.post(user, "settle", form).Code, action)
			line := s.log.last(t)
			require.Equal(t, "not allowed", line["outcome"])
			require.Equal(t, string(action), line["action"])
			w = s.ask(user, http.MethodPost, "api/records/"+q.Get("hash")+"/"+q.Get("fence")+"/"+string(action), strings.NewReader(`{}`), "Content-Type", "application/json")
			require.Equal(t, http.StatusForbidden, w.Code, action)
			require.Contains(t, w.Body.String(), operator.TypeNotAllowed)
		}
		require.Equal(t, before, s.record("k"))
		require.Equal(t, 2*len(operator.Actions()), strings.Count(s.log.text(), "\n"))
	}
}

// Rights can differ by action.
func TestRightsByAction(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	s.mayOnly = map[string]bool{"release": true}
	c := s.claim(idem.Request{Key: "k"}, s.store.Hold)
	body := s.get("record?"+s.named(c).Encode(), http.StatusOK)
	assert.Contains(t, body, "settle?action=release")
	assert.NotContains(t, body, "settle?action=forget")
	form := s.form("oncall", idemadmin.Release, c)
	form.Set("action", "forget")
	require.Equal(t, http.StatusForbidden, s.post("oncall", "settle", form).Code)
	form.Set("action", "release")
	require.Equal(t, http.StatusOK, s.post("oncall", "settle", form).Code)
	require.Equal(t, idem.Released, s.record("k").State)
}

func TestMethods(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: "k"}, s.store.Hold)
	gets, posts := targets(s, c)
	for _, target := range gets {
		get := s.ask("oncall", http.MethodGet, target, nil)
		head := s.ask("oncall", http.MethodHead, target, nil)
		require.Equal(t, get.Code, head.Code, target)
		require.Equal(t, get.Header().Get("Content-Type"), head.Header().Get("Content-Type"), target)
		require.Empty(t, head.Body.String(), target)
		if strings.HasSuffix(target, "nothing") {
			require.Equal(t, http.StatusNotFound, get.Code)
			continue
		}
		for _, method := range []string{http.MethodPut, http.MethodDelete, http.MethodPatch, http.MethodOptions, "BREW"} {
			w := s.ask("oncall", method, target, nil)
			require.Equal(t, http.StatusMethodNotAllowed, w.Code, "%s %s", method, target)
			require.Contains(t, w.Header().Get("Allow"), "GET")
		}
	}
	for _, target := range posts {
		if target == "settle" {
			continue
		}
		w := s.ask("oncall", http.MethodGet, target, nil)
		require.Equal(t, http.StatusMethodNotAllowed, w.Code, target)
		require.Equal(t, "POST", w.Header().Get("Allow"))
	}
	require.Equal(t, http.StatusMethodNotAllowed, s.ask("oncall", http.MethodPost, "style.css", nil).Code)
	require.Equal(t, idem.Held, s.record("k").State)
}

// Paths that mean to lead elsewhere lead nowhere, and nothing redirects.
func TestPathTricks(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: "k"})
	hash := s.named(c).Get("hash")
	h, err := idemadmin.New(s.store, idemadmin.Options{Authorize: s.authorize})
	require.NoError(t, err)
	for _, path := range []string{
		"//", "/list/", "//list", "/list//", "/./list", "/../list", "/list/../stuck", "/api", "/api/", "/api//stats", "/api/stats/",
		"/api/records/" + hash + "/", "/api/records/" + hash + "/1", "/api/records/" + hash + "/1/forget/x", "/api/api/stats",
		"/style.css/", "/style.css/../list", "/templates/layout.html", "/settle/forget", "/records/*", "/api/records/*/*/*",
		"/%2e%2e/list", "/api%2Fstats", "/LIST", "/list\x00", "list", "api/stats", "/*", "*",
	} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.Header.Set("X-User", "oncall")
		r.URL.Path = path
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		switch w.Code {
		case http.StatusNotFound, http.StatusBadRequest, http.StatusMethodNotAllowed:
		default:
			require.Fail(t, "served", "%q: %d", path, w.Code)
		}
		require.Empty(t, w.Header().Get("Location"), path)
	}
}

// The handler works below any prefix, also behind a proxy that takes the prefix away, for
// all its links are relative.
func TestAnyPrefix(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{PageSize: 2})
	claims := s.everything()
	hrefs := regexp.MustCompile(`(?:href|action|src)="([^"]*)"`)
	gets, _ := targets(s, claims["held"])
	for _, target := range gets {
		if strings.HasPrefix(target, "api/") {
			continue
		}
		body := s.ask("oncall", http.MethodGet, target, nil).Body.String()
		require.NotEmpty(t, hrefs.FindAllStringSubmatch(body, -1))
		for _, m := range hrefs.FindAllStringSubmatch(body, -1) {
			u, err := url.Parse(strings.ReplaceAll(m[1], "&amp;", "&"))
			require.NoError(t, err)
			if m[1] == "data:," {
				continue
			}
			require.False(t, u.IsAbs() || u.Host != "" || strings.HasPrefix(u.Path, "/"), m[1])
			if m[1] != "find" && m[1] != "settle" { // by POST
				require.Equal(t, http.StatusOK, s.ask("oncall", http.MethodGet, strings.TrimPrefix(strings.ReplaceAll(m[1], "&amp;", "&"), "./"), nil).Code, m[1])
			}
		}
	}

	h, err := idemadmin.New(s.store, idemadmin.Options{Authorize: s.authorize})
	require.NoError(t, err)
	for target, want := range map[string]string{"/ops/idem": "./idem/", "/ops/idem?x=//evil": "./idem/", "/a%2Fb": "./a%2Fb/"} {
		r := httptest.NewRequest(http.MethodGet, target, nil)
		r.URL.Path, r.URL.RawPath = "", ""
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		require.Equal(t, http.StatusTemporaryRedirect, w.Code)
		require.Equal(t, want, w.Header().Get("Location"))
	}
}

// Every answer, whatever it is, has the headers that keep it from being framed, cached,
// sniffed and scripted, and no page has a script or a style of its own.
func TestSecurityHeaders(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	gets, posts := targets(s, s.claim(idem.Request{Key: "k"}, s.store.Hold))
	active := regexp.MustCompile(`(?i)<script|<style|<iframe|\sstyle=|\son[a-z]+=|javascript:`)
	check := func(target string, w *httptest.ResponseRecorder) {
		t.Helper()
		h := w.Header()
		csp := h.Get("Content-Security-Policy")
		for _, part := range []string{"default-src 'none'", "frame-ancestors 'none'", "form-action 'self'", "base-uri 'none'"} {
			require.Contains(t, csp, part, target)
		}
		require.NotContains(t, csp, "unsafe", target)
		require.NotContains(t, csp, "script", target)
		require.Equal(t, "nosniff", h.Get("X-Content-Type-Options"), target)
		require.Equal(t, "DENY", h.Get("X-Frame-Options"), target)
		require.Equal(t, "no-store", h.Get("Cache-Control"), target)
		require.NotEmpty(t, h.Get("Content-Type"), target)
		require.NotRegexp(t, active, w.Body.String(), target)
	}
	for _, user := range []string{"oncall", "reader", ""} {
		for _, target := range gets {
			check(target, s.ask(user, http.MethodGet, target, nil))
		}
		for _, target := range posts {
			check(target, s.ask(user, http.MethodPost, target, strings.NewReader("x")))
		}
	}
	style := s.ask("", http.MethodGet, "style.css", nil)
	require.Equal(t, http.StatusOK, style.Code)
	require.Equal(t, "text/css; charset=utf-8", style.Header().Get("Content-Type"))
	require.Contains(t, style.Header().Get("Cache-Control"), "max-age")
}
