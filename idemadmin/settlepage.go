package idemadmin

import (
	"fmt"
	"net/http"
	"strings"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

type settleBody struct {
	Record  operator.Record
	Action  operator.Action
	Formats []operator.Format
	Format  operator.Format
	Token   string
	Max     int
	// HTTP: retries replay the result as an HTTP answer.
	HTTP bool
	// Running: the attempt may still be at work.
	Running bool
}

// settle shows the form that confirms an action, and takes it.
func (a *admin) settle(r *request) {
	if r.Method == http.MethodPost {
		a.settleForm(r)
		return
	}
	q := r.URL.Query()
	o, err := orderOf(q.Get("action"), q.Get("hash"), q.Get("fence"), "")
	if err != nil {
		a.fail(r, err)
		return
	}
	who, ok := a.may(r, o.action)
	if !ok {
		a.refuse(r, notAllowed(o.action))
		return
	}
	f, err := a.lookup(r.Context(), o.target)
	switch {
	case err != nil:
		a.fail(r, err)
		return
	case !f.exact && f.next != "":
		a.refuse(r, notReached(o.target, f.next, a.o.Look))
		return
	case !f.exact:
		a.refuse(r, a.lost(f.records))
		return
	}
	rec := show(a.view(rowLimit), f.records[0])
	if !hasAction(rec.Actions, o.action) {
		a.refuse(r, a.lost(f.records))
		return
	}
	body := settleBody{
		Record: rec, Action: o.action, Formats: operator.Formats(), Max: a.store.Options().MaxResult,
		HTTP:    o.action == operator.Complete && strings.HasPrefix(f.records[0].Key, "http/"),
		Running: f.records[0].State == idem.InFlight && !rec.Lapsed,
		Token:   a.seal.sign(decision{who, o.action, o.hash, o.fence, rec.State}),
	}
	switch {
	case body.HTTP:
		body.Format = operator.FormatHTTP
	case o.action == operator.Complete:
		body.Format = operator.FormatJSON
	default:
		body.Format = operator.FormatText
	}
	render(r, http.StatusOK, "settle", a.page(r, "list", heading(o.action)+" "+o.hash, body))
}

func hasAction(actions []operator.Action, action operator.Action) bool {
	for _, a := range actions {
		if a == action {
			return true
		}
	}
	return false
}

// settleForm takes the form.
func (a *admin) settleForm(r *request) {
	err := readForm(r, a.bodyLimit())
	form := r.PostForm
	var o order
	if err == nil {
		o, err = orderOf(form.Get("action"), form.Get("hash"), form.Get("fence"), form.Get("state"))
	}
	if err != nil {
		a.log(r, r.who, order{}, err)
		a.fail(r, err)
		return
	}
	who, _ := a.may(r, o.action)
	d := decision{who, o.action, o.hash, o.fence, form.Get("state")}
	var flaw error
	switch {
	case !a.seal.signed(form.Get("token"), d):
		flaw = operator.NewProblem(operator.TypeInvalid, "The form is no longer good: it is old, belongs to another user, or the service has restarted. Nothing was changed. Open the record again.")
	case form.Get("sure") != "yes":
		flaw = operator.NewProblem(operator.TypeInvalid, "The box was not ticked. Nothing was changed.")
	default:
		text := strings.ReplaceAll(form.Get("payload"), "\r\n", "\n") // browsers end lines so
		format := operator.Format(form.Get("format"))
		if text == "" && format == operator.FormatText {
			format = operator.FormatNone // no reason is nil, not an empty one
		}
		o.payload, flaw = a.payloadOf(o.action, format, text)
	}
	done, err := a.carryOut(r, o, flaw)
	if err != nil {
		a.fail(r, err)
		return
	}
	render(r, http.StatusOK, "done", a.page(r, "list", "Done", done))
}

func orderOf(action, hash, fence, state string) (o order, err error) {
	if o.action, err = operator.ParseAction(action); err != nil {
		return o, err
	}
	if o.state, err = operator.ParseState(state); err != nil {
		return o, err
	}
	if o.target, err = targetOf(hash, fence, ""); err == nil && fence == "" {
		err = operator.NewProblem(operator.TypeInvalid, "The fence is missing.")
	}
	return o, err
}

// heading is an action or another word with a capital letter.
func heading(word any) string {
	s := fmt.Sprint(word)
	return strings.ToUpper(s[:1]) + s[1:]
}
