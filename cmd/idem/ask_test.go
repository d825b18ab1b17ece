package main

import (
	"bufio"
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemadmin"
)

// session is a run at a terminal, in this process.
type session struct {
	tool *tool
	out  bytes.Buffer
	err  bytes.Buffer
}

// atTerminal returns a tool at which somebody types answer.
func atTerminal(answer io.Reader) *session {
	s := &session{}
	s.tool = &tool{
		in: answer, out: bufio.NewWriter(&s.out), err: &s.err, env: func(string) string { return "" },
		inTerminal: true, outTerminal: true, errTerminal: true, now: time.Now,
	}
	return s
}

func filled(t *testing.T, k kind) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "store")
	s, _ := fill(k, path)
	require.NoError(t, s.Close())
	return path
}

// Only yes is yes, and what is asked about is shown before.
func TestSettlingAsks(t *testing.T) {
	t.Parallel()
	for answer, want := range map[string]exitCode{"": exitFailed, "\n": exitFailed, "n\n": exitFailed, "yep\n": exitFailed, "y\n": exitOK, " YES \n": exitOK} {
		path := filled(t, boltKind)
		s := atTerminal(strings.NewReader(answer))
		require.Equal(t, want, s.tool.run([]string{"settle", "release", "order-4", "-store", path}), "answer %q: %s", answer, s.err.String())
		require.Contains(t, s.err.String(), "held for")
		require.Contains(t, s.err.String(), "Release it, to be run again? [y/N]")
		require.NotContains(t, s.err.String(), "order-4")
		state := map[exitCode]string{exitOK: "released", exitFailed: "held"}[want]
		s = atTerminal(strings.NewReader(""))
		require.Equal(t, exitOK, s.tool.run([]string{"show", "order-4", "-store", path}))
		require.Regexp(t, `(?m)^state +`+state+`$`, s.out.String())
	}
}

// reader calls f when it is first read from.
type reader struct {
	f    func()
	text io.Reader
}

func (r *reader) Read(b []byte) (int, error) {
	if r.f != nil {
		r.f()
		r.f = nil
	}
	return r.text.Read(b)
}

// What changes while the operator thinks is not overwritten.
func TestSettlingLosesTheRaceWhileItAsks(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	for _, change := range []struct {
		name, says string
		by         func(s *idem.Store, token idem.Token) error
	}{
		{"completed", "it is completed", func(s *idem.Store, token idem.Token) error { return s.Complete(ctx, token, []byte("paid")) }},
		{"forgotten", "there is no record any more", func(s *idem.Store, token idem.Token) error { return s.Forget(ctx, token) }},
		{"taken over", "it is in_flight, attempt 2", func(s *idem.Store, token idem.Token) error {
			if err := s.Release(ctx, token, nil); err != nil {
				return err
			}
			_, err := s.Claim(ctx, idem.Request{Key: token.Key})
			return err
		}},
	} {
		t.Run(change.name, func(t *testing.T) {
			t.Parallel()
			store, url := served(t)
			rec, err := store.Get(ctx, "order-4")
			require.NoError(t, err)
			s := atTerminal(&reader{func() { require.NoError(t, change.by(store, rec.Token())) }, strings.NewReader("y\n")})
			before := rec.Fence
			code := s.tool.run([]string{"settle", "fail", "order-4", "-reason", "refused", "-url", url})
			require.Equal(t, exitLost, code, s.err.String())
			require.Contains(t, s.err.String(), change.says)
			require.Contains(t, s.err.String(), "nothing was changed")
			now, err := store.Get(ctx, "order-4")
			if change.name == "forgotten" {
				require.ErrorIs(t, err, idem.ErrNotFound)
				return
			}
			require.NoError(t, err)
			require.NotEqual(t, idem.Failed, now.State)
			require.GreaterOrEqual(t, now.Fence, before)
		})
	}
}

// served is a store behind idemadmin.
func served(t *testing.T) (*idem.Store, string) {
	t.Helper()
	b, err := openEngine(boltKind, filled(t, boltKind))
	require.NoError(t, err)
	store, err := idem.New(b, idem.Options{})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	admin, err := idemadmin.New(store, idemadmin.Options{
		Authorize: func(*http.Request, idemadmin.Action) (string, bool) { return "ana", true },
		Reveal:    idemadmin.RevealKeys | idemadmin.RevealPayloads,
		Logger:    slog.New(slog.DiscardHandler),
	})
	require.NoError(t, err)
	server := httptest.NewServer(admin)
	t.Cleanup(server.Close)
	return store, server.URL
}

// A service that goes away between looking and settling leaves the outcome open, and the
// message says so.
func TestServiceGoesAwayWhileItAsks(t *testing.T) {
	t.Parallel()
	store, url := served(t)
	target, err := http.NewRequest(http.MethodGet, url, nil)
	require.NoError(t, err)
	gone := false
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if gone {
			panic(http.ErrAbortHandler)
		}
		out := r.Clone(r.Context())
		out.URL.Scheme, out.URL.Host, out.RequestURI = "http", target.URL.Host, ""
		resp, err := http.DefaultTransport.RoundTrip(out)
		if err != nil {
			http.Error(w, "proxy", http.StatusBadGateway)
			return
		}
		defer resp.Body.Close()
		w.WriteHeader(resp.StatusCode)
		_, _ = io.Copy(w, resp.Body)
	}))
	defer proxy.Close()
	s := atTerminal(&reader{func() { gone = true }, strings.NewReader("y\n")})
	code := s.tool.run([]string{"settle", "fail", "order-4", "-reason", "refused", "-url", proxy.URL})
	require.Equal(t, exitUnavailable, code, s.err.String())
	require.Contains(t, s.err.String(), "may or may not have been done")
	rec, err := store.Get(context.Background(), "order-4")
	require.NoError(t, err)
	require.Equal(t, idem.Held, rec.State)
	http.DefaultTransport.(*http.Transport).CloseIdleConnections()
}

// Of two keys with one hash, none is settled before it is clear which.
func TestSettlingOneOfTwoWithOneHash(t *testing.T) {
	t.Parallel()
	path := filled(t, boltKind)
	require.NoError(t, giveCollidingSecret(path))
	b, err := openEngine(boltKind, path)
	require.NoError(t, err)
	store, err := idem.New(b, idem.Options{})
	require.NoError(t, err)
	var fences []string
	for _, key := range collidingKeys {
		c, err := store.Claim(context.Background(), idem.Request{Key: key})
		require.NoError(t, err)
		fences = append(fences, strconv.FormatUint(c.Token.Fence, 10))
	}
	hash := store.KeyHash(collidingKeys[0])
	require.Equal(t, hash, store.KeyHash(collidingKeys[1]))
	require.NoError(t, store.Close())

	s := atTerminal(strings.NewReader("y\n"))
	require.Equal(t, exitAmbiguous, s.tool.run([]string{"settle", "release", hash, "-running", "-store", path}))
	for _, fence := range fences {
		require.Contains(t, s.err.String(), fence)
	}
	require.NotContains(t, s.err.String(), "account-")
	s = atTerminal(strings.NewReader("y\n"))
	require.Equal(t, exitOK, s.tool.run([]string{"settle", "release", hash, "-fence", fences[1], "-running", "-store", path}), s.err.String())
	for i, state := range []string{"in_flight", "released"} {
		s = atTerminal(strings.NewReader(""))
		require.Equal(t, exitOK, s.tool.run([]string{"show", collidingKeys[i], "-json", "-store", path}))
		require.Contains(t, s.out.String(), `"state":"`+state+`"`)
	}
}
