package idemhttp_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// sink is the cheapest ResponseWriter: what is left is the cost of what writes to it.
type sink struct {
	header http.Header
	status int
	bytes  int
}

func (s *sink) Header() http.Header { return s.header }
func (s *sink) WriteHeader(status int) {
	s.status = status
}

func (s *sink) Write(p []byte) (int, error) {
	s.bytes += len(p)
	return len(p), nil
}

// reset makes the sink a new one, as the server does for each request.
func (s *sink) reset() {
	clear(s.header)
	s.status, s.bytes = 0, 0
}

// payment is a handler of the usual kind, as cheap as one can be: it reads the body,
// keeps nothing of it, and answers with some header fields and a little JSON.
var payment = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
	_, _ = io.Copy(io.Discard, r.Body)
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Location", "/payments/4711")
	h.Set("ETag", `"1"`)
	h.Set("Content-Length", strconv.Itoa(len(receipt)))
	w.WriteHeader(http.StatusCreated)
	_, _ = w.Write(receipt)
})

var receipt = []byte(`{"id":"4711","amount":"12.50","currency":"EUR","state":"accepted"}`)

// trip is one request, made ready to be served again and again.
type trip struct {
	r    *http.Request
	body *bytes.Reader
	raw  []byte
	w    *sink
}

// plainBody can be read and nothing else, like the bodies that net/http hands to
// handlers: a bytes.Reader would give its bytes away without a copy (io.WriterTo).
type plainBody struct{ r *bytes.Reader }

func (b plainBody) Read(p []byte) (int, error) { return b.r.Read(p) }
func (b plainBody) Close() error               { return nil }

func newTrip(size int, key string) *trip {
	raw := bytes.Repeat([]byte("x"), size)
	body := bytes.NewReader(raw)
	r := httptest.NewRequest(http.MethodPost, "/payments", body)
	r.Header.Set("Idempotency-Key", key)
	return &trip{r: r, body: body, raw: raw, w: &sink{header: make(http.Header)}}
}

func (t *trip) serve(h http.Handler) {
	t.body.Reset(t.raw)
	t.r.Body = plainBody{t.body}
	t.w.reset()
	h.ServeHTTP(t.w, t.r)
}

const uuid = "8e03978e-40d5-43e8-bc93-6894a57f9324"

var bodySizes = []int{64, 1024, 16 << 10}

// BenchmarkBare is the handler without the middleware.
func BenchmarkBare(b *testing.B) {
	for _, size := range bodySizes {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			t := newTrip(size, uuid)
			b.ReportAllocs()
			for b.Loop() {
				t.serve(payment)
			}
		})
	}
}

// BenchmarkReplay is a retry of a finished request.
func BenchmarkReplay(b *testing.B) {
	for _, size := range bodySizes {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			h := idemhttp.New(memoryStore(b, idem.Options{SweepInterval: -1}), idemhttp.GlobalScope, idemhttp.Options{})(payment)
			t := newTrip(size, uuid)
			t.serve(h)
			b.ReportAllocs()
			for b.Loop() {
				t.serve(h)
			}
			require.Equal(b, len(receipt), t.w.bytes)
		})
	}
}

// reference is what a replay must stay below, over the bare handler: SHA-256 over the
// body and three look-ups of a completed record.
func reference(b *testing.B, size int) func() {
	s := memoryStore(b, idem.Options{SweepInterval: -1})
	ctx := context.Background()
	req := idem.Request{Key: idemhttp.StoreKey("*", uuid), Fingerprint: idem.Fingerprint{1}}
	claim, err := s.Claim(ctx, req)
	require.NoError(b, err)
	require.NoError(b, s.Complete(ctx, claim.Token, receipt))
	body := bytes.Repeat([]byte("x"), size)
	return func() {
		_ = sha256.Sum256(body)
		for range 3 {
			if _, err := s.Claim(ctx, req); err != idem.ErrCompleted {
				b.Fatal(err)
			}
		}
	}
}

// BenchmarkReference runs the reference alone.
func BenchmarkReference(b *testing.B) {
	for _, size := range bodySizes {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			f := reference(b, size)
			b.ReportAllocs()
			for b.Loop() {
				f()
			}
		})
	}
}

