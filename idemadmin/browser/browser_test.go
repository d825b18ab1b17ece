package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// The list goes on page by page, and shows what the form asks for.
func TestListAndFilter(t *testing.T) {
	d := newDesk(t, "oncall")
	d.open("", http.StatusOK)
	assert.Contains(t, d.text(), "Ready.")
	d.shoot("desk-overview")
	require.EqualValues(t, http.StatusOK, d.follow("Records"))
	require.Len(t, d.keys(), 8)
	d.shoot("desk-list")
	seen := map[string]bool{}
	for {
		for _, k := range d.keys() {
			require.False(t, seen[k], k)
			seen[k] = true
		}
		if !strings.Contains(d.text(), "Go on") {
			break
		}
		require.EqualValues(t, http.StatusOK, d.follow("Go on"))
	}
	require.Len(t, seen, 21)
	d.run(chromedp.SetValue(chromedp.CSS(`select[name=state]`), "failed"))
	require.EqualValues(t, http.StatusOK, d.click(`form.filter button`))
	require.Equal(t, []string{"payments/failed"}, d.keys())
	d.run(chromedp.SetValue(chromedp.CSS(`select[name=state]`), ""),
		chromedp.SendKeys(chromedp.CSS(`input[name=prefix]`), "payments/"),
		chromedp.Click(chromedp.CSS(`input[name=unsettled]`)))
	d.click(`form.filter button`)
	require.Equal(t, []string{"payments/held"}, d.keys())
	d.noViolations()
}

// From the list of what is stuck to a settled operation: look, decide, confirm.
func TestSettle(t *testing.T) {
	d := newDesk(t, "oncall")
	d.open("stuck", http.StatusOK)
	d.shoot("desk-stuck")
	d.settleHeld()
	d.noViolations()
}

func (d *desk) settleHeld() {
	t := d.t
	t.Helper()
	d.follow("held")
	require.Equal(t, []string{"payments/held"}, d.keys())
	d.click(`tbody a.hash`)
	require.Contains(t, d.text(), "bank timed out after 30 s")
	d.shoot("desk-record")
	d.click(`a.button.complete`)
	d.run(chromedp.SendKeys(chromedp.CSS(`textarea`), `{"paid": true}`), chromedp.Click(chromedp.CSS(`input[name=sure]`)))
	d.shoot("desk-settle")
	require.Equal(t, idem.Held, d.state("payments/held"), "nothing is done before the last click")
	require.EqualValues(t, http.StatusOK, d.click(`button.complete`))
	require.Contains(t, d.text(), "Complete: done.")
	d.shoot("desk-done")
	rec, err := d.store.Get(t.Context(), "payments/held")
	require.NoError(t, err)
	require.Equal(t, idem.Completed, rec.State)
	require.JSONEq(t, `{"paid": true}`, string(rec.Result))
	for _, want := range []string{"who=oncall", "action=complete", "outcome=done", d.store.KeyHash("payments/held")} {
		require.Contains(t, d.logged(), want)
	}
}

// All of it works with scripts switched off.
func TestSettleWithoutJavaScript(t *testing.T) {
	d := newDesk(t, "oncall")
	call(d, emulation.SetScriptExecutionDisabled, emulation.SetScriptExecutionDisabledParams{Value: true})
	d.open("stuck", http.StatusOK)
	d.settleHeld()
}

// Without the tick the browser does not even send the form.
func TestSettleTakesATick(t *testing.T) {
	d := newDesk(t, "oncall")
	d.open("settle?"+d.query("payments/released", "forget"), http.StatusOK)
	d.run(chromedp.Click(chromedp.CSS(`button.forget`)))
	require.True(t, eval[bool](d, `document.querySelector("input[name=sure]").validity.valueMissing`))
	require.Equal(t, idem.Released, d.state("payments/released"))
	require.Contains(t, d.text(), "The next request with the key runs the work")
}

// query names the record of key.
func (d *desk) query(key, action string) string {
	d.t.Helper()
	rec, err := d.store.Get(d.t.Context(), key)
	require.NoError(d.t, err)
	q := url.Values{"hash": {d.store.KeyHash(key)}, "fence": {fmt.Sprint(rec.Fence)}}
	if action != "" {
		q.Set("action", action)
	}
	return q.Encode()
}

// Another operator was faster. The page says so, and shows what is there now.
func TestSettleLost(t *testing.T) {
	d := newDesk(t, "oncall")
	d.open("settle?"+d.query("payments/held", "release"), http.StatusOK)
	rec, err := d.store.Get(t.Context(), "payments/held")
	require.NoError(t, err)
	require.NoError(t, d.store.Complete(t.Context(), rec.Token(), []byte("paid")))
	d.run(chromedp.Click(chromedp.CSS(`input[name=sure]`)))
	require.EqualValues(t, http.StatusConflict, d.click(`button.release`))
	assert.Contains(t, d.text(), "Nothing was changed.")
	assert.Contains(t, d.text(), "completed")
	d.shoot("desk-lost")
	require.Equal(t, idem.Completed, d.state("payments/held"))
}

