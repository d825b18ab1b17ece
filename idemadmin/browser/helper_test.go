package browser_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

// program returns the browser's program, or skips the test.
func program(t *testing.T) string {
	t.Helper()
	if path := os.Getenv("IDEMADMIN_BROWSER"); path != "" {
		return path
	}
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "headless-shell"} {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	t.Skip("there is no Chromium or Chrome in PATH; install one, or name it in IDEMADMIN_BROWSER")
	return ""
}

// The browser is started once, and each test gets a profile of its own in it.
var browser struct {
	once sync.Once
	ctx  context.Context
	stop func()
	err  error
}

func TestMain(m *testing.M) {
	code := m.Run()
	if browser.stop != nil {
		browser.stop()
	}
	os.Exit(code)
}

func start(path string) {
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.DisableGPU, chromedp.WindowSize(1280, 900),
		chromedp.WSURLReadTimeout(5*time.Minute)) // the machine may be busy
	if os.Getuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium refuses to run as root with it
	}
	alloc, stopAlloc := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stop := chromedp.NewContext(alloc)
	browser.ctx, browser.stop = ctx, func() { stop(); stopAlloc() }
	browser.err = chromedp.Do(ctx)
}

// desk is an operator in front of a browser, and the service that they look at.
type desk struct {
	t     *testing.T
	ctx   context.Context
	store *idem.Store
	clock *idemtest.Clock
	url   string // of the pages

	mu         sync.Mutex
	log        bytes.Buffer
	violations []string // of the content security policy, and errors on the console
}

