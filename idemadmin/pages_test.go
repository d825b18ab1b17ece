package idemadmin_test

import (
	"fmt"
	"html"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/operator"
	"github.com/idemkv/idem/memory"
)

const all = idemadmin.RevealKeys | idemadmin.RevealPayloads

var tag = regexp.MustCompile(`<[^>]*>`)

// text is what a page says, without its tags.
func text(page string) string {
	return strings.Join(strings.Fields(html.UnescapeString(tag.ReplaceAllString(page, " "))), " ")
}

func TestOverview(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{MaxAttempts: 5}, idemadmin.Options{})
	s.everything()
	page := text(s.get("", http.StatusOK))
	for _, want := range []string{
		"Ready.", "1 held", "3 in flight", "2 of them lapsed", "1 released", "1 completed", "1 failed",
		"2 unsettled", "Oldest in flight 2 min", "Attempts at most 5", "Lease 1m0s", "Retention 1 d 0 h", "keys hidden · payloads hidden", "oncall",
	} {
		assert.Contains(t, page, want)
	}
	require.NoError(t, s.store.Close())
	page = text(s.get("", http.StatusOK))
	assert.Contains(t, page, "Not ready: closed.")
	assert.Contains(t, page, "1 held", "the counts are kept for a while")
	s.clock.Advance(time.Minute)
	page = text(s.get("", http.StatusOK))
	assert.Contains(t, page, "could not be counted")
}

// listed are the hashes on a page, in order.
func listed(page string) (hashes []string) {
	for _, m := range regexp.MustCompile(`class="hash"[^>]*>([0-9a-f]{12})<`).FindAllStringSubmatch(page, -1) {
		hashes = append(hashes, m[1])
	}
	return hashes
}

func (s *site) hashes(keys ...string) (out []string) {
	for _, k := range keys {
		out = append(out, s.store.KeyHash(k))
	}
	return out
}

func TestListFilters(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: all})
	s.everything()
	for query, keys := range map[string][]string{
		"":                                  {"a/lapsed", "a/unknown", "a/held", "b/released", "b/completed", "b/failed", "b/running"},
		"state=in_flight":                   {"a/lapsed", "a/unknown", "b/running"},
		"state=completed":                   {"b/completed"},
		"prefix=a/":                         {"a/lapsed", "a/unknown", "a/held"},
		"prefix=a/&state=held":              {"a/held"},
		"unsettled=1":                       {"a/held", "a/unknown"},
		"unsettled=0&state=failed":          {"b/failed"},
		"prefix=c":                          nil,
		"hash=" + s.store.KeyHash("a/held"): {"a/held"},
	} {
		assert.ElementsMatch(t, s.hashes(keys...), listed(s.get("list?"+query, http.StatusOK)), query)
	}
	for _, query := range []string{"state=lost", "unsettled=yes", "hash=xyz", "hash=" + strings.Repeat("a", 13), "after=x", "stuck=x"} {
		s.get("list?"+query, http.StatusBadRequest)
	}
	page := s.get("list?state=held&unsettled=1&prefix=%22%3E", http.StatusOK)
	assert.Contains(t, page, `<option value="held" selected>`, "the form shows what was asked")
	assert.Contains(t, page, `checked`)
	assert.Contains(t, page, `value="&#34;&gt;"`)
}

// Without the right to see keys, a list by prefix is refused: it would tell them letter
// by letter. The form does not offer it.
func TestPrefixDisclosesNoKeys(t *testing.T) {
	t.Parallel()
	for _, reveal := range []idemadmin.Reveal{0, idemadmin.RevealPayloads} {
		s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: reveal})
		s.everything()
		require.Empty(t, listed(s.get("list?prefix=a", http.StatusForbidden)))
		s.problem(http.MethodGet, "records?prefix=a", "", operator.TypeNotAllowed)
		require.NotContains(t, s.get("list", http.StatusOK), `name="prefix"`)
	}
}

// follow follows the links to the next page, and returns all hashes and the pages.
func (s *site) follow(target string) (hashes []string, pages int) {
	s.t.Helper()
	next := regexp.MustCompile(`href="([^"]*)">Go on<`)
	for pages = 1; ; pages++ {
		require.Less(s.t, pages, 1000)
		page := s.get(target, http.StatusOK)
		hashes = append(hashes, listed(page)...)
		m := next.FindStringSubmatch(page)
		if m == nil {
			return hashes, pages
		}
		target = html.UnescapeString(m[1])
	}
}