// A reader sees the record and no buttons, and the address of a button refuses them.
// Nobody sees nothing.
func TestRefusedWithoutRights(t *testing.T) {
	d := newDesk(t, "reader")
	d.open("record?"+d.query("payments/held", ""), http.StatusOK)
	require.Zero(t, eval[int](d, `document.querySelectorAll("main a.button, main button").length`))
	d.shoot("desk-reader")
	d.open("settle?"+d.query("payments/held", "forget"), http.StatusForbidden)
	require.Contains(t, d.text(), "You may not do this")
	d.shoot("desk-refused")
	require.Equal(t, idem.Held, d.state("payments/held"))

	nobody := newDesk(t, "")
	nobody.open("", http.StatusForbidden)
	require.NotContains(t, nobody.text(), "Payments")
	nobody.shoot("desk-nobody")
}

// From a small telephone to a desk, nothing is wider than the screen, and every button is
// large enough for a thumb.
func TestEveryWidth(t *testing.T) {
	d := newDesk(t, "oncall")
	targets := map[string]string{
		"overview": "", "list": "list", "stuck": "stuck", "record-held": "record?" + d.query("payments/held", ""),
		"record-http":   "record?" + d.query("http/tenant-7/done", ""),
		"record-long":   "record?" + d.query("http/tenant-7/"+strings.Repeat("long", 60), ""),
		"record-binary": "record?" + d.query("\xff\xfebinary", ""),
		"complete":      "settle?" + d.query("payments/running", "complete"),
		"forget":        "settle?" + d.query("payments/held", "forget"),
	}
	for _, width := range []int64{320, 360, 780, 840, 1280} {
		view := []chromedp.EmulateViewportOption{}
		if width < 780 {
			view = append(view, chromedp.EmulateMobile, chromedp.EmulateTouch)
		}
		d.run(chromedp.EmulateViewport(width, 740, view...))
		for name, target := range targets {
			d.open(target, http.StatusOK)
			name := fmt.Sprintf("%04d-%s", width, name)
			assert.Equal(t, width, eval[int64](d, `document.documentElement.clientWidth`), name)
			assert.LessOrEqual(t, eval[int64](d, `document.documentElement.scrollWidth`), width, name)
			assert.Empty(t, eval[[]string](d, `Array.from(document.querySelectorAll("main *, header *")).filter(e => !e.closest("thead") && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.outerHTML.slice(0, 80))`), "%s: beyond the edge", name)
			assert.LessOrEqual(t, eval[float64](d, `(m => Math.max(0, ...Array.from(m.children, e => e.getBoundingClientRect().right)) - m.getBoundingClientRect().right + parseFloat(getComputedStyle(m).paddingRight))(document.querySelector("main"))`), 1.0, "%s: wider than the column", name)
			assert.Empty(t, eval[[]string](d, `Array.from(document.querySelectorAll("main .button, main button")).filter(e => e.getBoundingClientRect().height < 40).map(e => e.textContent)`), "%s: too small", name)
			d.shoot(name)
		}
	}
	d.noViolations()
}

// A page of another origin of the same host, to which the browser sends the operator's
// cookie along, can neither settle with a good form nor show the pages in a frame.
func TestAnotherOrigin(t *testing.T) {
	d := newDesk(t, "oncall")
	d.open("settle?"+d.query("payments/held", "forget"), http.StatusOK)
	form, err := chromedp.Run(d.ctx, chromedp.OuterHTML(chromedp.CSS(`form.settle`)))
	require.NoError(t, err)
	form = strings.Replace(form, `action="settle"`, `action="`+d.url+`settle"`, 1)
	evil := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		fmt.Fprintf(w, `<!DOCTYPE html><body>%s<iframe src="%s"></iframe>`, form, d.url)
	}))
	defer evil.Close()
	d.run(chromedp.Navigate(evil.URL), chromedp.Click(chromedp.CSS(`input[name=sure]`)))
	require.EqualValues(t, http.StatusForbidden, d.click(`button.forget`))
	require.Contains(t, d.text(), "came from another site")
	require.Equal(t, idem.Held, d.state("payments/held"))
	d.mu.Lock()
	defer d.mu.Unlock()
	require.Contains(t, strings.Join(d.violations, "\n"), "frame-ancestors", "the frame was refused")
}

// In the dark, too.
func TestDark(t *testing.T) {
	d := newDesk(t, "oncall")
	call(d, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
		Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: "dark"}},
	})
	d.open("stuck", http.StatusOK)
	require.Equal(t, "rgb(20, 24, 29)", eval[string](d, `getComputedStyle(document.body).backgroundColor`))
	d.shoot("desk-dark")
}
