package idemhttp_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// What the middleware makes of a request before the handler is run.

func echo(w http.ResponseWriter, r *http.Request) {
	b, err := io.ReadAll(r.Body)
	fmt.Fprintf(w, "%s %v", b, err)
}

// What passes through is not wrapped: the handler gets the very request and writer.
func TestPassesTheSame(t *testing.T) {
	t.Parallel()
	w, r := httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/", nil)
	r.Header.Set("Idempotency-Key", "k")
	once(memoryStore(t, idem.Options{}), idemhttp.Options{}, func(gotW http.ResponseWriter, gotR *http.Request) {
		require.Same(t, w, gotW)
		require.Same(t, r, gotR)
		require.Nil(t, idemhttp.FromContext(gotR.Context()))
	}).ServeHTTP(w, r)
}

func TestRequireKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{RequireKey: true, Methods: []string{"PUT"}, Header: "x-request-id"}, echo)
	p := wantProblem(t, s.do("PUT", "/", "not the header", ""), 400, idemhttp.TypeKeyMissing)
	require.Contains(t, p.Detail, "X-Request-Id")
	require.Zero(t, s.runs.Load())
	s.wantNothingStored()

	for i := range 2 {
		a := s.do("PUT", "/", "", "", "X-Request-ID", "1")
		require.Equal(t, 200, a.status)
		require.Equal(t, i == 1, a.replayed())
	}
	require.Equal(t, 200, s.do("POST", "/", "", "").status, "POST is not among the methods")
}

// Which requests are the middleware's business, by method, key and RequireKey.
func TestWhoseBusiness(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		method       string
		key, require bool
		status       int
		stored       bool
	}{
		{"POST", true, false, 200, true},
		{"POST", true, true, 200, true},
		{"POST", false, false, 200, false},
		{"POST", false, true, 400, false},
		{"PATCH", true, false, 200, true},
		{"PATCH", true, true, 200, true},
		{"PATCH", false, false, 200, false},
		{"PATCH", false, true, 400, false},
		{"PUT", true, false, 200, false},
		{"PUT", false, true, 200, false},
		{"DELETE", true, true, 200, false},
		{"DELETE", false, true, 200, false},
		{"GET", true, true, 200, false},
		{"GET", false, true, 200, false},
		{"HEAD", true, true, 200, false},
		{"HEAD", false, true, 200, false},
		{"OPTIONS", true, true, 200, false},
		{"OPTIONS", false, true, 200, false},
		{"TRACE", true, true, 200, false},
		{"post", true, true, 200, false},
	} {
		t.Run(fmt.Sprintf("%s key=%v require=%v", c.method, c.key, c.require), func(t *testing.T) {
			t.Parallel()
			store, runs := memoryStore(t, idem.Options{}), 0
			h := once(store, idemhttp.Options{RequireKey: c.require}, func(http.ResponseWriter, *http.Request) { runs++ })
			for range 2 {
				r, w := httptest.NewRequest(c.method, "/payments", nil), httptest.NewRecorder()
				if c.key {
					r.Header.Set("Idempotency-Key", "k")
				}
				h.ServeHTTP(w, r)
				require.Equal(t, c.status, w.Code)
			}
			want := 2
			if c.status != 200 {
				want = 0
			} else if c.stored {
				want = 1
			}
			require.Equal(t, want, runs)
			stored := 0
			for _, err := range store.Records(t.Context(), idem.Filter{}) {
				require.NoError(t, err)
				stored++
			}
			require.Equal(t, map[bool]int{true: 1}[c.stored], stored)
		})
	}
}

// A malformed key is refused before the scope is asked, the body read, or the store
// touched. The table of keys is in key_test.go.
func TestBeforeAnythingElse(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	require.NoError(t, store.Close())
	h := idemhttp.New(store, func(*http.Request) (string, error) { panic("asked") }, idemhttp.Options{})(http.NotFoundHandler())
	for _, lines := range [][]string{{"a", "b"}, {"a", "a"}, {"a,b"}, {""}, {`"open`}, {"\x01"}, {"\x80"}, {repeat("k", 256)}} {
		r := httptest.NewRequest(http.MethodPost, "/", iotest.ErrReader(errors.New("read")))
		r.Header["Idempotency-Key"] = lines
		w := serve(h, r)
		p := wantProblem(t, w, 400, idemhttp.TypeKeyInvalid)
		require.NotContains(t, w.body, "kkkk", "the key is not told")
		require.NotEmpty(t, p.Detail)
	}
}

