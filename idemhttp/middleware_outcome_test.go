package idemhttp_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/idemhttp"
)

// What becomes of an operation, by what its handler did.

// wantUnknown checks that the key is held, and that retries hear so and run nothing.
func (s *site) wantUnknown(key string) {
	s.t.Helper()
	runs := s.runs.Load()
	for range 2 {
		a := s.post(key)
		wantProblem(s.t, a, 500, idemhttp.TypeOutcomeUnknown)
		require.Empty(s.t, a.header.Get("Retry-After"), "asking again does not help")
	}
	require.Equal(s.t, runs, s.runs.Load())
	require.True(s.t, s.wantRecord(key, idem.Held).ExpiresAt.IsZero(), "until somebody settles it")
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	notNow := []int{401, 403, 407, 408, 412, 421, 423, 425, 429}
	handler := func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.URL.Path[1:])
		if r.Header.Get("Again") != "" {
			w.Header().Set("Retry-After", "1")
		}
		w.WriteHeader(status)
		if status != 204 && status != 304 {
			fmt.Fprint(w, status)
		}
	}
	engines(t, func(t *testing.T, store *idem.Store) {
		s := newSite(t, store, idemhttp.Options{}, handler)
		retry := newSite(t, nil, idemhttp.Options{RetryUnknown: true}, handler)
		for i, status := range []int{
			200, 201, 202, 204, 206, 299, 300, 301, 302, 303, 304, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411,
			412, 413, 414, 415, 416, 417, 418, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505, 599, 600, 999,
			// and with Retry-After
			200, 202, 303, 400, 409, 413, 451, 499, 500, 502, 503, 504,
		} {
			path, key := fmt.Sprint("/", status), fmt.Sprint(status, "-", i)
			again := ""
			if i >= 52 {
				again = "with Retry-After"
			}
			twice := func(s *site) (first, second answer, ran int32) {
				runs := s.runs.Load()
				first, second = s.do("POST", path, key, "", "Again", again), s.do("POST", path, key, "", "Again", again)
				require.Equal(t, status, first.status)
				require.False(t, first.replayed())
				return first, second, s.runs.Load() - runs
			}
			want := idem.Completed
			switch {
			case slices.Contains(notNow, status), again != "" && (status >= 400 && status < 499 || status == 503):
				want = idem.Released
			case status >= 499:
				want = idem.Held
			}
			first, second, ran := twice(s)
			if want == idem.Released {
				s.wantNoRecord(key)
			} else {
				s.wantRecord(key, want)
			}
			switch want {
			case idem.Completed:
				require.True(t, second.replayed(), status)
				require.Equal(t, status, second.status)
				require.Equal(t, first.body, second.body)
				require.EqualValues(t, 1, ran)
			case idem.Released:
				require.Equal(t, status, second.status)
				require.False(t, second.replayed())
				require.EqualValues(t, 2, ran, status)
			case idem.Held:
				wantProblem(t, second, 500, idemhttp.TypeOutcomeUnknown)
				require.EqualValues(t, 1, ran, status)
			}

			_, second, ran = twice(retry)
			if want == idem.Completed {
				require.True(t, second.replayed())
				retry.wantRecord(key, idem.Completed)
			} else {
				require.Equal(t, status, second.status)
				require.EqualValues(t, 2, ran, status)
				if want == idem.Released {
					retry.wantNoRecord(key)
				} else {
					require.Equal(t, 2, retry.wantRecord(key, idem.Released).Attempt)
				}
			}
		}
	})
}

func TestOwnPolicy(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Outcome: func(status int, header http.Header) idemhttp.Outcome {
		switch status {
		case 500:
			return idemhttp.Stored // as Stripe does
		case 404:
			return idemhttp.NotNow
		case 405:
			return idemhttp.Released
		case 202:
			return idemhttp.Unknown
		case 203:
			return 77
		}
		return idemhttp.DefaultOutcome(status, header)
	}}, func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.Header.Get("Status"))
		w.WriteHeader(status)
	})
	post := func(status string) { s.do("POST", "/payments", status, "12.50", "Status", status) }
	for status, want := range map[string]idem.State{
		"500": idem.Completed, "202": idem.Held, "203": idem.Held, "502": idem.Held, "200": idem.Completed, "405": idem.Released,
	} {
		post(status)
		s.wantRecord(status, want)
	}
	post("404")
	s.wantNoRecord("404")
	a := s.post("500")
	require.True(t, a.replayed())
	require.Equal(t, 500, a.status)
	require.Equal(t, "[none stored not_now released unknown outcome(9)]",
		fmt.Sprint([]idemhttp.Outcome{0, idemhttp.Stored, idemhttp.NotNow, idemhttp.Released, idemhttp.Unknown, 9}))
}

