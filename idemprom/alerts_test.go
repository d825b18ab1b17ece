package idemprom_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.yaml.in/yaml/v3"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemprom"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

const rulesFile = "../ops/prometheus/idem.rules.yml"

// needPromtool skips the test where there is no promtool.
func needPromtool(t *testing.T) (path string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("alert rules and queries are evaluated by promtool, which is not installed here (Debian: apt-get install prometheus)")
	}
	return path
}

// promtool runs promtool, which comes with Prometheus.
func promtool(t *testing.T, args ...string) {
	t.Helper()
	path := needPromtool(t)
	out, err := exec.CommandContext(t.Context(), path, args...).CombinedOutput()
	require.NoError(t, err, "promtool %v: %s", args, out)
}

func TestAlertRulesAreValid(t *testing.T) {
	t.Parallel()
	promtool(t, "check", "rules", rulesFile)
	promtool(t, "test", "rules", "../ops/prometheus/idem.test.yml")
}

// minutes is how long each state of a store lasts.
const minutes = 100

// world is a store that is scraped once a minute of its clock.
type world struct {
	t      *testing.T
	clock  *idemtest.Clock
	engine *toy
	store  *idem.Store
	server *httptest.Server
	series map[string][]string // the value at each minute
}

func newWorld(t *testing.T, mo memory.Options, so idem.Options, po idemprom.Options) *world {
	w := &world{t: t, clock: newClock(), engine: newToy(mo), series: map[string][]string{}}
	so.Clock, so.SweepInterval, so.Lease = w.clock, -1, time.Minute
	if po.ScrapeWait == 0 {
		po.ScrapeWait = time.Hour
	}
	m := idemprom.New(po)
	w.store = open(t, w.engine, m, so)
	w.server = scraper(t, m)
	return w
}

// run scrapes the store every minute, after each.
func (w *world) run(each func(w *world, minute int)) {
	for minute := range minutes {
		each(w, minute)
		for name, value := range scrape(w.t, w.server) {
			name = strings.Replace(name, "{", `{job="api",instance="localhost:8080",`, 1)
			values := w.series[name]
			for len(values) < minute {
				values = append(values, "_")
			}
			w.series[name] = append(values, value)
		}
		w.clock.Advance(time.Minute)
	}
}

// The input of promtool test rules.
type (
	ruleTests struct {
		RuleFiles []string   `yaml:"rule_files"`
		Interval  string     `yaml:"evaluation_interval"`
		Tests     []ruleTest `yaml:"tests"`
	}
	ruleTest struct {
		Interval string       `yaml:"interval"`
		Series   []testSeries `yaml:"input_series"`
		Exprs    []exprTest   `yaml:"promql_expr_test"`
	}
	testSeries struct {
		Series string `yaml:"series"`
		Values string `yaml:"values"`
	}
	exprTest struct {
		Expr    string       `yaml:"expr"`
		At      string       `yaml:"eval_time"`
		Samples []testSample `yaml:"exp_samples"`
	}
	testSample struct {
		Labels string  `yaml:"labels"`
		Value  float64 `yaml:"value"`
	}
)

// evaluate has promtool evaluate exprs, and the alert rules, on what was scraped.
func (w *world) evaluate(exprs []exprTest) {
	w.t.Helper()
	test := ruleTest{Interval: "1m", Exprs: exprs}
	for _, series := range slices.Sorted(maps.Keys(w.series)) {
		test.Series = append(test.Series, testSeries{series, strings.Join(w.series[series], " ")})
	}
	rules, err := filepath.Abs(rulesFile)
	require.NoError(w.t, err)
	text, err := yaml.Marshal(ruleTests{[]string{rules}, "1m", []ruleTest{test}})
	require.NoError(w.t, err)
	file := filepath.Join(w.t.TempDir(), "test.yml")
	require.NoError(w.t, os.WriteFile(file, text, 0o600))
	promtool(w.t, "test", "rules", file)
}

// work is a minute of a service where all is well: new operations, a retry, a look-up.
func work(w *world, minute int) {
	ctx := context.Background()
	for i := range 5 {
		key := fmt.Sprintf("order-%d-%d", minute, i)
		token := claim(w.t, w.store, idem.Request{Key: key, Retention: 10 * time.Minute})
		require.NoError(w.t, w.store.Complete(ctx, token, []byte("paid")))
		_, err := w.store.Claim(ctx, idem.Request{Key: key})
		require.Equal(w.t, idem.ErrCompleted, err)
	}
	_, err := w.store.Sweep(ctx, 100)
	require.NoError(w.t, err)
}

// storeState is a state that a store is driven into.
type storeState struct {
	memory  memory.Options
	store   idem.Options
	metrics idemprom.Options
	each    func(w *world, minute int)
	firing  map[int]string // the alerts that fire at a minute
}

