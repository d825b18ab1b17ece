package bench

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

// WriteTable writes the table as text.
func WriteTable(w io.Writer, r *Results) error {
	rows := [][]string{{"what", "figure", "min to max", "target", "reached", "of"}}
	for _, l := range Table(r) {
		rows = append(rows, []string{l.What, l.Figure, l.Spread, l.Target, l.Reached, l.Detail})
	}
	widths := make([]int, len(rows[0]))
	for _, row := range rows {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	var b strings.Builder
	for _, p := range []string{"cpu", "cores", "filesystem", "disk-sync", "go", "commit", "plan", "command", "started", "took"} {
		if v := r.Fact(p); v != "" {
			fmt.Fprintf(&b, "%s: %s\n", p, v)
		}
	}
	b.WriteString("Figures are medians over the rounds; a ratio is taken in each round.\n\n")
	for i, row := range rows {
		for n, cell := range row {
			if n == len(row)-1 {
				b.WriteString(cell)
			} else {
				b.WriteString(cell + strings.Repeat(" ", widths[n]-utf8.RuneCountInString(cell)+2))
			}
		}
		text := strings.TrimRight(b.String(), " ")
		b.Reset()
		b.WriteString(text + "\n")
		if i == 0 {
			for _, n := range widths {
				b.WriteString(strings.Repeat("-", n) + "  ")
			}
			text := strings.TrimRight(b.String(), " ")
			b.Reset()
			b.WriteString(text + "\n")
		}
	}
	for _, n := range r.Notes {
		if n.Kind == "absent" || n.Kind == "failed" {
			fmt.Fprintf(&b, "\n%s: %s: %s", n.Kind, n.Subject, n.Text)
		}
	}
	_, err := io.WriteString(w, strings.TrimRight(b.String(), "\n")+"\n")
	return err
}