func TestSpellings(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{}, echo)
	require.Equal(t, 200, s.post("abc").status)
	for _, same := range []string{`"abc"`, ` "abc" `, `"abc";p=1`, `"a\"b"`} {
		require.Equal(t, same != `"a\"b"`, s.post(same).replayed(), same)
	}
	s.wantRecord(`a"b`, idem.Completed)
	strict := newSite(t, s.store, idemhttp.Options{StrictKey: true}, echo)
	wantProblem(t, strict.post("abc"), 400, idemhttp.TypeKeyInvalid)
	require.True(t, strict.post(`"abc"`).replayed())
}

func TestFingerprint(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Methods: []string{"POST", "PATCH"}}, echo)
	require.Equal(t, 200, s.do("POST", "/a?b=1", "k", "body", "Traceparent", "1", "User-Agent", "x", "Date", "1", "If-Match", `"1"`).status)
	require.True(t, s.do("POST", "/a?b=1", "k", "body", "Traceparent", "2", "User-Agent", "y", "Date", "2", "If-Match", `"2"`).replayed(),
		"headers do not count: with a fresh ETag it is the same request")
	for _, other := range []answer{
		s.do("PATCH", "/a?b=1", "k", "body"),
		s.do("POST", "/a?b=2", "k", "body"),
		s.do("POST", "/a", "k", "body"),
		s.do("POST", "/A?b=1", "k", "body"),
		s.do("POST", "/a?b=1", "k", "bodY"),
		s.do("POST", "/a?b=1", "k", ""),
		s.do("POST", "/a?b=1body", "k", ""),
	} {
		wantProblem(t, other, 422, idemhttp.TypeMismatch)
		require.NotContains(t, other.body, "body <nil>")
	}
	require.EqualValues(t, 1, s.runs.Load())

	r, err := http.NewRequest("POST", "/a?b=1", nil)
	require.NoError(t, err)
	want, err := idemhttp.RequestFingerprint(r, []byte("body"))
	require.NoError(t, err)
	require.Equal(t, want, s.fingerprintOf("k"), "the fast way and the exported one agree")
	require.Equal(t, idem.FingerprintOf([]byte("POST"), []byte("/a?b=1"), []byte("body")), want)
}

// The target is what the client sent, whatever routers have made of it: two mounts
// behind StripPrefix are two targets.
func TestTargetIsTheClients(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	mux := http.NewServeMux()
	wrap := idemhttp.New(store, scopeOf, idemhttp.Options{})
	for _, mount := range []string{"/a", "/b"} {
		mux.Handle(mount+"/", http.StripPrefix(mount, wrap(http.HandlerFunc(echo))))
	}
	s := newSite(t, memoryStore(t, idem.Options{}), idemhttp.Options{Methods: []string{"PUT"}}, mux.ServeHTTP)
	require.Equal(t, 200, s.do("POST", "/a/pay", "k", "").status)
	wantProblem(t, s.do("POST", "/b/pay", "k", ""), 422, idemhttp.TypeMismatch)

	// Absolute form, as through a proxy, is the same target.
	r := httptest.NewRequest("POST", "http://elsewhere/a/pay?x=%2F", nil)
	want := idem.FingerprintOf([]byte("POST"), []byte("/a/pay?x=%2F"), nil)
	for _, uri := range []string{"http://elsewhere/a/pay?x=%2F", "/a/pay?x=%2F", ""} {
		r.RequestURI = uri
		got, err := idemhttp.RequestFingerprint(r, nil)
		require.NoError(t, err)
		require.Equal(t, want, got, uri)
	}
}