// A list goes on page by page until it has shown each record once. No page looks at more
// records than Options.Look, and the place in the link discloses no key.
func TestListPages(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{PageSize: 7, Look: 10})
	var want []string
	for i := range 40 {
		key := fmt.Sprintf("order-%02d", i)
		c := s.claim(idem.Request{Key: key})
		if i%4 == 0 {
			require.NoError(t, s.store.Hold(t.Context(), c.Token, nil))
			want = append(want, s.store.KeyHash(key))
		}
	}
	hashes, pages := s.follow("list")
	assert.Len(t, hashes, 40)
	assert.GreaterOrEqual(t, pages, 6)
	hashes, pages = s.follow("list?state=held")
	assert.ElementsMatch(t, want, hashes)
	assert.GreaterOrEqual(t, pages, 4, "10 records a page are looked at")
	hashes, _ = s.follow("stuck")
	assert.ElementsMatch(t, want, hashes)
	hashes, pages = s.follow("stuck?stuck=exhausted")
	assert.Empty(t, hashes)
	assert.GreaterOrEqual(t, pages, 4)
	page := s.get("stuck?stuck=exhausted", http.StatusOK)
	assert.Contains(t, page, "Nothing is stuck so far")
	assert.Contains(t, page, "10 stored records looked at; there are more")

	after := regexp.MustCompile(`after=([^"&]+)`).FindStringSubmatch(s.get("list", http.StatusOK))[1]
	other := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	assert.Contains(t, other.get("list?after="+after, http.StatusBadRequest), "Begin the list again")
	flipped := "A" + after[1:]
	if flipped == after {
		flipped = "B" + after[1:]
	}
	s.get("list?after="+flipped, http.StatusBadRequest)
}

func TestStuckPage(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{MaxAttempts: 2}, idemadmin.Options{})
	s.everything()
	for range 2 {
		s.claim(idem.Request{Key: "c/exhausted"}, s.store.Release)
	}
	page := s.get("stuck", http.StatusOK)
	shown := listed(page)
	assert.ElementsMatch(t, s.hashes("a/lapsed", "a/unknown", "a/held", "b/released", "c/exhausted"), shown)
	assert.ElementsMatch(t, s.hashes("a/lapsed", "a/unknown"), shown[:2], "the oldest come first")
	for reason, key := range map[string]string{
		"held": "a/held", "unknown": "a/unknown", "lapsed": "a/lapsed", "released": "b/released", "exhausted": "c/exhausted",
	} {
		assert.Equal(t, s.hashes(key), listed(s.get("stuck?stuck="+reason, http.StatusOK)), reason)
		var l operator.List
		s.api(http.MethodGet, "records?stuck="+reason, "", http.StatusOK, &l)
		require.Len(t, l.Records, 1)
		assert.Equal(t, operator.Reason(reason), l.Records[0].Stuck.Reason)
		assert.NotEmpty(t, l.Records[0].Stuck.Settles)
	}
	assert.NotContains(t, page, "bounds no attempts")
	unbound := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	assert.Contains(t, unbound.get("stuck", http.StatusOK), "bounds no attempts")
}

// One record, with all that is known about it, and its result as what it is.
func TestRecordPage(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: all})
	answer, err := idemhttp.Answer{Status: 402, Header: http.Header{"Content-Type": {"text/plain"}}, Body: []byte("no money")}.MarshalBinary()
	require.NoError(t, err)
	for key, c := range map[string]struct {
		result string
		shows  []string
	}{
		"json": {`{"id": 7, "n": 9007199254740993}`, []string{"json", `"id": 7`, "9007199254740993"}},
		"http": {string(answer), []string{"HTTP 402", "Content-Type", "text/plain", "no money"}},
		"text": {"paid in cash", []string{"text", "paid in cash"}},
		"hex":  {"\x00\xff", []string{"hex", "00ff"}},
	} {
		claim := s.claim(idem.Request{Key: key, Fingerprint: idem.FingerprintOf([]byte("x"))})
		require.NoError(t, s.store.Complete(t.Context(), claim.Token, []byte(c.result)))
		page := text(s.get("record?"+s.named(claim).Encode(), http.StatusOK))
		for _, want := range append(c.shows, s.store.KeyHash(key), "Key "+key, fence(claim.Token), "Attempt 1", "completed", "Expires 2027", "in 1 d 0 h", "Forget…") {
			assert.Contains(t, page, want, key)
		}
		assert.NotContains(t, page, "Complete…", "it is final")
		token, _ := claim.Token.MarshalText()
		assert.Contains(t, page, string(token))
	}
	c := s.claim(idem.Request{Key: "part-way"})
	require.NoError(t, s.store.Checkpoint(t.Context(), c.Token, []byte("reserved")))
	require.NoError(t, s.store.Hold(t.Context(), c.Token, []byte("bank timed out")))
	s.clock.Advance(3 * time.Hour)
	page := text(s.get("record?"+s.named(c).Encode(), http.StatusOK))
	for _, want := range []string{"Stuck for 3 h 0 min: held.", "Note", "bank timed out", "Checkpoint", "reserved", "Expires never", "Complete…", "Release…"} {
		assert.Contains(t, page, want)
	}
	dropped := newSite(t, nil, idem.Options{MaxResult: 5}, idemadmin.Options{})
	c = dropped.claim(idem.Request{Key: "k"})
	require.ErrorIs(t, dropped.store.Complete(t.Context(), c.Token, make([]byte, 6)), idem.ErrTooLarge)
	assert.Contains(t, dropped.get("record?"+dropped.named(c).Encode(), http.StatusOK), "It was not kept")
}

