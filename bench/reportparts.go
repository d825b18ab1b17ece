package bench

import (
	"html/template"
	"slices"
	"strings"
)

func scaleSection(r *Results, c colours) section {
	s := section{
		ID: "scale", Title: "Growth",
		About: "Stores of all sizes are open at once and take turns. Results are 64 bytes, idem's own cache is off, Pebble's block cache is 64 MB, " +
			"one caller. bolt is filled in the order of its keys, which leaves its pages half full.",
	}
	for _, of := range []struct{ group, title string }{{ScaleHit, "Get of a stored key"}, {ScaleMiss, "Get of a key that is not there"}} {
		l := lineChart{
			title: of.title + ", by records stored", xTitle: "records", yTitle: "median and, dashed, p99",
			width: chartWidth, showX: func(f float64) string { return keyCount(int(f)) }, showY: humanNs,
		}
		for _, name := range r.Distinct(where(of.group), "backend") {
			for _, q := range []float64{50, 99} {
				one := curve{label: name + " p" + strings.TrimPrefix(strings.TrimSuffix(percentileUnit(q), "-ns"), "p"), class: c[name], strong: q == 50}
				if q != 50 {
					one.class += " dashed"
				}
				for _, n := range r.numbers(where(of.group, "backend", name), "keys") {
					if v, ok := r.Median(where(of.group, "backend", name, "keys", n), percentileUnit(q)); ok {
						one.points = append(one.points, point{float64(parseKeyCount(n)), v})
					}
				}
				if len(one.points) > 0 {
					l.curves = append(l.curves, one)
				}
			}
		}
		if len(l.curves) > 0 {
			l.height = 360
			s.Charts = append(s.Charts, chart{Title: l.title, SVG: template.HTML(l.String())})
		}
	}
	s.Tables = append(sizeTable(r), gcTable(r)...)
	return s
}

func sizeTable(r *Results) []table {
	t := table{
		Title: "Size and reopening", Left: 1,
		Head: []string{"engine", "records", "disk, each", "raw bytes, each", "Go heap, each", "stored in, each", "reopened in"},
	}
	for _, name := range r.Distinct(where(ScaleSize), "backend") {
		for _, n := range r.numbers(where(ScaleSize, "backend", name), "keys") {
			m := where(ScaleSize, "backend", name, "keys", n)
			t.Rows = append(t.Rows, []string{
				name, n, r.show(m, "disk-B/record", humanBytes), r.show(m, "raw-B/record", humanBytes), r.show(m, "heap-B/record", humanBytes),
				r.show(m, "fill-ns/record", humanNs), r.show(where(ScaleReopen, "backend", name, "keys", n), nsOp, humanNs),
			})
		}
	}
	return unlessEmpty(t)
}

func gcTable(r *Results) []table {
	t := table{
		Title: "The memory engine and the garbage collector", Left: 1,
		Head: []string{"engine", "records", "callers", "a cycle takes", "its pauses", "longest pause", "p99 inside", "p99 outside", "p99.9 inside", "p99.9 outside"},
	}
	for _, name := range r.Distinct(where(ScaleGC), "backend") {
		for _, n := range r.numbers(where(ScaleGC, "backend", name), "keys") {
			for _, callers := range r.numbers(where(ScaleGC, "backend", name, "keys", n), "callers") {
				m := where(ScaleGC, "backend", name, "keys", n, "callers", callers)
				row := []string{name, n, callers}
				for _, unit := range []string{"gc-ns", "gc-pause-ns", "gc-pause-max-ns", "in-gc-p99-ns", "no-gc-p99-ns", "in-gc-p99.9-ns", "no-gc-p99.9-ns"} {
					row = append(row, r.show(m, unit, humanNs))
				}
				t.Rows = append(t.Rows, row)
			}
		}
	}
	return unlessEmpty(t)
}

func unlessEmpty(t table) []table {
	if len(t.Rows) == 0 {
		return nil
	}
	return []table{t}
}