func TestCanonicalJSON(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Fingerprint: idemhttp.JSONFingerprint}, echo)
	post := func(key, body, contentType string) answer {
		return s.do("POST", "/", key, body, "Content-Type", contentType)
	}
	require.Equal(t, 200, post("k", `{"amount": 12.50, "to": {"a":1,"b":[1,2]}}`, "application/json").status)
	require.True(t, post("k", `{"to":{"b":[1,2],"a":1},"amount":12.5}`, "application/json; charset=utf-8").replayed())
	require.True(t, post("k", ` {"to":{"b":[1,2],"a":1},"amount":1250e-2} `, "application/merge-patch+json").replayed())
	for _, other := range []string{`{"amount":12.51,"to":{"a":1,"b":[1,2]}}`, `{"amount":12.5,"to":{"a":1,"b":[2,1]}}`, `{"amount":"12.5","to":{"a":1,"b":[1,2]}}`, ``} {
		wantProblem(t, post("k", other, "application/json"), 422, idemhttp.TypeMismatch)
	}
	require.EqualValues(t, 1, s.runs.Load())

	// The handler gets the bytes as they were sent.
	require.Equal(t, `{ "a" : 1 } <nil>`, post("k2", `{ "a" : 1 }`, "application/json").body)
	require.Equal(t, " <nil>", s.do("POST", "/", "k3", "").body, "no body needs no type")

	wantProblem(t, post("k4", "a=1", "application/x-www-form-urlencoded"), 415, idemhttp.TypeNotJSON)
	wantProblem(t, post("k4", "{}", "text/json;;"), 415, idemhttp.TypeNotJSON)
	wantProblem(t, post("k4", `{"a":}`, "application/json"), 400, idemhttp.TypeNotJSON)
	require.EqualValues(t, 3, s.runs.Load())
	require.Equal(t, 200, post("k4", `{}`, "application/json").status, "nothing was claimed")
}

func TestOwnFingerprint(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Fingerprint: func(r *http.Request, body []byte) (idem.Fingerprint, error) {
		switch {
		case string(body) == "problem":
			return idem.Fingerprint{}, fmt.Errorf("wrapped: %w", idemhttp.Problem{Status: 418, Type: "urn:tea"})
		case string(body) == "error":
			return idem.Fingerprint{}, errors.New("secret")
		}
		return idem.FingerprintOf(body[:4]), nil
	}}, echo)
	require.Equal(t, "pay 1 <nil>", s.do("POST", "/", "k", "pay 1").body)
	require.True(t, s.do("POST", "/other", "k", "pay 2").replayed())
	wantProblem(t, s.do("POST", "/", "k", "pal 1"), 422, idemhttp.TypeMismatch)
	wantProblem(t, s.do("POST", "/", "k", "problem"), 418, "urn:tea")
	a := s.do("POST", "/", "k", "error")
	wantProblem(t, a, 400, idemhttp.TypeBodyUnreadable)
	require.NotContains(t, a.body, "secret")
}

func TestScope(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, store *idem.Store) {
		g := newGate(t)
		s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Tenant") == "slow" {
				g.ServeHTTP(w, r)
				return
			}
			fmt.Fprintf(w, "for %s", r.Header.Get("Tenant"))
		})
		slow := make(chan answer)
		go func() { slow <- s.post("k", "Tenant", "slow") }()
		<-g.entered
		wantProblem(t, s.post("k", "Tenant", "slow"), 409, idemhttp.TypeInFlight)
		// Nobody else is blocked by it, whatever the bodies are, nor shown anything.
		for _, tenant := range []string{"a", "b", "a/k", "a%2Fk", "%", "*"} {
			a := s.do("POST", "/", "k", "body of "+tenant, "Tenant", tenant)
			require.Equal(t, "for "+tenant, a.body)
			require.False(t, a.replayed())
			require.True(t, s.do("POST", "/", "k", "body of "+tenant, "Tenant", tenant).replayed())
		}
		// Scope and key are not merely strung together.
		require.False(t, s.post("k/k", "Tenant", "a").replayed())
		close(g.leave)
		require.Equal(t, "done", (<-slow).body)
	})
}

