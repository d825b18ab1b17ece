package idemhttp_test

import (
	"encoding/json"
	"errors"
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

// A program can tell the cases of one type of problem apart. Nothing in the body stands
// for the key, not even a hash.
func TestProblemReasons(t *testing.T) {
	t.Parallel()
	down := memoryStore(t, idem.Options{})
	require.NoError(t, down.Close())
	up := memoryStore(t, idem.Options{})
	for name, c := range map[string]struct {
		store  *idem.Store
		o      idemhttp.Options
		keys   []string
		body   io.Reader
		header [2]string
		status int
		kind   string
		reason string
		detail string
	}{
		"key repeated":      {keys: []string{"secret", "secret"}, status: 400, kind: idemhttp.TypeKeyInvalid, reason: "repeated"},
		"key empty":         {keys: []string{""}, status: 400, kind: idemhttp.TypeKeyInvalid, reason: "empty"},
		"key empty, quoted": {keys: []string{`""`}, status: 400, kind: idemhttp.TypeKeyInvalid, reason: "empty"},
		"key not ended":     {keys: []string{`"secret`}, status: 400, kind: idemhttp.TypeKeyInvalid, reason: "quotes"},
		"keys in a list":    {keys: []string{`"secret", "b"`}, status: 400, kind: idemhttp.TypeKeyInvalid, reason: "parameters"},
		"key bare":          {o: idemhttp.Options{StrictKey: true}, keys: []string{"secret"}, status: 400, kind: idemhttp.TypeKeyInvalid, reason: "unquoted"},
		"key with a space":  {keys: []string{"se cret"}, status: 400, kind: idemhttp.TypeKeyInvalid, reason: "characters"},
		"key too long":      {keys: []string{repeat("secret", 256)}, status: 400, kind: idemhttp.TypeKeyInvalid, reason: "length"},
		"body cut":          {body: iotest.ErrReader(io.ErrUnexpectedEOF), status: 400, kind: idemhttp.TypeBodyUnreadable, reason: "cut"},
		"body broken":       {body: iotest.ErrReader(errors.New("no gzip")), status: 400, kind: idemhttp.TypeBodyUnreadable, reason: "read"},
		"fingerprint": {o: idemhttp.Options{Fingerprint: func(*http.Request, []byte) (idem.Fingerprint, error) {
			return idem.Fingerprint{}, errors.New("no")
		}}, status: 400, kind: idemhttp.TypeBodyUnreadable, reason: "fingerprint"},
		"no JSON": {
			o: idemhttp.Options{Fingerprint: idemhttp.JSONFingerprint}, body: strings.NewReader(`{"pin":1234,"pin":1}`),
			status: 400, kind: idemhttp.TypeNotJSON, reason: "json",
			detail: "The body cannot be read as JSON: at byte 12: ",
		},
		"other than JSON": {
			o: idemhttp.Options{Fingerprint: idemhttp.JSONFingerprint}, body: strings.NewReader("a=b"), header: [2]string{"Content-Type", "text/plain"},
			status: 415, kind: idemhttp.TypeNotJSON, reason: "media-type",
		},
		"store down":   {store: down, status: 503, kind: idemhttp.TypeUnavailable, reason: "store"},
		"scope failed": {header: [2]string{"Tenant", "error"}, status: 503, kind: idemhttp.TypeUnavailable, reason: "scope"},
		"no scope":     {header: [2]string{"Tenant", "none"}, status: 403, kind: idemhttp.TypeScopeMissing},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if c.store == nil {
				c.store = up
			}
			if c.keys == nil {
				c.keys = []string{"secret"}
			}
			r := httptest.NewRequest(http.MethodPost, "/", c.body)
			r.Header["Idempotency-Key"] = c.keys
			if c.header[0] != "" {
				r.Header.Set(c.header[0], c.header[1])
			}
			a := serve(once(c.store, c.o, func(http.ResponseWriter, *http.Request) { t.Error("the handler was run") }), r)
			p := wantProblem(t, a, c.status, c.kind)
			require.Equal(t, c.reason, p.Reason)
			if c.detail != "" {
				require.Contains(t, p.Detail, c.detail)
			}
			require.NotContains(t, a.body, "secret")
			require.NotContains(t, a.body, "1234")
			require.NotContains(t, a.body, up.KeyHash(idemhttp.StoreKey("shop", "secret")))
			var members map[string]any
			require.NoError(t, json.Unmarshal([]byte(a.body), &members))
			for name := range members {
				assert.Contains(t, []string{"type", "title", "status", "detail", "reason"}, name)
			}
			if c.status == 503 {
				require.NotEmpty(t, a.header.Get("Retry-After"))
			}
		})
	}
}
