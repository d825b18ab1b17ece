package idemprom_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemprom"
	"github.com/idemkv/idem/memory"
)

const dashboardFile = "../ops/grafana/idem.json"

// dashboard is the part of Grafana's JSON that says what is asked of Prometheus.
type dashboard struct {
	Title      string `json:"title"`
	UID        string `json:"uid"`
	Templating struct {
		List []struct {
			Name  string `json:"name"`
			Type  string `json:"type"`
			Query any    `json:"query"`
		} `json:"list"`
	} `json:"templating"`
	Annotations struct {
		List []struct {
			Expr  string `json:"expr"`
			Title string `json:"titleFormat"`
			Text  string `json:"textFormat"`
		} `json:"list"`
	} `json:"annotations"`
	Panels []panel `json:"panels"`
}

type panel struct {
	ID          int         `json:"id"`
	Type        string      `json:"type"`
	Title       string      `json:"title"`
	Description string      `json:"description"`
	Datasource  *datasource `json:"datasource"`
	GridPos     struct{ X, Y, W, H int }
	Targets     []struct {
		Expr       string      `json:"expr"`
		Legend     string      `json:"legendFormat"`
		RefID      string      `json:"refId"`
		Datasource *datasource `json:"datasource"`
	} `json:"targets"`
}

type datasource struct {
	Type string `json:"type"`
	UID  string `json:"uid"`
}

func readDashboard(t *testing.T) (d dashboard) {
	t.Helper()
	text, err := os.ReadFile(dashboardFile)
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(text, &d))
	return d
}

// The dashboard can be imported anywhere: it names no datasource but its own variable,
// and its panels neither overlap nor share an id.
func TestDashboardImports(t *testing.T) {
	t.Parallel()
	d := readDashboard(t)
	assert.NotEmpty(t, d.Title)
	assert.NotEmpty(t, d.UID)
	require.Equal(t, "datasource", d.Templating.List[0].Name)
	require.Equal(t, "datasource", d.Templating.List[0].Type)
	require.Equal(t, "prometheus", d.Templating.List[0].Query)
	variable := &datasource{"prometheus", "${datasource}"}
	ids, taken := map[int]bool{}, map[[2]int]string{}
	for _, p := range d.Panels {
		assert.False(t, ids[p.ID], "id %d twice", p.ID)
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				assert.Less(t, x, 24, p.Title)
				assert.Empty(t, taken[[2]int{x, y}], "%s overlaps", p.Title)
				taken[[2]int{x, y}] = p.Title
			}
		}
		if p.Type == "row" {
			continue
		}
		assert.NotEmpty(t, p.Description, p.Title)
		assert.Equal(t, variable, p.Datasource, p.Title)
		require.NotEmpty(t, p.Targets, p.Title)
		refs := map[string]bool{}
		for _, target := range p.Targets {
			assert.Equal(t, variable, target.Datasource, p.Title)
			assert.False(t, refs[target.RefID], p.Title)
			refs[target.RefID] = true
		}
	}
}

// busyWorld is a store of which every metric has something to tell.
func busyWorld(t *testing.T) *world {
	w := newWorld(t, memory.Options{}, idem.Options{}, idemprom.Options{})
	w.run(work)
	return w
}

var metricName = regexp.MustCompile(`\b(?:idem_\w+|duplicate_request_count|idempotency_cache_hits)\b`)

// What the rules, the dashboard and the pages about them name is there in a scrape, and
// the dashboard shows all there is.
func TestOpsNamesMetricsThatExist(t *testing.T) {
	t.Parallel()
	names := map[string]bool{}
	for series := range busyWorld(t).series {
		name, _, _ := strings.Cut(series, "{")
		names[name] = true
		for _, part := range []string{"_bucket", "_count", "_sum"} {
			if histogram, ok := strings.CutSuffix(name, part); ok && strings.HasPrefix(name, "idem_") {
				names[histogram] = true
			}
		}
	}
	shown := map[string]bool{}
	for _, file := range []string{rulesFile, "../ops/prometheus/idem.test.yml", dashboardFile, "../ops/ALERTS.md", "../ops/README.md", "metrics.go", "../docs/OPERATIONS.md"} {
		text, err := os.ReadFile(file)
		if os.IsNotExist(err) { // the alerts are in one of the two pages
			continue
		}
		require.NoError(t, err)
		for _, name := range metricName.FindAllString(string(text), -1) {
			assert.True(t, names[name], "%s names %s, which is not in a scrape", file, name)
			if file == dashboardFile {
				shown[name] = true
			}
		}
	}
	for name := range names {
		base := regexp.MustCompile(`_(bucket|count|sum)$`).ReplaceAllString(name, "")
		assert.True(t, shown[name] || shown[base] || shown[base+"_bucket"] || shown[base+"_count"], "the dashboard does not show %s", name)
	}
}

var (
	selector = regexp.MustCompile(`(\w+)\{([^}]*)\}`)
	matcher  = regexp.MustCompile(`(\w+)(?:=~?|!=|!~)"([^"]*)"`)
	grouping = regexp.MustCompile(`\b(?:by|without|on|ignoring|group_left|group_right) ?\(([^)]*)\)`)
	inText   = regexp.MustCompile(`\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}`)
)

