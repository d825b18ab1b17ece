package main

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemtest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	secret = []byte("s3cret")
	start  = time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
)

// service is the receiver behind a real port, on a store that can be opened again.
type service struct {
	*httptest.Server
	t       *testing.T
	path    string
	clock   *idemtest.Clock
	backend *bolt.Backend
	store   *idem.Store
}

func newService(t *testing.T) *service {
	t.Helper()
	s := &service{t: t, path: filepath.Join(t.TempDir(), "webhooks.db"), clock: idemtest.NewClock(start)}
	s.start()
	t.Cleanup(func() { s.stop() })
	return s
}

func (s *service) start() {
	s.t.Helper()
	var err error
	s.backend, err = bolt.Open(s.path, bolt.Options{})
	require.NoError(s.t, err)
	s.store, err = idem.New(s.backend, idem.Options{Clock: s.clock, SweepInterval: -1, LapseOnOpen: true})
	require.NoError(s.t, err)
	s.Server = httptest.NewServer(receiver(s.store, secret))
}

func (s *service) stop() {
	s.t.Helper()
	s.Close()
	require.NoError(s.t, s.store.Close())
}

// delivery is one that GitHub sends, and perhaps sends again.
type delivery struct {
	id, kind string
	body     []byte
}

func issuesEvent(id, repo string, number int, state string, at time.Time) delivery {
	i := issue{URL: fmt.Sprintf("https://github.com/%s/issues/%d", repo, number), State: state, UpdatedAt: at, Events: 99}
	body, err := json.Marshal(map[string]any{"issue": i, "action": "edited"})
	if err != nil {
		panic(err)
	}
	return delivery{id, "issues", body}
}

// send returns the status, and whether the answer is one given before.
func (s *service) send(d delivery, change func(*http.Request)) (status int, replayed bool) {
	mac := hmac.New(sha256.New, secret)
	mac.Write(d.body)
	r, err := http.NewRequest(http.MethodPost, s.URL+"/webhooks", bytes.NewReader(d.body))
	if !assert.NoError(s.t, err) {
		return 0, false
	}
	r.Header.Set("X-GitHub-Delivery", d.id)
	r.Header.Set("X-GitHub-Event", d.kind)
	r.Header.Set("X-Hub-Signature-256", "sha256="+hex.EncodeToString(mac.Sum(nil)))
	if change != nil {
		change(r)
	}
	resp, err := s.Client().Do(r)
	if !assert.NoError(s.t, err) {
		return 0, false
	}
	defer resp.Body.Close()
	return resp.StatusCode, resp.Header.Get("Idempotent-Replayed") == "true"
}

// issues returns all that is known, by the end of its URL.
func (s *service) issues() map[string]issue {
	s.t.Helper()
	all := make(map[string]issue)
	require.NoError(s.t, s.backend.View(s.t.Context(), func(_ context.Context, tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte("issues"))
		if bucket == nil {
			return nil
		}
		return bucket.ForEach(func(k, v []byte) error {
			var i issue
			defer func() { all[strings.TrimPrefix(string(k), "https://github.com/")] = i }()
			return json.Unmarshal(v, &i)
		})
	}))
	return all
}

// Hundreds of deliveries, each sent one to four times, all mixed up and at once; a
// restart in the middle of it; and each again three days later. Each is processed
// once, and each issue ends in its latest state.
func TestEachDeliveryOnce(t *testing.T) {
	t.Parallel()
	s := newService(t)
	const repos, numbers, events = 2, 5, 20
	var all, sends []delivery
	for n := range repos * numbers * events {
		repo, number, version := n%repos, n/repos%numbers, n/repos/numbers
		state := [...]string{"open", "closed"}[version%2]
		d := issuesEvent(fmt.Sprintf("0f8c-%d", n), fmt.Sprintf("acme/repo%d", repo), number, state, start.Add(time.Duration(version)*time.Minute))
		all = append(all, d)
		for range 1 + n%4 {
			sends = append(sends, d)
		}
	}
	rand.Shuffle(len(sends), func(i, j int) { sends[i], sends[j] = sends[j], sends[i] })
	deliver := func(ds []delivery) (fresh int) {
		var mu sync.Mutex
		var wg sync.WaitGroup
		next := make(chan delivery)
		for range 8 {
			wg.Go(func() {
				for d := range next {
					status, replayed := s.send(d, nil)
					assert.Equal(t, http.StatusNoContent, status)
					mu.Lock()
					if !replayed {
						fresh++
					}
					mu.Unlock()
				}
			})
		}
		for _, d := range ds {
			next <- d
		}
		close(next)
		wg.Wait()
		return fresh
	}
	check := func() {
		t.Helper()
		known := s.issues()
		assert.Len(t, known, repos*numbers)
		for name, i := range known {
			assert.Equal(t, issue{"https://github.com/" + name, "closed", start.Add((events - 1) * time.Minute), events}, i)
		}
	}

	half := len(sends) / 2
	fresh := deliver(sends[:half])
	s.stop()
	s.start()
	fresh += deliver(sends[half:])
	assert.Equal(t, len(all), fresh)
	check()

	s.clock.Advance(3 * 24 * time.Hour)
	assert.Zero(t, deliver(all), "redelivered after three days")
	check()

	// Past the retention a delivery is new. That is the limit of what is promised.
	s.clock.Advance(27 * 24 * time.Hour)
	_, replayed := s.send(all[0], nil)
	assert.False(t, replayed)
	assert.Equal(t, events+1, s.issues()["acme/repo0/issues/0"].Events)
	assert.Equal(t, "closed", s.issues()["acme/repo0/issues/0"].State, "out of order, and known as such")
}

