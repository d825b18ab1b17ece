package idemhttp_test

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// No goroutine outlives the middleware and the clients of these tests: heartbeats,
// waiting requests, tries.
func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// memoryStore returns a store that is closed with the test.
func memoryStore(t testing.TB, o idem.Options) *idem.Store {
	t.Helper()
	return storeOn(t, memory.New(memory.Options{}), o)
}

func storeOn(t testing.TB, b engine.Backend, o idem.Options) *idem.Store {
	t.Helper()
	if o.Clock == nil && o.Lease == 0 {
		o.Lease = time.Hour // the clock is real, and the machine may be busy
	}
	return storetest.Open(t, b, o)
}

// engines runs a test on a store of each engine.
func engines(t *testing.T, test func(t *testing.T, store *idem.Store)) {
	t.Run("memory", func(t *testing.T) {
		t.Parallel()
		test(t, memoryStore(t, idem.Options{}))
	})
	t.Run("bolt", func(t *testing.T) {
		t.Parallel()
		b, err := bolt.Open(filepath.Join(t.TempDir(), "idem.db"), bolt.Options{MinFree: -1})
		require.NoError(t, err)
		test(t, storeOn(t, b, idem.Options{}))
	})
}

// site is a real server with the middleware around a handler, and a client of it.
type site struct {
	t     testing.TB
	store *idem.Store
	url   string
	http  *http.Client
	runs  atomic.Int32 // of the handler

	handler http.Handler // with all that is around it

	mu   sync.Mutex
	told []error // Options.OnError
}

// newSite serves handler. Without a store it has one in memory.
func newSite(t testing.TB, store *idem.Store, o idemhttp.Options, handler http.HandlerFunc, around ...func(http.Handler) http.Handler) *site {
	t.Helper()
	if store == nil {
		store = memoryStore(t, idem.Options{})
	}
	s := &site{t: t, store: store}
	o.OnError = func(_ *http.Request, err error) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.told = append(s.told, err)
	}
	h := once(store, o, func(w http.ResponseWriter, r *http.Request) {
		s.runs.Add(1)
		handler(w, r)
	})
	for _, wrap := range around {
		h = wrap(h)
	}
	s.handler = h
	server := httptest.NewUnstartedServer(h)
	server.Config.ErrorLog = discard
	server.Start()
	t.Cleanup(server.Close)
	s.url, s.http = server.URL, server.Client()
	s.http.CheckRedirect = func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return s
}

// around is middleware that does what f does.
func around(f func(w http.ResponseWriter, r *http.Request, next http.Handler)) func(http.Handler) http.Handler {
	return func(next http.Handler) http.Handler {
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { f(w, r, next) })
	}
}

// does is a handler that does one thing after the other with its ResponseWriter.
func does(acts ...func(http.ResponseWriter)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for _, act := range acts {
			act(w)
		}
	}
}

// What a handler does.

func code(status int) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.WriteHeader(status) }
}

func set(name, value string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { w.Header().Set(name, value) }
}

func put(parts ...string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		for _, p := range parts {
			_, _ = io.WriteString(w, p)
		}
	}
}

// pipe copies from a source, which must not write by itself (io.WriterTo).
func pipe(source func() io.Reader) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) { _, _ = io.Copy(w, struct{ io.Reader }{source()}) }
}

func text(s string) func() io.Reader { return func() io.Reader { return strings.NewReader(s) } }

func flush(w http.ResponseWriter) { _ = http.NewResponseController(w).Flush() }

func quit(http.ResponseWriter) { panic(http.ErrAbortHandler) }

// scopeOf is the tenant that a test's request says it is of.
func scopeOf(r *http.Request) (string, error) {
	switch tenant := r.Header.Get("Tenant"); tenant {
	case "":
		return "shop", nil
	case "none":
		return "", nil
	case "error":
		return "", errors.New("no session")
	case "banned":
		return "", &idemhttp.Problem{Status: http.StatusGone, Type: "urn:banned"}
	case "odd":
		return "", idemhttp.Problem{Status: http.StatusOK}
	case "stranger":
		return "", idemhttp.Problem{Status: http.StatusUnauthorized, Title: "Who are you?"}
	default:
		return tenant, nil
	}
}

// answer is an HTTP answer as a client sees it.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of the request, or of reading the body
}

func (a answer) replayed() bool { return a.header.Get("Idempotent-Replayed") == "true" }

// once is the middleware around a function, without a server.
func once(store *idem.Store, o idemhttp.Options, f http.HandlerFunc) http.Handler {
	return idemhttp.New(store, scopeOf, o)(f)
}