// What the queries select, group by and print are labels of the metrics they name, and the
// values that they select exist: a misspelt one would select nothing, for good.
func TestOpsNamesLabelsThatExist(t *testing.T) {
	t.Parallel()
	labels := map[string]map[string]map[string]bool{} // metric, label, value
	all := map[string]bool{"le": true, "alertname": true}
	for series := range busyWorld(t).series {
		name, list, _ := strings.Cut(strings.TrimSuffix(series, "}"), "{")
		if labels[name] == nil {
			labels[name] = map[string]map[string]bool{}
		}
		for _, m := range matcher.FindAllStringSubmatch(list, -1) {
			all[m[1]] = true
			if labels[name][m[1]] == nil {
				labels[name][m[1]] = map[string]bool{}
			}
			labels[name][m[1]][m[2]] = true
		}
	}
	check := func(where, expr string, texts ...string) {
		for _, s := range selector.FindAllStringSubmatch(expr, -1) {
			has := labels[s[1]]
			if s[1] == "ALERTS" {
				continue
			}
			assert.NotEmpty(t, has, "%s: %s", where, s[1])
			for _, m := range matcher.FindAllStringSubmatch(s[2], -1) {
				if !assert.NotEmpty(t, has[m[1]], "%s: %s has no label %s", where, s[1], m[1]) || strings.HasPrefix(m[2], "$") {
					continue
				}
				for value := range strings.SplitSeq(m[2], "|") {
					assert.True(t, has[m[1]][value], "%s: %s is never %q", where, m[1], value)
				}
			}
		}
		for _, g := range grouping.FindAllStringSubmatch(expr, -1) {
			for label := range strings.SplitSeq(g[1], ",") {
				assert.True(t, all[strings.TrimSpace(label)], "%s groups by %q", where, label)
			}
		}
		for _, text := range texts {
			for _, label := range inText.FindAllStringSubmatch(text, -1) {
				assert.True(t, all[label[1]], "%s prints %q", where, label[1])
			}
		}
	}
	d := readDashboard(t)
	queries := 0
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			check(p.Title, target.Expr, target.Legend)
			queries++
		}
	}
	require.Greater(t, queries, 20)
	for _, a := range d.Annotations.List {
		check("annotation", a.Expr, a.Title, a.Text)
	}
	for _, r := range alertRules(t) {
		check(r.Alert, r.Expr, r.Annotations["summary"], r.Annotations["description"])
	}
}

// A panel with one number has one for a store that nobody uses, too, and not NaN.
func TestNumbersOfAnIdleStore(t *testing.T) {
	t.Parallel()
	needPromtool(t)
	idle := newWorld(t, memory.Options{}, idem.Options{}, idemprom.Options{})
	idle.run(func(*world, int) {})
	var exprs []exprTest
	for _, p := range readDashboard(t).Panels {
		if p.Type != "stat" {
			continue
		}
		for _, target := range p.Targets {
			expr := filled(target.Expr)
			exprs = append(exprs,
				exprTest{fmt.Sprintf("count(%s)", expr), "99m", []testSample{{"{}", 1}}},
				exprTest{fmt.Sprintf("count((%s) != (%s))", expr, expr), "99m", nil}) // NaN alone differs from itself
		}
	}
	require.Greater(t, len(exprs), 10)
	idle.evaluate(exprs)
}

// filled returns expr with the dashboard's variables chosen.
func filled(expr string) string {
	return strings.NewReplacer("$__rate_interval", "5m", "$job", ".*", "$instance", ".*", "$store", ".*").Replace(expr)
}

// Each query of the dashboard finds series in what a store has shown.
func TestDashboardQueriesFindSeries(t *testing.T) {
	t.Parallel()
	needPromtool(t)
	d := readDashboard(t)
	w := busyWorld(t)
	var exprs []exprTest
	add := func(expr string, want float64) {
		expr = filled(expr)
		require.NotContains(t, expr, "$")
		exprs = append(exprs, exprTest{fmt.Sprintf("count(%s) > bool 0", expr), "99m", []testSample{{"{}", want}}})
	}
	for _, p := range d.Panels {
		for _, target := range p.Targets {
			add(target.Expr, 1)
		}
	}
	for _, variable := range d.Templating.List {
		if query, ok := variable.Query.(map[string]any); ok {
			values := regexp.MustCompile(`^label_values\((.*), (\w+)\)$`).FindStringSubmatch(query["query"].(string))
			require.Len(t, values, 3, variable.Name)
			require.Equal(t, variable.Name, values[2])
			add(fmt.Sprintf(`group by (%s) (%s)`, values[2], values[1]), 1)
		}
	}
	w.evaluate(exprs)

	// The annotation shows alerts, and there are some only when something is wrong.
	broken := newWorld(t, memory.Options{}, idem.Options{}, idemprom.Options{})
	broken.run(func(w *world, minute int) {
		if minute == 10 {
			require.NoError(t, w.store.Hold(context.Background(), claim(t, w.store, idem.Request{Key: "k"}), nil))
		}
	})
	exprs = nil
	for _, annotation := range d.Annotations.List {
		if annotation.Expr != "" {
			add(annotation.Expr, 1)
		}
	}
	require.Len(t, exprs, 1)
	broken.evaluate(exprs)
}