// What is not a delivery is turned away and leaves nothing.
func TestTurnedAway(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := issuesEvent("0f8c-1", "acme/repo", 1, "open", start)
	header := func(name, value string) func(*http.Request) {
		return func(r *http.Request) {
			r.Header.Del(name)
			if value != "" {
				r.Header.Set(name, value)
			}
		}
	}
	for name, c := range map[string]struct {
		change func(*http.Request)
		status int
	}{
		"no signature":    {header("X-Hub-Signature-256", ""), http.StatusUnauthorized},
		"wrong signature": {header("X-Hub-Signature-256", "sha256=00"), http.StatusUnauthorized},
		"no ID":           {header("X-GitHub-Delivery", ""), http.StatusBadRequest},
		"not POST":        {func(r *http.Request) { r.Method = http.MethodGet }, http.StatusMethodNotAllowed},
	} {
		status, _ := s.send(d, c.change)
		assert.Equal(t, c.status, status, name)
	}
	_, err := s.store.Get(t.Context(), idemhttp.StoreKey("*", d.id))
	require.Equal(t, idem.ErrNotFound, err)
	assert.Empty(t, s.issues())

	status, _ := s.send(d, nil)
	assert.Equal(t, http.StatusNoContent, status, "a stranger has not used up its ID")
	forged := issuesEvent(d.id, "acme/repo", 1, "closed", start.Add(time.Hour))
	status, _ = s.send(forged, nil)
	assert.Equal(t, http.StatusUnprocessableEntity, status, "the same ID, signed, with another body")
	status, _ = s.send(delivery{"0f8c-2", "issues", []byte("{")}, nil)
	assert.Equal(t, http.StatusBadRequest, status)
	status, replayed := s.send(delivery{"0f8c-2", "issues", []byte("{")}, nil)
	assert.Equal(t, http.StatusBadRequest, status)
	assert.True(t, replayed)
	status, _ = s.send(delivery{"0f8c-3", "ping", []byte("{}")}, nil)
	assert.Equal(t, http.StatusNoContent, status)
	assert.Equal(t, map[string]issue{"acme/repo/issues/1": {"https://github.com/acme/repo/issues/1", "open", start, 1}}, s.issues())
}

// A store that cannot record says so, and the delivery can be sent again.
func TestNotRecorded(t *testing.T) {
	t.Parallel()
	s := newService(t)
	d := issuesEvent("0f8c-1", "acme/repo", 1, "open", start)
	require.NoError(t, s.store.Close())
	status, _ := s.send(d, nil)
	assert.Equal(t, http.StatusServiceUnavailable, status)
	s.stop()
	s.start()
	status, replayed := s.send(d, nil)
	assert.Equal(t, http.StatusNoContent, status)
	assert.False(t, replayed)
	assert.Equal(t, 1, s.issues()["acme/repo/issues/1"].Events)
}

func TestServe(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "webhooks.db")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.NoError(t, serve(ctx, "localhost:0", path, secret), "told to end, it ends in order")

	taken, err := net.Listen("tcp", "localhost:0")
	require.NoError(t, err)
	defer taken.Close()
	require.Error(t, serve(t.Context(), taken.Addr().String(), path, secret))
	require.Error(t, serve(t.Context(), "localhost:0", filepath.Dir(path), secret), "a folder is no store")
}
