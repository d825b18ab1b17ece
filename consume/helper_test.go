package consume_test

import (
	"context"
	"fmt"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/storetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type message struct{ id, body string }

// messages is how consume is told of them.
func messages() consume.Options[message] {
	return consume.Options[message]{
		ID:        func(m message) string { return m.id },
		Body:      func(m message) []byte { return []byte(m.body) },
		MissingID: consume.RejectMissing,
	}
}

// env is a store on one engine, with a clock that stands still.
type env struct {
	*idem.Store
	t     *testing.T
	clock *idemtest.Clock
	path  string // of a durable engine
	opts  idem.Options
}

const lease = 30 * time.Second

// each runs f on memory and on bolt.
func each(t *testing.T, o idem.Options, f func(t *testing.T, e *env)) {
	t.Parallel()
	for _, engine := range []string{"memory", "bolt"} {
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			e := &env{t: t, clock: idemtest.NewClock(time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)), opts: o}
			if engine == "bolt" {
				e.path = filepath.Join(t.TempDir(), "idem.db")
			}
			e.opts.Clock, e.opts.SweepInterval = e.clock, -1
			if e.opts.Lease == 0 {
				e.opts.Lease = lease
			}
			e.open()
			f(t, e)
		})
	}
}

// durable runs f on bolt alone.
func durable(t *testing.T, o idem.Options, f func(t *testing.T, e *env)) {
	each(t, o, func(t *testing.T, e *env) {
		if e.path == "" {
			t.SkipNow()
		}
		f(t, e)
	})
}

func (e *env) open() {
	e.t.Helper()
	var b engine.Backend = storetest.NewRich()
	if e.path != "" {
		var err error
		b, err = bolt.Open(e.path, bolt.Options{})
		require.NoError(e.t, err)
	}
	e.Store = storetest.Open(e.t, b, e.opts)
}

// commits counts them; in memory they are the calls that may change something.
func (e *env) commits() uint64 {
	e.t.Helper()
	if b, ok := engine.Of(e).(storetest.Rich); ok {
		return uint64(b.Applies.Load())
	}
	s, err := e.Stats(context.Background())
	require.NoError(e.t, err)
	return s.Commits
}

// die is the end of the process, and the next one opens the store. What was claimed
// stays claimed.
func (e *env) die() {
	e.t.Helper()
	require.NotEmpty(e.t, e.path, "nothing outlives a process in memory")
	require.NoError(e.t, e.Close())
	e.open()
}

func (e *env) consumer(name string, o consume.Options[message], handle func(context.Context, message) error) *consume.Consumer[message] {
	e.t.Helper()
	c, err := consume.New(e.Store, name, handle, o)
	require.NoError(e.t, err)
	return c
}

// billing is a consumer with a handler that counts.
func (e *env) billing(h *handler) *consume.Consumer[message] {
	e.t.Helper()
	return e.consumer("billing", messages(), h.handle)
}

func (e *env) record(key string) idem.Record {
	e.t.Helper()
	r, err := e.Get(context.Background(), key)
	require.NoError(e.t, err)
	return r
}

// noRecord checks that nothing is known of key.
func (e *env) noRecord(key string) {
	e.t.Helper()
	_, err := e.Get(context.Background(), key)
	assert.Equal(e.t, idem.ErrNotFound, err, key)
}

// handler counts its runs by message and returns err.
type handler struct {
	err error

	mu   sync.Mutex
	runs map[message]int
	all  atomic.Int64
}

func (h *handler) handle(_ context.Context, m message) error {
	h.all.Add(1)
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.runs == nil {
		h.runs = map[message]int{}
	}
	h.runs[m]++
	return h.err
}

// mustNotRun is a handler that must not be.
func mustNotRun(context.Context, message) error { panic("the handler was run") }

func key(t *testing.T, c *consume.Consumer[message], m message) string {
	t.Helper()
	k, err := c.Key(m)
	require.NoError(t, err)
	return k
}

// gets fails unless v is this decision for this reason.
func gets(t *testing.T, d consume.Decision, r consume.Reason, v consume.Verdict, note ...any) {
	t.Helper()
	assert.Equal(t, fmt.Sprint(d, ": ", r), fmt.Sprint(v.Decision, ": ", v.Reason), append([]any{v.String()}, note...)...)
}

func decisions(vs []consume.Verdict) (s []string) {
	for _, v := range vs {
		s = append(s, fmt.Sprint(v.Decision, ": ", v.Reason))
	}
	return s
}
