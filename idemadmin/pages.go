package idemadmin

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

// page is what every page shows.
type page struct {
	Title   string // of the store; "" for those who may not read
	Heading string
	Here    string // the part of the navigation
	Who     string
	Now     time.Time
	Reveal  operator.Reveal
	Body    any
}

func (a *admin) page(r *request, here, heading string, body any) page {
	now, _ := a.store.Options().Clock.Now()
	p := page{a.o.Title, heading, here, r.who, now, a.o.Reveal.operator(), body}
	if !r.reads { // whoever may not read learns nothing of the store
		p.Title, p.Who = "", ""
	}
	return p
}

type overviewBody struct {
	Health   operator.Health
	Stats    *operator.Stats
	StatsErr *operator.Problem
	Options  idem.Options
}

func (a *admin) overview(r *request) {
	body := overviewBody{Health: a.health(r.Context()), Options: a.store.Options()}
	switch stats, err := a.counts.get(r.Context(), pageCounts); {
	case err == nil:
		body.Stats = &stats
	case errors.Is(err, context.DeadlineExceeded):
		p := operator.NewProblem(operator.TypeUnavailable, "There are too many to count for a page. api/stats takes longer over it (idem stats -url), and afterwards this page has its counts for a while.")
		body.StatsErr = &p
	default:
		p := problemOf(listErr(err))
		body.StatsErr = &p
	}
	render(r, http.StatusOK, "overview", a.page(r, "overview", "Overview", body))
}

type listBody struct {
	List    operator.List
	Query   url.Values
	States  []idem.State
	Reasons []operator.Reason
	Next    string // URL
	// NoAttempts: the store has no bound on attempts, so nothing counts as exhausted.
	NoAttempts bool
}

func (a *admin) list(r *request) {
	a.listPage(r, "list", "Records", r.URL.Query())
}

func (a *admin) stuck(r *request) {
	q := r.URL.Query()
	if q.Get("stuck") == "" {
		q.Set("stuck", "any")
	}
	a.listPage(r, "stuck", "Stuck operations", q)
}

func (a *admin) listPage(r *request, name, heading string, q url.Values) {
	s, err := a.selectionOf(q)
	if err != nil {
		a.fail(r, err)
		return
	}
	l, err := a.part(r.Context(), s, a.o.PageSize)
	if err != nil {
		a.fail(r, err)
		return
	}
	body := listBody{
		List: l, Query: q, States: operator.States(), Reasons: operator.Reasons(),
		NoAttempts: a.store.Options().MaxAttempts == 0,
	}
	if s.stuck != "" { // the engine's order means nothing; the oldest of the page come first
		slices.SortStableFunc(body.List.Records, func(x, y operator.Record) int {
			return int(age(y)/time.Second) - int(age(x)/time.Second)
		})
	}
	if l.Next != "" {
		next := url.Values{}
		for _, name := range []string{"state", "hash", "prefix", "unsettled", "stuck"} {
			if v := q.Get(name); v != "" {
				next.Set(name, v)
			}
		}
		next.Set("after", l.Next)
		body.Next = name + "?" + next.Encode()
	}
	render(r, http.StatusOK, name, a.page(r, name, heading, body))
}

// age sorts records that cannot be read before all others.
func age(r operator.Record) time.Duration {
	switch {
	case r.Error != "":
		return 1 << 62
	case r.Stuck != nil:
		return r.Stuck.Age()
	}
	return 0
}

type recordBody struct {
	Record  operator.Record
	Actions []operator.Action // that the user may do
	Moved   bool              // it is another claim than the one asked for
	Next    string            // other keys may have the hash; the URL searches on
	Found   bool              // there is a record
	Looked  int
	Rest    bool              // this is not the beginning of the search
	Many    []operator.Record // several keys have the hash
}

func (a *admin) record(r *request) {
	q := r.URL.Query()
	t, err := targetOf(q.Get("hash"), q.Get("fence"), q.Get("after"))
	if err != nil {
		a.fail(r, err)
		return
	}
	f, err := a.lookup(r.Context(), t)
	if err != nil {
		a.fail(r, err)
		return
	}
	body := recordBody{Looked: a.o.Look, Rest: t.after != ""}
	if f.next != "" {
		next := url.Values{"hash": {t.hash}, "after": {f.next}}
		if t.fence != "" {
			next.Set("fence", t.fence)
		}
		body.Next = "record?" + next.Encode()
	}
	status := http.StatusOK
	switch len(f.records) {
	case 0:
		if body.Next == "" && t.after == "" {
			status = http.StatusNotFound
		}
	case 1:
		body.Found, body.Moved = true, t.fence != "" && !f.exact
		body.Record = show(a.view(payloadLimit), f.records[0])
		body.Actions = a.allowed(r, body.Record.Actions)
	default:
		body.Moved, body.Many = t.fence != "", showAll(a.view(rowLimit), f.records)
	}
	render(r, status, "record", a.page(r, "list", "Record "+t.hash, body))
}

// allowed returns those of actions that the user may do.
func (a *admin) allowed(r *request, actions []operator.Action) []operator.Action {
	return slices.DeleteFunc(slices.Clone(actions), func(action operator.Action) bool {
		_, ok := a.may(r, action)
		return !ok
	})
}

// find leads to a record from whatever the user has: a key, a token or a hash.
func (a *admin) find(r *request) {
	if err := readForm(r, 8*idem.MaxKey); err != nil {
		a.fail(r, err)
		return
	}
	text := r.PostForm.Get("q")
	short := strings.TrimSpace(text)
	var token idem.Token
	_ = token.UnmarshalText([]byte(short)) // or it is no token
	var l idem.Listed
	err := error(operator.NewProblem(operator.TypeInvalid, "A key has 1 to "+strconv.Itoa(idem.MaxKey)+" bytes."))
	for _, key := range []string{text, short, token.Key} { // a token may be longer than any key
		if key == "" || len(key) > idem.MaxKey {
			continue
		}
		if l, err = a.byKey(r.Context(), key); err != idem.ErrNotFound {
			break
		}
	}
	to := url.Values{}
	switch {
	case err == nil:
		shown := show(a.view(0), l)
		to.Set("hash", shown.KeyHash)
		to.Set("fence", shown.Fence)
	case err == idem.ErrNotFound && isHash(short):
		to.Set("hash", short)
	default:
		a.fail(r, err)
		return
	}
	r.w.Header().Set("Location", "record?"+to.Encode())
	r.w.WriteHeader(http.StatusSeeOther)
}

func isHash(text string) bool {
	_, err := targetOf(text, "", "")
	return err == nil
}

type problemBody struct {
	Problem operator.Problem
	// Next searches on, if the search ended at its bound.
	Next string
}

func (a *admin) problemPage(r *request, p operator.Problem) {
	body := problemBody{Problem: p}
	if p.Next != "" {
		body.Next = "record?" + url.Values{"hash": {p.KeyHash}, "after": {p.Next}}.Encode()
	}
	render(r, p.Status, "problem", a.page(r, "", p.Title, body))
}

// readForm reads a form from the body, and nothing from the URL.
func readForm(r *request, limit int64) error {
	media, _, _ := strings.Cut(r.Header.Get("Content-Type"), ";")
	if !strings.EqualFold(strings.TrimSpace(media), "application/x-www-form-urlencoded") {
		return operator.NewProblem(operator.TypeMedia, "Send the form of the page.")
	}
	r.Body = http.MaxBytesReader(r.w, r.Body, limit)
	return bodyErr(r.ParseForm())
}