func TestRecordPageMovedOrGone(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: "k"})
	s.clock.Advance(time.Hour)
	s.claim(idem.Request{Key: "k"})
	assert.Contains(t, s.get("record?"+s.named(c).Encode(), http.StatusOK), "The record has changed.")
	assert.NotContains(t, s.get("record?hash="+s.store.KeyHash("k"), http.StatusOK), "The record has changed.")
	assert.Contains(t, s.get("record?hash="+s.store.KeyHash("absent"), http.StatusNotFound), "No record has this hash.")
	for _, q := range []string{"", "hash=", "hash=ABCDEF012345", "hash=abcdef01234", "hash=abcdef012345&fence=x", "hash=abcdef012345&fence=01", "hash=abcdef012345&after=x"} {
		s.get("record?"+q, http.StatusBadRequest)
	}
}

// A search by hash that ends at its bound says so and goes on.
func TestRecordPageSearchesOn(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Look: 10})
	for i := range 55 {
		s.claim(idem.Request{Key: fmt.Sprint(i)})
	}
	found := 0
	for i := range 55 {
		hashes, pages := s.follow("record?hash=" + s.store.KeyHash(fmt.Sprint(i)))
		require.Empty(t, hashes)
		require.Equal(t, 6, pages)
		if strings.Contains(s.get("record?hash="+s.store.KeyHash(fmt.Sprint(i)), http.StatusOK), "Settle") {
			found++
		}
	}
	require.Equal(t, 10, found, "those on the first page")
}

// A key, a token and a hash all lead to the record, and the key does not get into the
// URL.
func TestFind(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: "order/1 ü"})
	token, err := c.Token.MarshalText()
	require.NoError(t, err)
	for _, q := range []string{"order/1 ü", " order/1 ü\n", string(token)} {
		w := s.post("reader", "find", url.Values{"q": {q}})
		require.Equal(t, http.StatusSeeOther, w.Code, q)
		require.Equal(t, "record?"+url.Values{"hash": s.named(c)["hash"], "fence": s.named(c)["fence"]}.Encode(), w.Header().Get("Location"))
		require.Equal(t, http.StatusOK, s.ask("reader", http.MethodGet, w.Header().Get("Location"), nil).Code)
	}
	w := s.post("oncall", "find", url.Values{"q": {s.store.KeyHash("x")}})
	require.Equal(t, "record?hash="+s.store.KeyHash("x"), w.Header().Get("Location"))
	require.Equal(t, http.StatusNotFound, s.post("oncall", "find", url.Values{"q": {"absent"}}).Code)
	require.Equal(t, http.StatusBadRequest, s.post("oncall", "find", url.Values{"q": {""}}).Code)
	require.Equal(t, http.StatusBadRequest, s.post("oncall", "find", url.Values{"q": {strings.Repeat("x", 1025)}}).Code)
	require.Equal(t, http.StatusRequestEntityTooLarge, s.post("oncall", "find", url.Values{"q": {strings.Repeat("x", 10_000)}}).Code)
	require.Equal(t, http.StatusBadRequest, s.post("oncall", "find?q=order/1", url.Values{}).Code)
}

// The token of a long key is longer than any key.
func TestFindByTheTokenOfALongKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: strings.Repeat("k", idem.MaxKey)})
	token, err := c.Token.MarshalText()
	require.NoError(t, err)
	w := s.post("reader", "find", url.Values{"q": {string(token)}})
	require.Equal(t, http.StatusSeeOther, w.Code, w.Body)
	require.Equal(t, "record?"+s.named(c).Encode(), w.Header().Get("Location"))
	require.Equal(t, http.StatusSeeOther, s.post("reader", "find", url.Values{"q": {c.Token.Key + "\n"}}).Code, "pasted with a line end")
}