// newDesk serves a store with a record of each kind, and opens a browser for user.
func newDesk(t *testing.T, user string) *desk {
	t.Helper()
	path := program(t)
	browser.once.Do(func() { start(path) })
	require.NoError(t, browser.err, "starting %s", path)

	d := &desk{t: t, clock: idemtest.NewClock(time.Date(2027, 1, 15, 3, 0, 0, 0, time.UTC))}
	store, err := idem.New(memory.New(memory.Options{}), idem.Options{Clock: d.clock, SweepInterval: -1, Lease: time.Minute, MaxAttempts: 3})
	require.NoError(t, err)
	t.Cleanup(func() { _ = store.Close() })
	d.store = store
	d.fill()

	admin, err := idemadmin.New(store, idemadmin.Options{
		Authorize: authorize, Reveal: idemadmin.RevealKeys | idemadmin.RevealPayloads, Title: "Payments, production",
		Logger: slog.New(slog.NewTextHandler(writer(func(p []byte) (int, error) {
			d.mu.Lock()
			defer d.mu.Unlock()
			return d.log.Write(p)
		}), nil)),
		PageSize: 8,
	})
	require.NoError(t, err)
	mux := http.NewServeMux()
	mux.Handle("/admin/idem/", http.StripPrefix("/admin/idem", admin))
	server := httptest.NewServer(mux)
	t.Cleanup(server.Close)
	d.url = server.URL + "/admin/idem/"

	ctx, cancel := chromedp.NewContext(browser.ctx, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	d.ctx = ctx
	require.NoError(t, chromedp.Listen(ctx, d.listen))
	call(d, log.Enable, cdp.Empty{})
	call(d, runtime.Enable, cdp.Empty{})
	if user != "" {
		only := true
		call(d, network.SetCookie, network.SetCookieParams{Name: "user", Value: user, URL: server.URL, HTTPOnly: &only})
	}
	return d
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// authorize knows its users by a cookie.
func authorize(r *http.Request, a idemadmin.Action) (string, bool) {
	c, err := r.Cookie("user")
	if err != nil {
		return "", false
	}
	return c.Value, c.Value == "oncall" || c.Value == "reader" && a == idemadmin.Read
}

// fill makes a record of each kind, some with long keys and results.
func (d *desk) fill() {
	ctx, s := d.t.Context(), d.store
	claim := func(r idem.Request, settle func(context.Context, idem.Token, []byte) error, payload string) {
		c, err := s.Claim(ctx, r)
		require.NoError(d.t, err)
		if settle != nil {
			require.NoError(d.t, settle(ctx, c.Token, []byte(payload)))
		}
	}
	claim(idem.Request{Key: "http/tenant-7/" + strings.Repeat("long", 60), HoldUnknown: true}, nil, "")
	d.clock.Advance(45 * time.Minute)
	claim(idem.Request{Key: "jobs/nightly"}, nil, "")
	d.clock.Advance(30 * time.Minute)
	claim(idem.Request{Key: "payments/held"}, s.Hold, "bank timed out after 30 s")
	for range 3 {
		claim(idem.Request{Key: "payments/exhausted"}, s.Release, strings.Repeat("connection refused, ", 20))
	}
	claim(idem.Request{Key: "payments/released"}, s.Release, "card processor answered 503")
	answer, err := idemhttp.Answer{
		Status: 201, Header: http.Header{"Content-Type": {"application/json"}, "Location": {"/payments/" + strings.Repeat("7", 90)}},
		Body: []byte(`{"id":"` + strings.Repeat("p", 120) + `","amount":"12.50 EUR"}`),
	}.MarshalBinary()
	require.NoError(d.t, err)
	claim(idem.Request{Key: "http/tenant-7/done"}, s.Complete, string(answer))
	claim(idem.Request{Key: "payments/failed"}, s.Fail, "card was declined")
	claim(idem.Request{Key: "\xff\xfebinary"}, s.Complete, "\x00\x01\x02")
	d.clock.Advance(10 * time.Second)
	claim(idem.Request{Key: "payments/running"}, nil, "")
	for i := range 12 {
		claim(idem.Request{Key: fmt.Sprintf("orders/%04d", i)}, s.Complete, fmt.Sprintf(`{"order":%d,"total":"%d.00 EUR"}`, i, 10+i))
	}
}

func (d *desk) listen(event any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch e := event.(type) {
	case *log.EventEntryAdded:
		if e.Entry.Source == log.EntrySourceSecurity {
			d.violations = append(d.violations, e.Entry.Text)
		}
	case *runtime.EventExceptionThrown:
		d.violations = append(d.violations, e.ExceptionDetails.Text)
	}
}

// call runs a command of the browser's protocol.
func call[P, R any](d *desk, command cdp.Command[P, R], params P) {
	d.t.Helper()
	_, err := chromedp.Call(d.ctx, command, params)
	require.NoError(d.t, err)
}

func (d *desk) run(steps ...chromedp.Action[chromedp.Void]) {
	d.t.Helper()
	require.NoError(d.t, chromedp.Do(d.ctx, steps...))
}

// eval returns what a JavaScript expression is in the page.
func eval[T any](d *desk, expression string) T {
	d.t.Helper()
	v, err := chromedp.Run(d.ctx, chromedp.Evaluate[T](expression))
	require.NoError(d.t, err, expression)
	return v
}

// open opens a page and requires its status.
func (d *desk) open(target string, status int64) {
	d.t.Helper()
	answer, err := chromedp.RunResponse(d.ctx, chromedp.Navigate(d.url+target))
	require.NoError(d.t, err, target)
	require.Equal(d.t, status, answer.Status, target)
}

// click clicks on an element, waits for the page that it leads to, and returns its status.
func (d *desk) click(selector chromedp.CSS) (status int64) {
	d.t.Helper()
	answer, err := chromedp.RunResponse(d.ctx, chromedp.Click(selector))
	require.NoError(d.t, err, selector)
	return answer.Status
}

// follow clicks on the link with this text.
func (d *desk) follow(text string) (status int64) {
	d.t.Helper()
	answer, err := chromedp.RunResponse(d.ctx, chromedp.Click(`//a[text()="`+text+`"]`))
	require.NoError(d.t, err, text)
	return answer.Status
}

// text is what the page says.
func (d *desk) text() string {
	d.t.Helper()
	s, err := chromedp.Run(d.ctx, chromedp.Text(chromedp.CSS("body")))
	require.NoError(d.t, err)
	return s
}

// keys are those of the records that the page lists.
func (d *desk) keys() []string {
	d.t.Helper()
	return eval[[]string](d, `Array.from(document.querySelectorAll("tbody .key"), e => e.textContent)`)
}

func (d *desk) state(key string) idem.State {
	d.t.Helper()
	rec, err := d.store.Get(d.t.Context(), key)
	require.NoError(d.t, err)
	return rec.State
}

func (d *desk) logged() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.log.String()
}

// noViolations requires that the pages so far did nothing that their own policy forbids.
func (d *desk) noViolations() {
	d.t.Helper()
	d.mu.Lock()
	defer d.mu.Unlock()
	require.Empty(d.t, d.violations)
}

// shoot saves a screenshot of the whole page.
func (d *desk) shoot(name string) {
	d.t.Helper()
	dir := os.Getenv("IDEMADMIN_SCREENSHOTS")
	if dir == "" {
		dir = d.t.TempDir()
	}
	png, err := chromedp.Run(d.ctx, chromedp.FullScreenshot(100))
	require.NoError(d.t, err)
	require.NoError(d.t, os.MkdirAll(dir, 0o750))
	require.NoError(d.t, os.WriteFile(filepath.Join(dir, name+".png"), png, 0o600))
}
