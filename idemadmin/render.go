package idemadmin

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"html/template"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

//go:embed templates style.css
var files embed.FS

const stylePath = "style.css"

var (
	style, _   = files.ReadFile(stylePath)
	styleURL   = stylePath + "?v=" + styleHash()
	templates  = parseTemplates("overview", "list", "stuck", "record", "settle", "done", "problem")
	formatHelp = map[operator.Format]string{
		operator.FormatNone: "nothing", operator.FormatText: "text", operator.FormatJSON: "JSON",
		operator.FormatHex: "hexadecimal", operator.FormatHTTP: "an HTTP answer",
	}
)

func styleHash() string {
	sum := sha256.Sum256(style)
	return hex.EncodeToString(sum[:6])
}

func parseTemplates(names ...string) map[string]*template.Template {
	funcs := template.FuncMap{
		"style": func() string { return styleURL }, "link": link, "rows": rowsOf, "heading": heading,
		"ago": ago, "utc": utc, "span": span, "count": count[int], "count64": count[uint64], "size": size[int], "size64": size[int64], "share": share,
		"ratio": ratio, "seconds": func(s float64) time.Duration { return time.Duration(s * float64(time.Second)) },
		"printable": operator.Printable, "pretty": pretty, "summary": summary, "payloadName": payloadName, "words": words, "format": func(f operator.Format) string { return formatHelp[f] },
		"retention": retention, "reason": func(r operator.Reason) string { return string(r) },
	}
	all := make(map[string]*template.Template, len(names))
	for _, name := range names {
		all[name] = template.Must(template.New("layout.html").Funcs(funcs).
			ParseFS(files, "templates/layout.html", "templates/parts.html", "templates/"+name+".html"))
	}
	return all
}

// render answers with a page.
func render(r *request, status int, name string, p page) {
	var b bytes.Buffer
	if err := templates[name].Execute(&b, p); err != nil {
		status = http.StatusInternalServerError
		b.Reset()
		b.WriteString("The page cannot be shown.\n")
		r.w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	} else {
		r.w.Header().Set("Content-Type", "text/html; charset=utf-8")
	}
	r.w.Header().Set("Content-Length", strconv.Itoa(b.Len()))
	r.w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = r.w.Write(b.Bytes()) // a browser that is gone asks again
	}
}

func serveStyle(r *request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		r.w.Header().Set("Allow", "GET, HEAD")
		r.w.WriteHeader(http.StatusMethodNotAllowed)
		return
	}
	r.w.Header().Set("Content-Type", "text/css; charset=utf-8")
	r.w.Header().Set("Cache-Control", "public, max-age=86400") // its URL has its hash
	r.w.Header().Set("Content-Length", strconv.Itoa(len(style)))
	r.w.WriteHeader(http.StatusOK)
	if r.Method != http.MethodHead {
		_, _ = r.w.Write(style)
	}
}

// link returns path with a query of names and values. Empty values are left out.
func link(path string, namesAndValues ...string) string {
	q := url.Values{}
	for i := 0; i+1 < len(namesAndValues); i += 2 {
		if namesAndValues[i+1] != "" {
			q.Set(namesAndValues[i], namesAndValues[i+1])
		}
	}
	if len(q) == 0 {
		return path
	}
	return path + "?" + q.Encode()
}

// rows is what a table of records shows.
type rows struct {
	Records []operator.Record
	Now     time.Time
	Reveal  operator.Reveal
	Stuck   bool
}

func rowsOf(p page, records []operator.Record, stuck bool) rows {
	return rows{records, p.Now, p.Reveal, stuck}
}

func utc(t time.Time) string {
	if t.IsZero() {
		return "never"
	}
	return t.UTC().Format("2006-01-02 15:04:05 UTC")
}

// ago says where t lies from now.
func ago(now, t time.Time) string {
	switch d := now.Sub(t); {
	case t.IsZero():
		return "never"
	case d >= 0:
		return span(d) + " ago"
	default:
		return "in " + span(-d)
	}
}

// span is d in its largest unit, or its two largest.
func span(d time.Duration) string {
	const day = 24 * time.Hour
	switch d = d.Round(time.Second); {
	case d < time.Minute:
		return strconv.Itoa(int(d/time.Second)) + " s"
	case d < time.Hour:
		return strconv.Itoa(int(d/time.Minute)) + " min"
	case d < day:
		return fmt.Sprintf("%d h %d min", d/time.Hour, d%time.Hour/time.Minute)
	}
	return fmt.Sprintf("%d d %d h", d/day, d%day/time.Hour)
}

func retention(d time.Duration) string {
	if d == idem.Forever {
		return "forever"
	}
	return span(d)
}

// count is n with its thousands set apart.
func count[T int | uint64](n T) string {
	s := strconv.FormatUint(uint64(n), 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

func size[T int | int64](n T) string {
	units := []string{"bytes", "KiB", "MiB", "GiB", "TiB"}
	f, i := float64(n), 0
	for f >= 1024 && i < len(units)-1 {
		f, i = f/1024, i+1
	}
	if i == 0 {
		return strconv.Itoa(int(n)) + " bytes"
	}
	return strconv.FormatFloat(f, 'f', 1, 64) + " " + units[i]
}

// share is part of all in percent.
func share(part, rest uint64) string {
	if part+rest == 0 {
		return "–"
	}
	return strconv.FormatFloat(math.Floor(1000*float64(part)/float64(part+rest))/10, 'f', 1, 64) + " %"
}

func ratio(x, y uint64) string {
	if y == 0 {
		return "–"
	}
	return strconv.FormatFloat(float64(x)/float64(y), 'f', 1, 64)
}

func words(s string) string { return strings.ReplaceAll(s, "_", " ") }

// payloadName names what Record.Result is in a state.
func payloadName(state string) string {
	switch state {
	case idem.Completed.String():
		return "Result"
	case idem.Held.String():
		return "Note"
	}
	return "Reason"
}

// pretty is the payload for reading.
func pretty(p *operator.Payload) string {
	switch p.Kind {
	case operator.KindJSON:
		var b bytes.Buffer
		if json.Indent(&b, p.JSON, "", "  ") == nil {
			return operator.Printable(b.String())
		}
	case operator.KindText:
		return operator.Printable(p.Text)
	case operator.KindHex:
		return p.Hex
	}
	return ""
}

// summary is the payload in a few words.
func summary(p *operator.Payload) string {
	const runes = 80
	switch {
	case p == nil:
		return "–"
	case p.Kind == operator.KindHidden:
		return "hidden, " + size(p.Bytes)
	case p.Kind == operator.KindEmpty:
		return "empty"
	case p.Kind == operator.KindHTTP && p.HTTP.NotRetained:
		return "HTTP " + strconv.Itoa(p.HTTP.Status) + ", not retained"
	case p.Kind == operator.KindHTTP:
		return "HTTP " + strconv.Itoa(p.HTTP.Status) + ", " + size(p.HTTP.Body.Bytes)
	case p.Kind == operator.KindJSON:
		return operator.Line(string(p.JSON), runes)
	case p.Kind == operator.KindText:
		return operator.Line(p.Text, runes)
	}
	return operator.Line(p.Hex, runes)
}