// The handler's word counts whatever the status, the last one if there are several,
// and also when it panics.
func TestHandlerSays(t *testing.T) {
	t.Parallel()
	handler := func(w http.ResponseWriter, r *http.Request) {
		op := idemhttp.FromContext(r.Context())
		word, ending, _ := strings.Cut(op.Key(), "_")
		switch word {
		case "retryable":
			op.Retryable()
		case "final":
			op.Unknown()
			op.Final()
		case "unknown":
			op.Unknown()
		}
		if ending == "panic" {
			w.WriteHeader(http.StatusAccepted)
			panic(http.ErrAbortHandler)
		}
		status, _ := strconv.Atoi(ending)
		w.WriteHeader(status)
	}
	for _, retry := range []bool{false, true} {
		s := newSite(t, nil, idemhttp.Options{RetryUnknown: retry}, handler)
		for key, want := range map[string]idem.State{
			"retryable_200": idem.Released, "retryable_500": idem.Released, "retryable_panic": idem.Released,
			"final_200": idem.Completed, "final_429": idem.Completed, "final_500": idem.Completed, "final_panic": idem.Completed,
			"unknown_200": idem.Held, "unknown_503": idem.Held, "unknown_500": idem.Held, "unknown_panic": idem.Held,
		} {
			a := s.post(key)
			_, ending, _ := strings.Cut(key, "_")
			if ending == "panic" {
				require.Error(t, a.err)
			} else {
				require.Equal(t, ending, fmt.Sprint(a.status))
			}
			s.settled(key)
			s.wantRecord(key, want)
			if want == idem.Completed {
				runs := s.runs.Load()
				if a := s.post(key); ending == "panic" {
					p := wantProblem(t, a, 500, idemhttp.TypeNotRetained)
					require.Contains(t, p.Detail, "status was 202")
				} else {
					require.True(t, a.replayed())
					require.Equal(t, ending, fmt.Sprint(a.status))
				}
				require.Equal(t, runs, s.runs.Load())
			}
		}
	}
}

func TestPanic(t *testing.T) {
	t.Parallel()
	type mine struct{ reason string }
	engines(t, func(t *testing.T, store *idem.Store) {
		recovered := make(chan any, 1)
		s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
			switch idemhttp.FromContext(r.Context()).Key() {
			case "mine":
				w.Header().Set("Content-Length", "1000")
				w.Header().Set("X-Inner", "1")
				w.WriteHeader(http.StatusCreated)
				fmt.Fprint(w, "half an answer")
				panic(&mine{"no money"})
			case "abort":
				fmt.Fprint(w, "half an answer")
				flush(w)
				panic(http.ErrAbortHandler)
			}
		}, recoverer(recovered))

		a := s.post("mine")
		require.Equal(t, &mine{"no money"}, <-recovered, "the same value goes on")
		require.Equal(t, 500, a.status, "nothing was sent: middleware further out can answer")
		require.Equal(t, "recovered\n", a.body)
		require.NotContains(t, a.header, "X-Inner")
		require.Equal(t, "1", a.header.Get("X-Outer"))
		s.wantUnknown("mine")
		require.Equal(t, "the handler panicked", string(s.wantRecord("mine", idem.Held).Result))

		a = s.post("abort")
		require.Equal(t, "half an answer", a.body)
		require.Error(t, a.err, "the connection is cut")
		require.Equal(t, http.ErrAbortHandler, <-recovered)
		s.wantUnknown("abort")
	})
}

