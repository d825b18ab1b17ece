package outcomes_test

import (
	"context"
	"encoding/hex"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	bbolt "go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/outcomes"
	"github.com/idemkv/idem/memory"
	"github.com/idemkv/idem/pebble"
)

func request(c *outcomes.Call) idem.Request {
	return idem.Request{Key: c.Key, Lease: outcomes.Lease, HoldUnknown: c.Hold}
}

// run runs d on a store on b.
func run(t *testing.T, b engine.Backend, d outcomes.Door) {
	clock := idemtest.NewClock(time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC))
	s, err := idem.New(b, idem.Options{Clock: clock, SweepInterval: -1})
	require.NoError(t, err)
	defer func() { require.NoError(t, s.Close()) }()
	outcomes.Run(t, s, clock, d)
}

func TestDo(t *testing.T) {
	t.Parallel()
	run(t, memory.New(memory.Options{}), outcomes.Door{
		Column: func(r outcomes.Row) outcomes.Fates { return r.Do },
		Itself: true,
		Call: func(t *testing.T, c *outcomes.Call) bool {
			_, _, err := idem.Do(c.Ctx, c.Store, request(c), func(ctx context.Context, claim idem.Claim) ([]byte, error) {
				return nil, c.Work(t, ctx, claim.Token).Return(ctx)
			})
			return err == nil
		},
	})
}

func sameCommit(r outcomes.Row) outcomes.Fates { return r.SameCommit }

func TestBoltDo(t *testing.T) {
	t.Parallel()
	b, err := bolt.Open(filepath.Join(t.TempDir(), "idem.db"), bolt.Options{})
	require.NoError(t, err)
	run(t, b, outcomes.Door{
		Column: sameCommit,
		Call: func(t *testing.T, c *outcomes.Call) bool {
			_, _, err := bolt.Do(c.Ctx, c.Store, request(c), func(ctx context.Context, _ *bbolt.Tx) ([]byte, error) {
				return nil, c.Work(t, ctx, idem.Token{}).Return(ctx)
			})
			return err == nil
		},
	})
}

func TestPebbleDo(t *testing.T) {
	t.Parallel()
	b, err := pebble.Open(t.TempDir(), pebble.Options{})
	require.NoError(t, err)
	run(t, b, outcomes.Door{
		Column: sameCommit,
		Call: func(t *testing.T, c *outcomes.Call) bool {
			_, _, err := pebble.Do(c.Ctx, c.Store, request(c), func(ctx context.Context, _ *pebbledb.Batch) ([]byte, error) {
				return nil, c.Work(t, ctx, idem.Token{}).Return(ctx)
			})
			return err == nil
		},
	})
}

func TestConsume(t *testing.T) {
	t.Parallel()
	run(t, memory.New(memory.Options{}), outcomes.Door{
		Column: func(r outcomes.Row) outcomes.Fates { return r.Consume },
		Itself: true,
		Call: func(t *testing.T, c *outcomes.Call) bool {
			handle := func(ctx context.Context, _ string) error {
				return c.Work(t, ctx, consume.FromContext(ctx).Token()).Return(ctx)
			}
			consumer, err := consume.New(c.Store, "door", handle, consume.Options[string]{
				ID:        func(m string) string { return m },
				Body:      func(string) []byte { return nil },
				MissingID: consume.RejectMissing,
				Lease:     outcomes.Lease, MaxRun: outcomes.MaxRun, HoldUnknown: c.Hold,
			})
			require.NoError(t, err)
			return consumer.Handle(c.Ctx, c.Key).Decision == consume.Ack
		},
	})
}

func TestHTTP(t *testing.T) {
	t.Parallel()
	done, err := idemhttp.Answer{Status: http.StatusCreated}.MarshalBinary()
	require.NoError(t, err)
	run(t, memory.New(memory.Options{}), outcomes.Door{
		Column: func(r outcomes.Row) outcomes.Fates { return r.HTTP },
		Itself: true,
		Result: done,
		Call: func(t *testing.T, c *outcomes.Call) bool {
			handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				op := idemhttp.FromContext(r.Context())
				answer(r.Context(), w, op, c.Work(t, r.Context(), op.Token()))
			})
			r := httptest.NewRequest(http.MethodPost, "/", nil).WithContext(c.Ctx)
			r.Header.Set("Idempotency-Key", hex.EncodeToString([]byte(c.Key)))
			w := httptest.NewRecorder()
			idemhttp.New(c.Store, idemhttp.GlobalScope, idemhttp.Options{
				RetryUnknown: !c.Hold, Lease: outcomes.Lease, MaxRun: outcomes.MaxRun,
				CancelWithClient: c.Way == outcomes.Stopped,
			})(handler).ServeHTTP(w, r)
			return w.Code == http.StatusCreated
		},
	})
}

// answer ends the work of a handler of HTTP.
func answer(ctx context.Context, w http.ResponseWriter, op *idemhttp.Operation, way outcomes.Way) {
	switch way {
	case outcomes.Plain:
		w.WriteHeader(http.StatusInternalServerError)
	case outcomes.Permanent:
		op.Final()
		w.WriteHeader(http.StatusCreated)
	case outcomes.Unknown:
		op.Unknown()
		w.WriteHeader(http.StatusBadGateway)
	case outcomes.Retryable:
		op.Retryable()
		w.WriteHeader(http.StatusServiceUnavailable)
	case outcomes.NotNow:
		w.WriteHeader(http.StatusTooManyRequests)
	case outcomes.Half:
		w.WriteHeader(http.StatusCreated)
		_, _ = w.Write([]byte("half of"))
		panic(http.ErrAbortHandler)
	case outcomes.Stopped:
	case outcomes.Silent:
		op.Returned(errors.New("the handler failed"))
	default:
		_ = way.Return(ctx)
		w.WriteHeader(http.StatusCreated)
	}
}

// The documentation shows the table that the doors are proved by.
func TestDocumentation(t *testing.T) {
	t.Parallel()
	doc, err := os.ReadFile("../../docs/OUTCOMES.md")
	require.NoError(t, err)
	assert.True(t, strings.Contains(string(doc), outcomes.Markdown()), "docs/OUTCOMES.md must contain:\n%s", outcomes.Markdown())
}