// Whatever is in keys, results, notes, header fields, the user's name and the title, a page
// shows it as text: no tag of it becomes one, and nothing turns the text around.
func TestHostileTexts(t *testing.T) {
	t.Parallel()
	const tags = `"'><script>alert(1)</script><img src=x onerror=alert(2)>{{.}}`
	const evil = tags + "\u202e\x1b[2J"
	answer, err := idemhttp.Answer{Status: 200, Header: http.Header{"X-Evil": {evil}}, Body: []byte(evil)}.MarshalBinary()
	require.NoError(t, err)
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: all, Title: evil})
	var claims []idem.Claim
	for i, result := range []string{evil, `{"` + `</pre><script>` + `":"<script>"}`, string(answer), "\xff" + evil} {
		c := s.claim(idem.Request{Key: fmt.Sprint(i, evil)})
		require.NoError(t, s.store.Checkpoint(t.Context(), c.Token, []byte(result)))
		require.NoError(t, s.store.Hold(t.Context(), c.Token, []byte(result)))
		claims = append(claims, c)
	}
	query := url.QueryEscape(tags)
	targets := []string{
		"", "list", "stuck", "list?prefix=" + query, "list?state=" + query, "stuck?stuck=" + query, "list?after=" + query,
		"record?hash=" + query, "settle?action=" + query, "settle?action=hold&hash=" + query,
	}
	for _, c := range claims {
		q := s.named(c).Encode()
		targets = append(targets, "record?"+q, "settle?action=complete&"+q, "settle?action=forget&"+q)
	}
	for _, target := range targets {
		page := s.ask("oncall", http.MethodGet, target, nil).Body.String()
		for _, word := range []string{"<script", "<img", "onerror=alert(2)>", "\u202e", "\x1b"} {
			assert.NotContains(t, page, word, target)
		}
	}
	w := s.post("oncall", "find", url.Values{"q": {evil}})
	assert.NotContains(t, w.Body.String(), "<script")
	nobody := s.ask(evil, http.MethodGet, "", nil)
	require.Equal(t, http.StatusForbidden, nobody.Code)
	assert.NotContains(t, nobody.Body.String(), "<script")
	form := s.form("oncall", idemadmin.Complete, claims[0])
	form.Set("payload", evil)
	form.Set("format", evil)
	assert.NotContains(t, s.post("oncall", "settle", form).Body.String(), "<script")
	form.Set("format", "text")
	w = s.post("oncall", "settle", form)
	require.Equal(t, http.StatusOK, w.Code)
	assert.NotContains(t, w.Body.String(), "<script")
}

// Nothing shows a key or a payload that is not revealed: no page, no answer of the API, no
// error, no link.
func TestRedaction(t *testing.T) {
	t.Parallel()
	const key, payload = "tenant-7/4111111111111111", "card-5555444433331111"
	for _, reveal := range []idemadmin.Reveal{0, idemadmin.RevealKeys, idemadmin.RevealPayloads, all} {
		s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: reveal, PageSize: 1})
		c := s.claim(idem.Request{Key: key, Fingerprint: idem.FingerprintOf([]byte(payload))})
		s.claim(idem.Request{Key: key + "2"}) // for a second page
		require.NoError(t, s.store.Checkpoint(t.Context(), c.Token, []byte(payload)))
		require.NoError(t, s.store.Hold(t.Context(), c.Token, []byte(payload)))
		token, _ := c.Token.MarshalText()
		gets, _ := targets(s, c)
		var everything strings.Builder
		for _, target := range append(gets, "api/records?limit=200", "list?hash="+s.store.KeyHash(key), "api/records/"+s.named(c).Get("hash")+"?fence="+s.named(c).Get("fence")) {
			w := s.ask("oncall", http.MethodGet, target, nil)
			everything.WriteString(w.Body.String())
			_ = w.Header().Write(&everything)
		}
		w := s.post("oncall", "find", url.Values{"q": {key}})
		everything.WriteString(w.Body.String() + w.Header().Get("Location"))
		shown := everything.String()
		assert.Equal(t, reveal&idemadmin.RevealKeys != 0, strings.Contains(shown, "4111111111111111"), "%d", reveal)
		assert.Equal(t, reveal&idemadmin.RevealKeys != 0, strings.Contains(shown, string(token)), "%d", reveal)
		assert.Equal(t, reveal&idemadmin.RevealPayloads != 0, strings.Contains(shown, payload), "%d", reveal)
		if reveal&idemadmin.RevealKeys == 0 {
			assert.NotContains(t, shown, fmt.Sprintf("%x", c.Record.Fingerprint[:4]))
		}
	}
}