// keyed is a request for a handler that is called without a server.
func keyed(key string) *http.Request {
	r := httptest.NewRequest(http.MethodPost, "/payments", strings.NewReader("12.50"))
	r.Header.Set("Idempotency-Key", key)
	return r
}

// serve serves r without a server.
func serve(h http.Handler, r *http.Request) answer {
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return answer{status: w.Code, header: w.Header(), body: w.Body.String()}
}

// do sends a request with the key, unless that is empty, and reads the answer.
func (s *site) do(method, path, key, body string, header ...string) answer {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+path, strings.NewReader(body))
	require.NoError(s.t, err)
	if key != "" {
		r.Header.Set("Idempotency-Key", key)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	return s.send(r)
}

func (s *site) send(r *http.Request) answer {
	// No retries of Go's own, which takes a key for leave to make them.
	r.GetBody = nil
	resp, err := s.http.Do(r)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return answer{status: resp.StatusCode, header: resp.Header, body: string(body), err: err}
}

// post is do for the usual case.
func (s *site) post(key string, header ...string) answer {
	s.t.Helper()
	return s.do(http.MethodPost, "/payments", key, "12.50", header...)
}

// tester is a testing.TB or a rapid.T.
type tester interface {
	require.TestingT
	Helper()
}

// problem is what a problem's body says.
type problem struct {
	Type   string `json:"type"`
	Title  string `json:"title"`
	Status int    `json:"status"`
	Detail string `json:"detail"`
	Reason string `json:"reason"`
}

// wantProblem checks that a is a problem as RFC 9457 has it, and says nothing of the key.
func wantProblem(t tester, a answer, status int, kind string) problem {
	t.Helper()
	require.NoError(t, a.err)
	require.Equal(t, status, a.status, a.body)
	require.Equal(t, "application/problem+json", a.header.Get("Content-Type"))
	require.Equal(t, "no-store", a.header.Get("Cache-Control"))
	require.Empty(t, a.header.Get("Idempotent-Replayed"))
	var p problem
	require.NoError(t, json.Unmarshal([]byte(a.body), &p))
	require.Equal(t, kind, p.Type)
	require.Equal(t, status, p.Status)
	require.NotEmpty(t, p.Title)
	require.NotContains(t, a.body, "hash")
	return p
}

// wantRecord checks what the store has of the key.
func (s *site) wantRecord(key string, state idem.State) idem.Record {
	s.t.Helper()
	return wantRecord(s.t, s.store, key, state)
}

func wantRecord(t testing.TB, store *idem.Store, key string, state idem.State) idem.Record {
	t.Helper()
	rec, err := store.Get(t.Context(), idemhttp.StoreKey("shop", key))
	require.NoError(t, err)
	require.Equal(t, state, rec.State)
	return rec
}

// wantNoRecord checks that the store knows nothing of the key.
func (s *site) wantNoRecord(key string) {
	s.t.Helper()
	_, err := s.store.Get(s.t.Context(), idemhttp.StoreKey("shop", key))
	require.Equal(s.t, idem.ErrNotFound, err)
}

// wantNothingStored checks that the store is empty.
func (s *site) wantNothingStored() {
	s.t.Helper()
	for rec, err := range s.store.Records(s.t.Context(), idem.Filter{}) {
		require.NoError(s.t, err)
		s.t.Errorf("stored: %v", rec)
	}
}

// heard returns what OnError was told.
func (s *site) heard() []error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]error(nil), s.told...)
}

// gate is a handler that runs until it is let go, or the test ends.
type gate struct {
	t       testing.TB
	entered chan *http.Request
	leave   chan struct{}
}

func newGate(t testing.TB) *gate {
	return &gate{t: t, entered: make(chan *http.Request, 16), leave: make(chan struct{})}
}

func (g *gate) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	g.entered <- r
	g.wait()
	fmt.Fprint(w, "done")
}

func (g *gate) wait() {
	select {
	case <-g.leave:
	case <-g.t.Context().Done():
	}
}

// discard takes what servers log of handlers that panic.
var discard = log.New(io.Discard, "", 0)

// fingerprintOf is the fingerprint that key was claimed with.
func (s *site) fingerprintOf(key string) idem.Fingerprint {
	return s.wantRecord(key, idem.Completed).Fingerprint
}

func repeat(text string, size int) string {
	return string(bytes.Repeat([]byte(text), size/len(text)+1)[:size])
}

func base64Of(f idem.Fingerprint) string { return base64.RawURLEncoding.EncodeToString(f[:]) }