func TestNoScope(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{}, echo)
	wantProblem(t, s.post("k", "Tenant", "none"), 403, idemhttp.TypeScopeMissing)
	require.Empty(t, s.heard(), "a stranger is no fault of the server")
	// That nobody could find out whose request it is says nothing against its sender.
	a := s.post("k", "Tenant", "error")
	require.Equal(t, "scope", wantProblem(t, a, 503, idemhttp.TypeUnavailable).Reason)
	require.NotEmpty(t, a.header.Get("Retry-After"))
	require.NotContains(t, a.body, "no session")
	require.ErrorContains(t, errors.Join(s.heard()...), "no session")
	p := wantProblem(t, s.post("k", "Tenant", "stranger"), 401, "about:blank")
	require.Equal(t, "Who are you?", p.Title)
	require.Equal(t, "Gone", wantProblem(t, s.post("k", "Tenant", "banned"), 410, "urn:banned").Title)
	wantProblem(t, s.post("k", "Tenant", "odd"), 403, "about:blank") // 200 is no problem
	require.Zero(t, s.runs.Load())
	s.wantNothingStored()
	require.Equal(t, "12.50 <nil>", s.post("k").body, "the key is free")
}

func TestStoreKey(t *testing.T) {
	t.Parallel()
	require.Equal(t, "http/shop/abc", idemhttp.StoreKey("shop", "abc"))
	for _, c := range [][2]string{{"a", "b"}, {"", "b"}, {"a/b", "c"}, {"a", "b/c"}, {"a%", "b"}, {"%", "%"}, {repeat("/", 100), "k"}} {
		require.Equal(t, idem.JoinKey("http", c[0], c[1]), idemhttp.StoreKey(c[0], c[1]))
	}
	for c := range 256 {
		one := string([]byte{byte(c)})
		require.Equal(t, idem.JoinKey("http", one, "k"+one), idemhttp.StoreKey(one, "k"+one))
	}
	// Whatever its length, a scope can be used, and the limit is no way around another.
	seen := map[string]bool{}
	for _, scope := range []string{repeat("s", 763), repeat("s", 764), repeat("s", 5000), repeat("/", 254), repeat("/", 5000), repeat("s", 5001)} {
		for _, key := range []string{repeat("k", 255), repeat("k", 254), repeat("/", 255)} {
			k := idemhttp.StoreKey(scope, key)
			require.LessOrEqual(t, len(k), idem.MaxKey)
			require.False(t, seen[k])
			seen[k] = true
		}
	}
	require.Equal(t, idem.JoinKey("http", repeat("s", 763), repeat("k", 255)), idemhttp.StoreKey(repeat("s", 763), repeat("k", 255)))
	f := idem.FingerprintOf([]byte(repeat("s", 764)), []byte(repeat("k", 255)))
	require.Equal(t, "http/%/%/"+base64Of(f), idemhttp.StoreKey(repeat("s", 764), repeat("k", 255)))
}

func TestBodyLimit(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{MaxBody: 1000}, func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%d %v %d", len(b), err, r.ContentLength)
	})
	chunked := func(key, body string) answer {
		r, err := http.NewRequest("POST", s.url, io.NopCloser(strings.NewReader(body))) // no length
		require.NoError(t, err)
		r.Header.Set("Idempotency-Key", key)
		return s.send(r)
	}
	require.Equal(t, "1000 <nil> 1000", s.do("POST", "/", "k1", repeat("x", 1000)).body)
	require.Equal(t, "1000 <nil> -1", chunked("k2", repeat("x", 1000)).body)
	for _, a := range []answer{
		s.do("POST", "/", "k3", repeat("x", 1001)), chunked("k3", repeat("x", 1001)), chunked("k3", repeat("x", 200_000)),
	} {
		wantProblem(t, a, 413, idemhttp.TypeBodyTooLarge)
	}
	require.EqualValues(t, 2, s.runs.Load())
	require.Equal(t, 200, s.do("POST", "/", "k3", "short").status, "413 came before the claim")

	whole := newSite(t, nil, idemhttp.Options{}, echo)
	for _, size := range []int{0, 1, 510, 511, 512, 513, 65535, 65536, 65537, 1 << 20} {
		body := repeat("0123456789abcdefg", size)
		require.Equal(t, body+" <nil>", whole.do("POST", "/", fmt.Sprint(size), body).body)
	}
	wantProblem(t, whole.do("POST", "/", "k", repeat("x", 1<<20+1)), 413, idemhttp.TypeBodyTooLarge)
}

