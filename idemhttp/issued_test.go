package idemhttp_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemtest"
)

// uuidAt is a UUIDv7 that was made at that time.
func uuidAt(at time.Time) string {
	ms := at.UnixMilli()
	return fmt.Sprintf("%08x-%04x-7cc3-98c4-dc0c0c07398f", ms>>16, ms&0xffff)
}

// A retry that comes when its answer has expired is not run again, if the middleware is
// told how old it is.
func TestTooLate(t *testing.T) {
	t.Parallel()
	const doubt = time.Second
	for name, c := range map[string]struct {
		option func(*http.Request, string) (time.Time, error)
		key    func(at time.Time) string
		header func(at time.Time) string
	}{
		"key":    {idemhttp.KeyIssuedAt(doubt), uuidAt, nil},
		"header": {idemhttp.HeaderIssuedAt("made-at", doubt), func(time.Time) string { return "k" }, func(at time.Time) string { return at.Format(time.RFC3339) }},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			clock := idemtest.NewClock(time.Unix(1_800_000_000, 0))
			store := memoryStore(t, idem.Options{Clock: clock, SweepInterval: -1})
			runs, told := 0, 0
			h := once(store, idemhttp.Options{
				Retention: time.Hour, IssuedAt: c.option, OnError: func(*http.Request, error) { told++ },
			}, func(w http.ResponseWriter, _ *http.Request) {
				runs++
				w.WriteHeader(http.StatusCreated)
			})
			clock.Advance(time.Minute)
			made, _ := clock.Now()
			post := func() answer {
				r := keyed(c.key(made))
				if c.header != nil {
					r.Header.Set("Made-At", c.header(made))
				}
				return serve(h, r)
			}
			require.Equal(t, http.StatusCreated, post().status)
			clock.Advance(time.Hour - 1)
			require.True(t, post().replayed())
			clock.Advance(1)
			for range 3 {
				a := post()
				p := wantProblem(t, a, http.StatusConflict, idemhttp.TypeTooLate)
				require.Empty(t, a.header.Get("Retry-After"), "asking again changes nothing")
				require.Contains(t, p.Detail, "another key would do it again")
			}
			require.Equal(t, 1, runs)
			require.Zero(t, told, "the server is not at fault")

			if c.header == nil { // the key of another request
				made = made.Add(doubt + time.Millisecond)
				require.Equal(t, http.StatusCreated, post().status, "just young enough")
			}
		})
	}
}

// Without the option, and where the time is not known, such a retry runs again.
func TestIssuedAtUnknown(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		option func(*http.Request, string) (time.Time, error)
		key    string
	}{
		"no option":     {nil, uuidAt(time.Unix(1, 0))},
		"a key of old":  {idemhttp.KeyIssuedAt(0), "order-1"},
		"no header":     {idemhttp.HeaderIssuedAt("Made-At", 0), uuidAt(time.Unix(1, 0))},
		"the zero time": {func(*http.Request, string) (time.Time, error) { return time.Time{}, nil }, "k"},
	} {
		h := once(memoryStore(t, idem.Options{}), idemhttp.Options{IssuedAt: c.option}, does(code(http.StatusCreated)))
		require.Equal(t, http.StatusCreated, serve(h, keyed(c.key)).status, name)
	}
}

// The function gets the client's own key, and what it refuses is refused.
func TestIssuedAtThatFails(t *testing.T) {
	t.Parallel()
	store := memoryStore(t, idem.Options{})
	var given []string
	var fails error
	o := idemhttp.Options{IssuedAt: func(r *http.Request, key string) (time.Time, error) {
		given = append(given, key)
		return time.Now().Add(time.Hour), fails
	}}
	h := once(store, o, does(code(http.StatusCreated)))
	require.Equal(t, http.StatusCreated, serve(h, keyed(`"my key"`)).status)
	require.Equal(t, []string{"my key"}, given)
	fails = errors.New("no such time")
	a := serve(h, keyed("other"))
	p := wantProblem(t, a, http.StatusBadRequest, idemhttp.TypeKeyInvalid)
	require.Equal(t, "issued-at", p.Reason)
	require.NotContains(t, a.body, "no such time")
	fails = idemhttp.Problem{Status: http.StatusGone, Type: "urn:old"}
	wantProblem(t, serve(h, keyed("other")), http.StatusGone, "urn:old")

	o.Key = func(*http.Request, []byte) (string, error) { return "from the body", nil }
	fails = nil
	require.Equal(t, http.StatusCreated, serve(once(store, o, does(code(http.StatusCreated))), keyed("header")).status)
	require.Equal(t, "from the body", given[len(given)-1])
	fails = errors.New("no such time")
	wantProblem(t, serve(once(store, o, does(code(http.StatusCreated))), keyed("header")), http.StatusBadRequest, idemhttp.TypeKeyInvalid)
}

func TestHeaderIssuedAt(t *testing.T) {
	t.Parallel()
	want := time.Date(2026, 11, 30, 13, 0, 5, 0, time.UTC)
	find := idemhttp.HeaderIssuedAt("webhook-created", time.Minute)
	ask := func(lines ...string) (time.Time, error) {
		r := httptest.NewRequest(http.MethodPost, "/", nil)
		r.Header["Webhook-Created"] = lines
		return find(r, "k")
	}
	for _, line := range []string{
		fmt.Sprint(want.Unix()), fmt.Sprint("@", want.Unix()), " 2026-11-30T13:00:05Z ", "2026-11-30T14:00:05+01:00",
		"Mon, 30 Nov 2026 13:00:05 GMT",
	} {
		got, err := ask(line)
		require.NoError(t, err, line)
		require.True(t, got.Equal(want.Add(-time.Minute)), "%q: %v", line, got)
	}
	got, err := ask()
	require.NoError(t, err)
	require.Zero(t, got)
	for _, lines := range [][]string{
		{""},
		{"yesterday"},
		{"0"},
		{"-5"},
		{fmt.Sprint(want.UnixMilli())},
		{"2026-11-30"},
		{"@"},
		{"1.5"},
		{fmt.Sprint(want.Unix()), fmt.Sprint(want.Unix())},
	} {
		_, err := ask(lines...)
		require.Error(t, err, "%q", lines)
	}
}