// BenchmarkReplayInTurns runs bare handler, replay and reference in turns: what else the
// machine does then falls on all three alike. It reports the median of each in ns, and what
// a replay costs over the bare handler as a share of the reference, which is to be below 1. On 2 cores of an AMD EPYC without much load it is 0.84 to 0.89
// at 64 bytes, 0.93 to 0.96 at 1 KiB, and 1.00 to 1.02 at 16 KiB: there 95 % of it is the
// SHA-256 that both have, and what is over is that the body, which the reference only
// reads, has to be kept, which takes the rest of the core's first cache.
func BenchmarkReplayInTurns(b *testing.B) {
	for _, size := range bodySizes {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			h := idemhttp.New(memoryStore(b, idem.Options{SweepInterval: -1}), idemhttp.GlobalScope, idemhttp.Options{})(payment)
			bare, replay := newTrip(size, uuid), newTrip(size, uuid)
			replay.serve(h)
			contenders := []func(){
				func() { bare.serve(payment) },
				func() { replay.serve(h) },
				reference(b, size),
			}
			times := make([][]float64, len(contenders))
			for b.Loop() {
				for i, f := range contenders {
					const turn = 100
					start := time.Now()
					for range turn {
						f()
					}
					times[i] = append(times[i], float64(time.Since(start).Nanoseconds())/turn)
				}
			}
			for i := range times {
				slices.Sort(times[i])
			}
			median := func(i int) float64 { return times[i][len(times[i])/2] }
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(median(0), "bare-ns")
			b.ReportMetric(median(1), "replay-ns")
			b.ReportMetric(median(2), "reference-ns")
			b.ReportMetric((median(1)-median(0))/median(2), "share")
		})
	}
}

// BenchmarkFirst is the first request with a key, run and recorded.
func BenchmarkFirst(b *testing.B) {
	for _, size := range bodySizes {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) {
			h := idemhttp.New(memoryStore(b, idem.Options{SweepInterval: -1, Retention: 1}), idemhttp.GlobalScope, idemhttp.Options{})(payment)
			t := newTrip(size, uuid) // expires at once: each request is a first one
			b.ReportAllocs()
			for b.Loop() {
				t.serve(h)
			}
			require.Equal(b, len(receipt), t.w.bytes)
			require.Empty(b, t.w.header["Idempotent-Replayed"])
		})
	}
}

// A replay may allocate ten times more often than the handler alone. It takes three
// times in all, and now and then a buffer: the race detector has pools forget. A
// request that passes through allocates nothing. A first one, with its heartbeat and two
// commits, takes 32 times more than the handler, and a few more where pools forget. It is
// not parallel, because allocations are counted for the whole process.
func TestAllocs(t *testing.T) {
	wrap := func(o idemhttp.Options) http.Handler {
		return idemhttp.New(memoryStore(t, idem.Options{SweepInterval: -1}), idemhttp.GlobalScope, o)(payment)
	}
	measure := func(tr *trip, h http.Handler) float64 {
		tr.serve(h) // runs it, and fills pools
		return testing.AllocsPerRun(200, func() { tr.serve(h) })
	}
	bare := measure(newTrip(1000, uuid), payment)

	for name, key := range map[string]string{"bare": uuid, "quoted": `"` + uuid + `"`} {
		tr := newTrip(1000, key)
		got := measure(tr, wrap(idemhttp.Options{}))
		require.Equal(t, []string{"true"}, tr.w.header["Idempotent-Replayed"])
		require.Equal(t, len(receipt), tr.w.bytes)
		require.LessOrEqual(t, got, bare+3, name)
	}

	expired := idemhttp.New(memoryStore(t, idem.Options{SweepInterval: -1, Retention: 1}), idemhttp.GlobalScope, idemhttp.Options{})(payment)
	first := newTrip(1000, uuid)
	require.LessOrEqual(t, measure(first, expired), bare+40)
	require.Empty(t, first.w.header["Idempotent-Replayed"])

	noKey := newTrip(1000, uuid)
	noKey.r.Header.Del("Idempotency-Key")
	require.Equal(t, bare, measure(noKey, wrap(idemhttp.Options{})))
	get := newTrip(1000, uuid)
	get.r.Method = http.MethodGet
	require.Equal(t, bare, measure(get, wrap(idemhttp.Options{})))
}