func sweepSection(r *Results, c colours) section {
	s := section{
		ID: "sweep", Title: "Sweep",
		About: "Callers claim and complete new keys while nothing is expired (off), and while the store's own background sweep, with default options, " +
			"removes records that expired all at one moment (on).",
	}
	var ms []Match
	for _, name := range r.Distinct(where(SweepLoaded), "backend") {
		for _, sweep := range []string{"off", "on"} {
			ms = append(ms, where(SweepLoaded, "backend", name, "sweep", sweep))
		}
	}
	rows := r.rangesOf(c, ms, func(m Match) string {
		return nameOf(m) + map[string]string{"off": ", no sweep", "on": ", sweep"}[m.Params[1].Value]
	}, func(m Match) []string {
		return []string{
			r.show(m, "removed/s", humanCount), r.show(m, nsOp, perSecond), r.show(m, percentileUnit(50), humanNs), r.show(m, percentileUnit(99), humanNs),
		}
	})
	if len(rows) > 0 {
		title := "Latency of a cycle with and without a sweep, callers: " + strings.Join(r.Distinct(where(SweepLoaded), "callers"), ", ")
		s.Charts = append(s.Charts, chart{Title: title, SVG: template.HTML(ranges(title, []string{"removed/s", "cycles/s", "median", "p99"}, rows))})
	}
	t := table{Title: "Unloaded: batches of expired records removed", Left: 1, Head: []string{"", "time for a batch", "p99", "records in all"}}
	for _, m := range r.backends(where(SweepUnloaded)) {
		t.Rows = append(t.Rows, []string{
			nameOf(m), r.show(m, nsOp, humanNs), r.show(m, percentileUnit(99), humanNs), strings.Join(r.Distinct(m, "keys"), ", "),
		})
	}
	s.Tables = unlessEmpty(t)
	return s
}

func syncsTable(r *Results) []table {
	callers := r.numbers(where(Syncs), "callers")
	t := table{Title: "Syncs for each cycle, as strace counts them", Left: 1, Head: []string{""}}
	for _, n := range callers {
		t.Head = append(t.Head, "callers: "+n)
	}
	for _, name := range sortedBy(r.Distinct(where(Syncs), "backend"), byKind) {
		row := []string{name}
		for _, n := range callers {
			row = append(row, r.show(where(Syncs, "backend", name, "callers", n), "syncs/op", humanCount))
		}
		t.Rows = append(t.Rows, row)
	}
	return unlessEmpty(t)
}

func writtenTable(r *Results) []table {
	callers := r.numbers(where(Written), "callers")
	t := table{Title: "Bytes written for each cycle, as the kernel counts them for the process, and what the disk was sent by all processes", Left: 1, Head: []string{""}}
	for _, n := range callers {
		t.Head = append(t.Head, "callers: "+n, "disk")
	}
	for _, name := range sortedBy(r.Distinct(where(Written), "backend"), byKind) {
		row := []string{name}
		for _, n := range callers {
			m := where(Written, "backend", name, "callers", n)
			row = append(row, r.show(m, writtenOp, humanBytes), r.show(m, deviceOp, humanBytes))
		}
		t.Rows = append(t.Rows, row)
	}
	return unlessEmpty(t)
}

func restSection(r *Results) section {
	s := section{ID: "idle", Title: "Idle stores", About: "The processor time of the whole process, and its goroutines, while one used store is left alone; none: without a store."}
	t := table{Left: 1, Head: []string{"store", "CPU, each second", "goroutines", "started by idem's code"}}
	for _, name := range r.Distinct(where(Idle), "backend") {
		m := where(Idle, "backend", name)
		t.Rows = append(t.Rows, []string{name, r.show(m, "cpu-ns/s", humanNs), r.show(m, "goroutines", humanCount), r.show(m, "own-goroutines", humanCount)})
	}
	s.Tables = unlessEmpty(t)
	return s
}

// allRows is every figure, as medians over the rounds: a table for each group.
func allRows(r *Results) (tables []table) {
	var groups []string
	for _, row := range r.Rows {
		if !slices.Contains(groups, row.Group) {
			groups = append(groups, row.Group)
		}
	}
	for _, g := range groups {
		t := table{Title: g, Left: 1, Head: []string{"", "rounds"}}
		type series struct {
			name   string
			values map[string][]float64
			rounds int
		}
		var all []*series
		var units []string
		for _, row := range r.Rows {
			if row.Group != g {
				continue
			}
			name := strings.TrimPrefix(row.Name(), g+"/")
			i := slices.IndexFunc(all, func(s *series) bool { return s.name == name })
			if i < 0 {
				i = len(all)
				all = append(all, &series{name: name, values: map[string][]float64{}})
			}
			all[i].rounds++
			for _, v := range row.Values {
				all[i].values[v.Unit] = append(all[i].values[v.Unit], v.Amount)
				if !slices.Contains(units, v.Unit) {
					units = append(units, v.Unit)
				}
			}
		}
		t.Head = append(t.Head, units...)
		for _, s := range all {
			row := []string{s.name, humanCount(float64(s.rounds))}
			for _, u := range units {
				cell := "–"
				if m, ok := spreadOf(s.values[u]); ok {
					cell = humanCount(m.Median)
				}
				row = append(row, cell)
			}
			t.Rows = append(t.Rows, row)
		}
		tables = append(tables, t)
	}
	return tables
}