// An outcome that is unknown is held also where its note does not fit, and each repetition
// of it is told.
func TestShortNotes(t *testing.T) {
	t.Parallel()
	s := newSite(t, memoryStore(t, idem.Options{MaxResult: 3}), idemhttp.Options{}, does(code(500)))
	require.Equal(t, 500, s.post("k").status)
	require.Empty(t, s.heard(), "the handler knows its own")
	s.wantUnknown("k") // asks twice
	require.Len(t, s.heard(), 2)
	require.ErrorIs(t, s.heard()[1], idem.ErrHeld)
	require.Equal(t, "the", string(s.wantRecord("k", idem.Held).Result))
}

// A panic of the service's own policies, after the handler has run, is one of the
// handler.
func TestPolicyPanics(t *testing.T) {
	t.Parallel()
	s := newSite(t, nil, idemhttp.Options{Outcome: func(int, http.Header) idemhttp.Outcome { panic("policy") }}, echo)
	require.Error(t, s.post("k").err)
	s.wantUnknown("k")
}

// Somebody who knows settles a held operation, and retries hear what it came to.
func TestSettle(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, store *idem.Store) {
		s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
			if idemhttp.FromContext(r.Context()).Attempt() == 1 {
				w.WriteHeader(500)
			}
		})
		ctx := t.Context()
		for _, key := range []string{"done", "never", "failed", "failed-and-said-how", "done-nothing-known", "text", "failed-newer"} {
			require.Equal(t, 500, s.post(key).status)
			require.Equal(t, "the handler answered with status 500", string(s.wantRecord(key, idem.Held).Result))
		}
		token := func(key string) idem.Token { return s.wantRecord(key, idem.Held).Token() }

		bytes, err := idemhttp.Answer{Status: 201, Header: http.Header{"Location": {"/1"}, "Date": {"x"}}, Body: []byte("paid")}.MarshalBinary()
		require.NoError(t, err)
		require.NoError(t, store.Complete(ctx, token("done"), bytes))
		a := s.post("done")
		require.True(t, a.replayed())
		require.Equal(t, 201, a.status)
		require.Equal(t, "/1", a.header.Get("Location"))
		require.NotEqual(t, "x", a.header.Get("Date"))
		require.Equal(t, "paid", a.body)

		require.NoError(t, store.Release(ctx, token("never"), nil))
		require.Equal(t, 200, s.post("never").status)

		require.NoError(t, store.Fail(ctx, token("failed"), []byte("fraud")))
		a = s.post("failed")
		wantProblem(t, a, 500, idemhttp.TypeFailed)
		require.NotContains(t, a.body, "fraud")

		bytes, err = idemhttp.Answer{Status: 402}.MarshalBinary()
		require.NoError(t, err)
		require.NoError(t, store.Fail(ctx, token("failed-and-said-how"), bytes))
		require.Equal(t, 402, s.post("failed-and-said-how").status)

		bytes[1]++ // as a newer version writes it
		require.NoError(t, store.Fail(ctx, token("failed-newer"), bytes))
		wantProblem(t, s.post("failed-newer"), 500, idemhttp.TypeUnreadable)

		require.NoError(t, store.Complete(ctx, token("done-nothing-known"), nil))
		wantProblem(t, s.post("done-nothing-known"), 500, idemhttp.TypeNotRetained)

		require.NoError(t, store.Complete(ctx, token("text"), []byte("paid, says Bob")))
		a = s.post("text")
		wantProblem(t, a, 500, idemhttp.TypeUnreadable)
		require.NotContains(t, a.body, "Bob")
	})
}

// Without a key there is no operation, and a handler need not ask.
func TestOperationNil(t *testing.T) {
	t.Parallel()
	op := idemhttp.FromContext(context.Background())
	require.Nil(t, op)
	op.Retryable()
	op.Final()
	op.Unknown()
	require.NoError(t, op.SaveCheckpoint(context.Background(), []byte("x")))
	require.Nil(t, op.Checkpoint())
	require.Zero(t, op.Attempt())
	require.Empty(t, op.Key()+op.DownstreamKey("step"))
	require.Equal(t, idem.Token{}, op.Token())
	require.Equal(t, slog.Value{}, op.LogValue())
	require.Equal(t, "operation(none)", fmt.Sprintf("%v", op))
}