// The largest result makes a page of bounded size that says it is cut. The API has all of
// it.
func TestHugeResult(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: all})
	for name, unit := range map[string]string{"text": "<&é\n", "hex": "\xff\x00", "json": `"` + strings.Repeat("<&é", 100) + `",`} {
		huge := strings.Repeat(unit, (1<<20-2)/len(unit))
		if name == "json" {
			huge = "[" + strings.TrimSuffix(huge, ",") + "]"
		}
		c := s.claim(idem.Request{Key: name})
		require.NoError(t, s.store.Complete(t.Context(), c.Token, []byte(huge)))
		page := s.get("record?"+s.named(c).Encode(), http.StatusOK)
		assert.Less(t, len(page), 500_000, name)
		assert.Contains(t, page, "the beginning", name)
		assert.Less(t, len(s.get("list", http.StatusOK)), 50_000, name)
		var rec operator.Record
		s.api(http.MethodGet, "records/"+s.named(c).Get("hash"), "", http.StatusOK, &rec)
		assert.False(t, rec.Result.Truncated, name)
		switch rec.Result.Kind {
		case operator.KindText:
			assert.Equal(t, huge, rec.Result.Text)
		case operator.KindJSON:
			assert.JSONEq(t, huge, string(rec.Result.JSON))
		case operator.KindHex:
			assert.Len(t, rec.Result.Hex, 2*len(huge))
		}
		assert.Equal(t, operator.Kind(name), rec.Result.Kind)
	}
}

// Keys of any bytes can be listed, shown and settled.
func TestAnyKey(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{Reveal: all})
	for _, key := range []string{"\xff\xfe", "\x00", "a\nb", "../../etc/passwd", "?x=1&y#z", strings.Repeat("ü", 512), " ", "%2F", "<b>"} {
		c := s.claim(idem.Request{Key: key}, s.store.Hold)
		require.Contains(t, listed(s.get("list", http.StatusOK)), s.store.KeyHash(key), "%q", key)
		form := s.form("oncall", idemadmin.Release, c)
		require.Equal(t, http.StatusOK, s.post("oncall", "settle", form).Code, "%q", key)
		require.Equal(t, idem.Released, s.record(key).State)
		var rec operator.Record
		s.api(http.MethodPost, "find", fmt.Sprintf(`{"key_hex":"%x"}`, key), http.StatusOK, &rec)
		require.Equal(t, s.store.KeyHash(key), rec.KeyHash)
	}
	body := s.get("list", http.StatusOK)
	assert.Contains(t, body, "0xfffe")
}

// A store that has ended, and one whose engine cannot list, say so on every page.
func TestStoreThatDoesNotAnswer(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idem.Options{}, idemadmin.Options{})
	c := s.claim(idem.Request{Key: "k"}, s.store.Hold)
	form := s.form("oncall", idemadmin.Release, c)
	require.NoError(t, s.store.Close())
	for _, target := range []string{"list", "stuck", "record?" + s.named(c).Encode(), "settle?action=release&" + s.named(c).Encode()} {
		assert.Contains(t, s.get(target, http.StatusServiceUnavailable), "does not answer", target)
	}
	require.Equal(t, http.StatusServiceUnavailable, s.post("oncall", "settle", form).Code)
	require.Equal(t, "failed", s.log.last(t)["outcome"])
	for _, target := range []string{"stats", "records", "records/" + s.store.KeyHash("k")} {
		require.Equal(t, "closed", s.problem(http.MethodGet, target, "", operator.TypeUnavailable).Cause)
	}
	var h operator.Health
	s.api(http.MethodGet, "health", "", http.StatusServiceUnavailable, &h)
	require.Equal(t, "closed", h.Cause)

	deaf := newSite(t, listless{memory.New(memory.Options{})}, idem.Options{}, idemadmin.Options{})
	c = deaf.claim(idem.Request{Key: "k"}, deaf.store.Hold)
	deaf.get("list", http.StatusNotImplemented)
	deaf.problem(http.MethodGet, "stats", "", operator.TypeNoList)
	assert.Contains(t, deaf.get("", http.StatusOK), "could not be counted")
	require.Equal(t, http.StatusSeeOther, deaf.post("oncall", "find", url.Values{"q": {"k"}}).Code, "by its key it is found")
	require.Equal(t, http.StatusOK, deaf.post("oncall", "settle", deaf.form("oncall", idemadmin.Release, c)).Code)
}
