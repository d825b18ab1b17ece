package idemprom_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemprom"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// toy is a memory engine that reports commits like an engine on disk, and fails, sticks
// and takes its time when told to.
type toy struct {
	*memory.Backend
	host    engine.Host
	took    atomic.Int64          // how long it says that a commit took
	failure atomic.Pointer[error] // why the next commit fails
	onScan  atomic.Pointer[func() error]
	onCheck atomic.Pointer[func()]
	scans   atomic.Int64
	damaged atomic.Bool // a record cannot be read
	unswept atomic.Bool // the index cannot be read

	readOnly bool
}

func newToy(o memory.Options) *toy { return &toy{Backend: memory.New(o)} }

func (b *toy) Bind(host engine.Host) (engine.Binding, error) {
	b.host = host
	binding, err := b.Backend.Bind(host)
	binding.Direct = false // the store keeps a cache
	binding.ReadOnly = b.readOnly
	return binding, err
}

func (b *toy) Apply(ctx context.Context, ops []engine.Op) error {
	if cause := b.failure.Load(); cause != nil {
		err := fmt.Errorf("%w: %w", engine.ErrBroken, *cause)
		b.host.Broken(err)
		return err
	}
	if err := b.Backend.Apply(ctx, ops); err != nil {
		return err
	}
	b.host.Group(len(ops), time.Duration(b.took.Load()))
	return nil
}

func (b *toy) Scan(ctx context.Context, prefix, cursor string) ([]engine.Scanned, string, error) {
	b.scans.Add(1)
	if f := b.onScan.Load(); f != nil {
		if err := (*f)(); err != nil {
			return nil, "", err
		}
	}
	page, next, err := b.Backend.Scan(ctx, prefix, cursor)
	if b.damaged.Load() && cursor == "" {
		page = append(page, engine.Scanned{Key: "damaged", Err: engine.ErrCorrupt})
	}
	return page, next, err
}

func (b *toy) Expiring(ctx context.Context, from engine.Due, until engine.Instant, limit int) ([]engine.Due, error) {
	if b.unswept.Load() {
		return nil, fmt.Errorf("%w: the index", engine.ErrCorrupt)
	}
	return b.Backend.Expiring(ctx, from, until, limit)
}

func (b *toy) Check(ctx context.Context) error {
	if f := b.onCheck.Load(); f != nil {
		(*f)()
	}
	return b.Backend.Check(ctx)
}

// plain is an engine without any of the optional methods.
type plain struct{ engine.Backend }

// newMetrics is idemprom.New for scrapes that wait for the store however busy the
// machine is.
func newMetrics(o idemprom.Options) *idemprom.Metrics {
	o.ScrapeWait = time.Hour
	return idemprom.New(o)
}

// newClock returns a clock that reads the beginning of Unix time, where promtool's
// begins.
func newClock() *idemtest.Clock { return idemtest.NewClock(time.Unix(0, 0)) }

// open returns a store on b that m observes and watches.
func open(t testing.TB, b engine.Backend, m *idemprom.Metrics, o idem.Options) *idem.Store {
	t.Helper()
	o.Observer = m.Observe
	if o.Clock == nil {
		o.Clock = newClock()
	}
	s, err := idem.New(b, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	m.Watch(s)
	return s
}

func claim(t testing.TB, s *idem.Store, r idem.Request) idem.Token {
	t.Helper()
	c, err := s.Claim(context.Background(), r)
	require.NoError(t, err)
	return c.Token
}

// scraper serves the metrics of collectors over HTTP.
func scraper(t testing.TB, collectors ...prometheus.Collector) *httptest.Server {
	t.Helper()
	registry := prometheus.NewPedanticRegistry()
	for _, c := range collectors {
		require.NoError(t, registry.Register(c))
	}
	server := httptest.NewServer(promhttp.HandlerFor(registry, promhttp.HandlerOpts{EnableOpenMetrics: true, ErrorHandling: promhttp.HTTPErrorOnError}))
	t.Cleanup(server.Close)
	return server
}

// scrape gets the metrics as text, by series.
func scrape(t testing.TB, server *httptest.Server) map[string]string {
	t.Helper()
	series := map[string]string{}
	for line := range strings.Lines(scrapeText(t, server, "text/plain")) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			i := strings.LastIndexByte(line, ' ')
			require.NotContains(t, series, line[:i], "twice")
			series[line[:i]] = line[i+1:]
		}
	}
	return series
}

func scrapeText(t testing.TB, server *httptest.Server, accept string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(context.Background(), http.MethodGet, server.URL, nil)
	require.NoError(t, err)
	request.Header.Set("Accept", accept)
	answer, err := server.Client().Do(request)
	require.NoError(t, err)
	defer answer.Body.Close()
	require.Equal(t, http.StatusOK, answer.StatusCode)
	text, err := io.ReadAll(answer.Body)
	require.NoError(t, err)
	return string(text)
}