// From minute 10 on something is wrong. At the last one these alerts fire and no others.
var storeStates = map[string]storeState{
	"well": {each: work},
	"broken": {each: func(w *world, minute int) {
		if minute < 10 {
			work(w, minute)
			return
		}
		cause := errors.New("input/output error")
		w.engine.failure.Store(&cause)
		_, err := w.store.Claim(context.Background(), idem.Request{Key: "k"})
		require.ErrorIs(w.t, err, idem.ErrBroken)
	}, firing: map[int]string{9: "", 10: "IdemStoreBroken", 99: "IdemStoreBroken IdemStatsStale"}},
	"silent": {
		metrics: idemprom.Options{ScrapeWait: time.Millisecond, StatsInterval: -1},
		each: func(w *world, minute int) {
			if minute == 10 {
				stuck := make(chan struct{})
				w.t.Cleanup(func() { close(stuck) })
				hang := func() { <-stuck }
				w.engine.onCheck.Store(&hang)
			}
		},
		firing: map[int]string{99: "IdemStoreSilent"},
	},
	"full": {
		memory: memory.Options{MaxRecords: 100},
		each: func(w *world, minute int) {
			if minute < 10 {
				work(w, minute)
				return
			}
			for i := range 100 {
				if c, err := w.store.Claim(context.Background(), idem.Request{Key: fmt.Sprint("k", i), Retention: idem.Forever}); err == nil {
					require.NoError(w.t, w.store.Complete(context.Background(), c.Token, nil))
				}
			}
		},
		firing: map[int]string{9: "", 11: "IdemStoreFull", 99: "IdemStoreFull"},
	},
	"damaged": {each: func(w *world, minute int) {
		w.engine.damaged.Store(minute >= 10)
	}, firing: map[int]string{9: "", 10: "IdemCorruptRecords", 99: "IdemCorruptRecords"}},
	"held, and settled": {each: func(w *world, minute int) {
		work(w, minute)
		switch minute {
		case 10:
			require.NoError(w.t, w.store.Hold(context.Background(), claim(w.t, w.store, idem.Request{Key: "k"}), nil))
		case 60:
			record, err := w.store.Get(context.Background(), "k")
			require.NoError(w.t, err)
			require.NoError(w.t, w.store.Complete(context.Background(), record.Token(), nil))
		}
	}, firing: map[int]string{39: "", 40: "IdemUnsettled", 99: ""}},
	"held by many that died": {each: func(w *world, minute int) {
		if minute == 10 {
			for i := range 21 {
				claim(w.t, w.store, idem.Request{Key: fmt.Sprint("k", i), HoldUnknown: true})
			}
		}
	}, firing: map[int]string{10: "", 16: "IdemUnsettledPileUp", 99: "IdemUnsettled IdemUnsettledPileUp"}},
	"stuck in flight": {each: func(w *world, minute int) {
		if minute == 10 {
			claim(w.t, w.store, idem.Request{Key: "k"})
			claim(w.t, w.store, idem.Request{Key: "works", Lease: time.Hour * 24})
		}
	}, firing: map[int]string{70: "", 99: "IdemStuckInFlight"}},
	"attempts used up": {each: func(w *world, minute int) {
		if minute >= 10 {
			c, err := w.store.Claim(context.Background(), idem.Request{Key: "k", MaxAttempts: 1})
			if err == nil {
				err = w.store.Release(context.Background(), c.Token, nil)
			}
			require.Contains(w.t, []error{nil, idem.ErrExhausted}, err)
		}
	}, firing: map[int]string{10: "", 99: "IdemAttemptsExhausted"}},
	"claims lost": {each: func(w *world, minute int) {
		if minute >= 10 {
			require.Equal(w.t, idem.ErrFenced, w.store.Complete(context.Background(), idem.Token{Key: "k", Fence: 1}, nil))
		}
	}, firing: map[int]string{15: "", 99: "IdemStaleTokens"}},
	"slow disk": {each: func(w *world, minute int) {
		if minute >= 10 {
			w.engine.took.Store(int64(time.Second))
		}
		work(w, minute)
	}, firing: map[int]string{19: "", 99: "IdemCommitSlow"}},
	"sweep behind": {each: func(w *world, minute int) {
		token := claim(w.t, w.store, idem.Request{Key: fmt.Sprint("k", minute), Retention: time.Second})
		require.NoError(w.t, w.store.Complete(context.Background(), token, nil))
		if minute%14 == 13 {
			_, err := w.store.Sweep(context.Background(), 100)
			require.NoError(w.t, err)
		}
	}, firing: map[int]string{40: "", 99: "IdemSweepLag"}},
	"sweep fails": {each: func(w *world, minute int) {
		w.engine.unswept.Store(minute >= 10)
		_, _ = w.store.Sweep(context.Background(), 100)
	}, firing: map[int]string{24: "", 99: "IdemSweepFailing"}},
	"not counted": {each: func(w *world, minute int) {
		if minute == 10 {
			fail := func() error { return errors.New("no") }
			w.engine.onScan.Store(&fail)
		}
	}, firing: map[int]string{79: "", 99: "IdemStatsStale"}},
	"never counted": {each: func(w *world, minute int) {
		if minute == 0 {
			fail := func() error { return errors.New("no") }
			w.engine.onScan.Store(&fail)
		}
	}, firing: map[int]string{69: "", 99: "IdemStatsStale"}},
	"import cut short": {each: func(w *world, minute int) {
		if minute == 10 {
			export := exportOf(w.t, 3000) // the first commit of an import has 1,000
			_, err := w.store.Import(context.Background(), io.LimitReader(bytes.NewReader(export), int64(len(export)/2)))
			require.ErrorIs(w.t, err, idem.ErrCorrupt)
		}
	}, firing: map[int]string{9: "", 19: "", 20: "IdemStoreReadOnly", 99: "IdemStoreReadOnly"}},
	"replays past the cache": {store: idem.Options{CacheBytes: 1}, each: func(w *world, minute int) {
		work(w, minute)
		for range 900 {
			_, err := w.store.Claim(context.Background(), idem.Request{Key: fmt.Sprintf("order-%d-0", minute)})
			require.Equal(w.t, idem.ErrCompleted, err)
		}
	}, firing: map[int]string{29: "", 99: "IdemCacheCold"}},
}