func TestBodyFails(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	serve := func(body io.Reader, length int64, h http.HandlerFunc) answer {
		r := httptest.NewRequest(http.MethodPost, "/", body)
		r.ContentLength = length
		r.Header.Set("Idempotency-Key", "k")
		return serve(idemhttp.New(store, scopeOf, idemhttp.Options{})(h), r)
	}
	never := func(http.ResponseWriter, *http.Request) { t.Error("the handler was run") }
	broken := io.MultiReader(strings.NewReader("half"), iotest.ErrReader(io.ErrUnexpectedEOF))
	wantProblem(t, serve(broken, -1, never), 400, idemhttp.TypeBodyUnreadable)
	limited := http.MaxBytesReader(nil, io.NopCloser(strings.NewReader("12345")), 4)
	wantProblem(t, serve(limited, -1, never), 413, idemhttp.TypeBodyTooLarge)
	// A body that is announced as too long is not even read.
	wantProblem(t, serve(iotest.ErrReader(errors.New("read")), 1<<20+1, never), 413, idemhttp.TypeBodyTooLarge)
	// Somebody further out has read the body: without it two requests look alike.
	wantProblem(t, serve(strings.NewReader(""), 5, never), 500, idemhttp.TypeMisconfigured)
	wantProblem(t, serve(http.NoBody, 5, never), 500, idemhttp.TypeMisconfigured)
	wantProblem(t, serve(strings.NewReader("lf"), 4, never), 500, idemhttp.TypeMisconfigured) // a part of it
	_, err := store.Get(t.Context(), idemhttp.StoreKey("shop", "k"))
	require.ErrorIs(t, err, idem.ErrNotFound)

	a := serve(iotest.OneByteReader(strings.NewReader("whole")), -1, echo)
	require.Equal(t, "whole <nil>", a.body)
}

// A form that was parsed further out has left nothing of its body to tell requests
// apart by, also where no length says so. A request without a body lacks nothing.
func TestFormParsedOutside(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{}, echo, around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		assert.NotEqual(t, "none", r.FormValue("a")) // parses it
		next.ServeHTTP(w, r)
	}))
	const multipart = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n2\r\n--x--\r\n"
	for contentType, form := range map[string]string{
		"application/x-www-form-urlencoded": "a=1", "multipart/form-data; boundary=x": multipart,
	} {
		for _, body := range []io.Reader{strings.NewReader(form), io.NopCloser(strings.NewReader(form))} { // the second is chunked
			r := must(http.NewRequest(http.MethodPost, s.url, body))
			r.Header.Set("Content-Type", contentType)
			r.Header.Set("Idempotency-Key", "k")
			wantProblem(t, s.send(r), 500, idemhttp.TypeMisconfigured)
		}
	}
	require.Zero(t, s.runs.Load())
	s.wantNothingStored()
	require.Equal(t, " <nil>", s.do("POST", "/?a=1", "k", "").body)
	require.Equal(t, "{} <nil>", s.do("POST", "/?a=1", "l", "{}", "Content-Type", "application/json").body)
}

// Forms are parsed from the body that the middleware has read, and the server removes their
// files as without it, also when the handler panics and middleware further out recovers.
func TestForms(t *testing.T) {
	t.Parallel()
	served := make(chan *http.Request, 1)
	s := newSite(t, nil, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, "%s %v", r.FormValue("a"), r.MultipartForm != nil)
		if r.URL.Path == "/panics" {
			panic("with a form")
		}
	}, around(func(w http.ResponseWriter, r *http.Request, next http.Handler) {
		defer func() {
			if recover() != nil {
				w.WriteHeader(http.StatusInternalServerError)
			}
			served <- r
		}()
		next.ServeHTTP(w, r)
	}))
	require.Equal(t, "1 false", s.do("POST", "/", "1", "a=1", "Content-Type", "application/x-www-form-urlencoded").body)
	<-served
	const form = "--x\r\nContent-Disposition: form-data; name=\"a\"\r\n\r\n2\r\n--x--\r\n"
	require.Equal(t, "2 true", s.do("POST", "/", "2", form, "Content-Type", "multipart/form-data; boundary=x").body)
	require.NotNil(t, (<-served).MultipartForm, "the server removes the files of this request's form")
	require.Equal(t, 500, s.do("POST", "/panics", "3", form, "Content-Type", "multipart/form-data; boundary=x").status)
	require.NotNil(t, (<-served).MultipartForm, "the server removes the files of this request's form")
}
