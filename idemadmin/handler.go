package idemadmin

import (
	"errors"
	"net/http"
	"path"
	"slices"
	"strings"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

// admin is the handler that New returns.
type admin struct {
	store   *idem.Store
	o       Options
	origins http.CrossOriginProtection
	seal    seal
	seen    seen
	counts  counts
}

// New returns a handler that shows store and settles its operations. idem.ErrInvalid is
// returned when store or Options.Authorize is nil, or an option is out of range.
//
// The handler owns nothing: close store as before, whether or not the handler is still
// mounted.
func New(store *idem.Store, o Options) (http.Handler, error) {
	if store == nil {
		return nil, invalid("the store is nil; open one with idem.New")
	}
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	a := &admin{store: store, o: o, seal: newSeal(store.Options().Clock)}
	a.counts.init(store)
	return a, nil
}

// request is a request on its way to its answer.
type request struct {
	*http.Request
	w     http.ResponseWriter
	path  []string // segments below the prefix, without "api"
	api   bool
	who   string
	reads bool // the user may read
}

// route is what a path leads to.
type route struct {
	methods []string
	serve   func(a *admin, r *request)
}

var reading = []string{http.MethodGet, http.MethodHead}

// The routes have as many segments as their name. A * is any segment.
var pages = map[string]route{
	"":       {reading, (*admin).overview},
	"list":   {reading, (*admin).list},
	"stuck":  {reading, (*admin).stuck},
	"record": {reading, (*admin).record},
	"find":   {[]string{http.MethodPost}, (*admin).find},
	"settle": {[]string{http.MethodGet, http.MethodHead, http.MethodPost}, (*admin).settle},
}

var apis = map[string]route{
	"stats":         {reading, (*admin).apiStats},
	"health":        {reading, (*admin).apiHealth},
	"records":       {reading, (*admin).apiList},
	"records/*":     {reading, (*admin).apiRecord},
	"find":          {[]string{http.MethodPost}, (*admin).apiFind},
	"records/*/*/*": {[]string{http.MethodPost}, (*admin).apiSettle},
}

// ServeHTTP implements http.Handler.
func (a *admin) ServeHTTP(w http.ResponseWriter, hr *http.Request) {
	secure(w.Header())
	r := &request{Request: hr, w: w}
	if hr.URL.Path == "" {
		a.addSlash(r)
		return
	}
	rest, slash := strings.CutPrefix(hr.URL.Path, "/")
	if rest == stylePath && slash {
		serveStyle(r)
		return
	}
	routes := pages
	r.path = strings.Split(rest, "/")
	if r.path[0] == "api" {
		routes, r.path, r.api = apis, r.path[1:], true
	}
	to, ok := routes[pattern(r.path)]
	// A request that may not even read does not learn which pages there are.
	who, may := a.o.Authorize(hr, Read)
	r.who, r.reads = who, may
	switch {
	case !may:
		a.turnAway(r, operator.NewProblem(operator.TypeNotAllowed, "Ask for the right to read, or log in."))
	case !ok || !slash:
		a.refuse(r, operator.NewProblem(operator.TypeNoPage, ""))
	case !slices.Contains(to.methods, hr.Method):
		w.Header().Set("Allow", strings.Join(to.methods, ", "))
		a.refuse(r, operator.NewProblem(operator.TypeMethod, ""))
	default:
		if err := a.origins.Check(hr); err != nil {
			a.turnAway(r, operator.NewProblem(operator.TypeCrossOrigin, "Open the page itself, and try again there."))
			return
		}
		to.serve(a, r)
	}
}

// pattern returns the name under which a path is in the routes.
func pattern(segments []string) string {
	if len(segments) > 1 && segments[0] == "records" {
		return "records" + strings.Repeat("/*", len(segments)-1)
	}
	return strings.Join(segments, "/")
}

// addSlash sends a browser from the bare prefix to the same with a slash, where relative
// links work. The target is relative as well: only the browser knows the whole path.
func (a *admin) addSlash(r *request) {
	original, _, _ := strings.Cut(r.RequestURI, "?")
	last := path.Base(original)
	if last == "." || last == "/" || strings.Contains(last, `\`) {
		a.refuse(r, operator.NewProblem(operator.TypeNoPage, ""))
		return
	}
	r.w.Header().Set("Location", "./"+last+"/")
	r.w.WriteHeader(http.StatusTemporaryRedirect)
}

// secure sets what keeps a page from being framed, cached, sniffed and scripted.
func secure(h http.Header) {
	h.Set("Content-Security-Policy", "default-src 'none'; style-src 'self'; img-src data:; form-action 'self'; base-uri 'none'; frame-ancestors 'none'")
	h.Set("X-Frame-Options", "DENY")
	h.Set("X-Content-Type-Options", "nosniff")
	// Not no-referrer: a form would then be sent with the origin "null", which the
	// protection against other sites refuses.
	h.Set("Referrer-Policy", "same-origin")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
}

// may reports whether the request may do action, and by whose name.
func (a *admin) may(r *request, action operator.Action) (who string, ok bool) {
	who, ok = a.o.Authorize(r.Request, Action(action))
	return who, ok && who != ""
}

// refuse answers with p.
func (a *admin) refuse(r *request, p operator.Problem) {
	if r.api {
		writeProblem(r, p)
		return
	}
	a.problemPage(r, p)
}

// turnAway refuses a request before anybody has looked at what it wants. If that was a
// change, the log says so.
func (a *admin) turnAway(r *request, p operator.Problem) {
	if r.settles() {
		a.log(r, r.who, order{}, p)
	}
	a.refuse(r, p)
}

// fail answers with what err, from the store, means.
func (a *admin) fail(r *request, err error) { a.refuse(r, problemOf(err)) }

// problemOf returns what an error of the store means.
func problemOf(err error) operator.Problem {
	var p operator.Problem
	switch {
	case errors.As(err, &p):
		return p
	case errors.Is(err, idem.ErrClosed), errors.Is(err, idem.ErrBroken), errors.Is(err, idem.ErrFull): // they may wrap others
	case errors.Is(err, idem.ErrNotFound):
		return operator.NewProblem(operator.TypeNotFound, "It has expired, was forgotten, or never was.")
	case errors.Is(err, idem.ErrInvalid):
		return operator.NewProblem(operator.TypeInvalid, strings.TrimPrefix(err.Error(), idem.ErrInvalid.Error()+": "))
	case errors.Is(err, idem.ErrCorrupt), errors.Is(err, idem.ErrVersion):
		return operator.NewProblem(operator.TypeUnreadable, err.Error())
	}
	p = operator.NewProblem(operator.TypeUnavailable, err.Error())
	p.Cause = operator.Cause(err)
	return p
}