// exportOf returns the export of a store of n completed operations.
func exportOf(t *testing.T, n int) []byte {
	s, err := idem.New(memory.New(memory.Options{}), idem.Options{Clock: newClock()})
	require.NoError(t, err)
	defer s.Close()
	for i := range n {
		require.NoError(t, s.Complete(context.Background(), claim(t, s, idem.Request{Key: fmt.Sprint("k", i)}), nil))
	}
	var export bytes.Buffer
	require.NoError(t, s.Export(context.Background(), &export))
	return export.Bytes()
}

// Stores are driven into what the alerts are about, and scraped. promtool then says
// which alerts the rules raise on these scrapes, and when.
func TestAlertsFireOnScrapesOfRealStores(t *testing.T) {
	t.Parallel()
	needPromtool(t)
	for name, c := range storeStates {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, c.memory, c.store, c.metrics)
			w.run(c.each)
			if c.firing == nil {
				c.firing = map[int]string{minutes - 1: ""}
			}
			var exprs []exprTest
			for minute, alerts := range c.firing {
				e := exprTest{Expr: `group by (alertname, store, job, instance) (ALERTS{alertstate="firing"})`, At: fmt.Sprintf("%dm", minute)}
				for _, alert := range strings.Fields(alerts) {
					e.Samples = append(e.Samples, testSample{fmt.Sprintf(`{alertname=%q,store="default",job="api",instance="localhost:8080"}`, alert), 1})
				}
				exprs = append(exprs, e)
			}
			w.evaluate(exprs)
		})
	}
}

// rule is an alert of the file of rules.
type rule struct {
	Alert       string            `yaml:"alert"`
	Expr        string            `yaml:"expr"`
	For         string            `yaml:"for"`
	Labels      map[string]string `yaml:"labels"`
	Annotations map[string]string `yaml:"annotations"`
}

func alertRules(t *testing.T) []rule {
	t.Helper()
	text, err := os.ReadFile(rulesFile)
	require.NoError(t, err)
	var file struct {
		Groups []struct {
			Name  string `yaml:"name"`
			Rules []rule `yaml:"rules"`
		} `yaml:"groups"`
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	require.NoError(t, decoder.Decode(&file))
	require.Len(t, file.Groups, 1)
	require.NotEmpty(t, file.Groups[0].Rules)
	return file.Groups[0].Rules
}

// Each alert says what it is about and where to read on, and a store above raises it.
func TestEveryAlertIsExplainedAndRaised(t *testing.T) {
	t.Parallel()
	raised := map[string]bool{}
	for _, c := range storeStates {
		for _, alerts := range c.firing {
			for _, alert := range strings.Fields(alerts) {
				raised[alert] = true
			}
		}
	}
	var pages []byte
	for _, page := range []string{"../docs/OPERATIONS.md", "../ops/ALERTS.md"} { // wherever the section is
		if text, err := os.ReadFile(page); err == nil {
			pages = append(pages, text...)
		}
	}
	for _, r := range alertRules(t) {
		assert.True(t, raised[r.Alert], "no store raises %s", r.Alert)
		assert.Contains(t, []string{"critical", "warning", "info"}, r.Labels["severity"], r.Alert)
		assert.Contains(t, r.Annotations["summary"], "{{ $labels.store }}", r.Alert)
		assert.NotEmpty(t, r.Annotations["description"], r.Alert)
		assert.Equal(t, "https://github.com/idemkv/idem/blob/main/docs/OPERATIONS.md#"+strings.ToLower(r.Alert), r.Annotations["runbook_url"])
		assert.Regexp(t, `(?m)^#+ `+r.Alert+`$`, string(pages), "the anchor of the runbook")
	}
}