func TestOperation(t *testing.T) {
	t.Parallel()
	engines(t, func(t *testing.T, store *idem.Store) {
		var downstream []string
		charged := func(op *idemhttp.Operation) {
			point := op.Checkpoint()
			assert.Equal(t, "charged", string(point))
			assert.Equal(t, len(point), cap(point), "whoever appends to it gets a copy")
		}
		s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
			op := idemhttp.FromContext(r.Context())
			assert.Equal(t, `a"b`, op.Key())
			scope, _ := scopeOf(r)
			assert.Equal(t, idemhttp.StoreKey(scope, `a"b`), op.Token().Key)
			downstream = append(downstream, op.DownstreamKey("charge"), op.DownstreamKey("mail"))
			assert.Equal(t, idem.DownstreamKey(op.Token().Key, "charge"), op.DownstreamKey("charge"))
			var text strings.Builder
			slog.New(slog.NewTextHandler(&text, nil)).Info("x", "op", op)
			assert.Contains(t, text.String(), fmt.Sprint("op.key_hash=", store.KeyHash(op.Token().Key), " op.attempt=", op.Attempt()))
			for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
				fmt.Fprintf(&text, format, op)
			}
			assert.NotContains(t, text.String(), "shop")
			switch op.Attempt() {
			case 1:
				assert.Nil(t, op.Checkpoint())
				point := []byte("charged")
				assert.NoError(t, op.SaveCheckpoint(r.Context(), point))
				point[0] = 'X'
				charged(op)
				op.Retryable()
			case 2:
				charged(op)
				assert.ErrorIs(t, op.SaveCheckpoint(r.Context(), make([]byte, 2<<20)), idem.ErrTooLarge)
				charged(op)
			default:
				t.Errorf("attempt %d", op.Attempt())
			}
		})
		for range 3 {
			s.post(`"a\"b"`)
		}
		require.EqualValues(t, 2, s.runs.Load())
		require.Equal(t, downstream[:2], downstream[2:], "the same on every attempt")
		require.NotEqual(t, downstream[0], downstream[1])
		s.post(`"a\"b"`, "Tenant", "other")
		require.NotContains(t, downstream[:2], downstream[4], "of another tenant")
	})
}

// A handler may complete its operation in the commit of its own writes. What it has
// recorded is what every client is sent, whatever it writes; a commit that fails has
// recorded nothing.
func TestOperationSameCommit(t *testing.T) {
	t.Parallel()
	b, err := bolt.Open(t.TempDir()+"/idem.db", bolt.Options{MinFree: -1})
	require.NoError(t, err)
	store := storeOn(t, b, idem.Options{})
	s := newSite(t, store, idemhttp.Options{}, func(w http.ResponseWriter, r *http.Request) {
		op := idemhttp.FromContext(r.Context())
		rolledBack := errors.New("rolled back")
		err := bolt.Complete(context.Background(), store, op.Token(), func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
			ledger := must(tx.CreateBucketIfNotExists([]byte("ledger")))
			if err := ledger.Put([]byte(op.Key()), []byte("12.50")); err != nil || op.Key() == "fails" {
				return nil, errors.Join(err, rolledBack)
			}
			return idemhttp.Answer{Status: 201, Body: []byte("paid")}.MarshalBinary()
		})
		w.Header().Set("X-Written", "1")
		if op.Key() == "fails" {
			assert.ErrorIs(t, err, rolledBack)
			w.WriteHeader(http.StatusConflict)
			return
		}
		assert.NoError(t, err)
	})
	for i := range 2 {
		a := s.post("answer")
		require.Equal(t, i == 1, a.replayed())
		require.Equal(t, 201, a.status)
		require.Equal(t, "paid", a.body)
		require.NotContains(t, a.header, "X-Written")
	}
	require.Equal(t, 409, s.post("fails").status)
	require.True(t, s.post("fails").replayed())
	require.NoError(t, b.DB().View(func(tx *bbolt.Tx) error {
		require.Equal(t, 1, tx.Bucket([]byte("ledger")).Stats().KeyN)
		return nil
	}))
}
