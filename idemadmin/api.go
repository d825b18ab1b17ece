package idemadmin

import (
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

// rowLimit bounds the bytes shown of each payload where many are, and payloadLimit where
// a page shows one record.
const (
	rowLimit     = 512
	payloadLimit = 64 << 10
	healthWait   = time.Second
)

func (a *admin) apiStats(r *request) {
	stats, err := a.counts.get(r.Context(), apiCounts)
	if err != nil {
		a.fail(r, listErr(err))
		return
	}
	writeJSON(r, http.StatusOK, "application/json", stats)
}

func (a *admin) apiHealth(r *request) {
	h := a.health(r.Context())
	status := http.StatusOK
	if !h.Ready {
		status = http.StatusServiceUnavailable
	}
	writeJSON(r, status, "application/json", h)
}

func (a *admin) health(ctx context.Context) operator.Health {
	ctx, cancel := context.WithTimeout(ctx, healthWait)
	defer cancel()
	return operator.HealthOf(a.store.Health(ctx))
}

func (a *admin) apiList(r *request) {
	q := r.URL.Query()
	s, err := a.selectionOf(q)
	if err != nil {
		a.fail(r, err)
		return
	}
	limit := a.o.PageSize
	if text := q.Get("limit"); text != "" {
		if limit, err = strconv.Atoi(text); err != nil || limit < 1 || limit > maxPageSize {
			a.refuse(r, operator.NewProblem(operator.TypeInvalid, "limit must be 1 to "+strconv.Itoa(maxPageSize)+"."))
			return
		}
	}
	l, err := a.part(r.Context(), s, limit)
	if err != nil {
		a.fail(r, err)
		return
	}
	writeJSON(r, http.StatusOK, "application/json", l)
}

func (a *admin) apiRecord(r *request) {
	q := r.URL.Query()
	t, err := targetOf(r.path[1], q.Get("fence"), q.Get("after"))
	if err != nil {
		a.fail(r, err)
		return
	}
	f, err := a.lookup(r.Context(), t)
	switch {
	case err != nil:
		a.fail(r, err)
	case len(f.records) == 1 && (f.exact || t.fence == "" && f.next == ""):
		writeJSON(r, http.StatusOK, "application/json", show(a.whole(), f.records[0]))
	case f.next != "":
		p := notReached(t, f.next, a.o.Look)
		p.Records = showAll(a.view(rowLimit), f.records)
		a.refuse(r, p)
	case len(f.records) == 0:
		p := operator.NewProblem(operator.TypeNotFound, "It has expired, was forgotten, or never was.")
		p.KeyHash = t.hash
		a.refuse(r, p)
	case t.fence != "":
		a.refuse(r, a.lost(f.records))
	default:
		p := operator.NewProblem(operator.TypeAmbiguous, "Name the fence as well.")
		p.KeyHash, p.Records = t.hash, showAll(a.view(rowLimit), f.records)
		a.refuse(r, p)
	}
}

// whole is the view of a record with payloads in full. They are at most
// Options.MaxResult, and hexadecimal takes two digits a byte.
func (a *admin) whole() operator.View { return a.view(2 * a.store.Options().MaxResult) }

func (a *admin) apiFind(r *request) {
	var req operator.FindRequest
	if err := readJSON(r, 8*idem.MaxKey, &req); err != nil {
		a.fail(r, err)
		return
	}
	key, fence, err := req.Key, uint64(0), error(nil)
	given := 0
	for _, s := range []string{req.Key, req.KeyHex, req.Token} {
		if s != "" {
			given++
		}
	}
	switch {
	case given != 1:
		err = operator.NewProblem(operator.TypeInvalid, "Give one of key, key_hex and token.")
	case req.KeyHex != "":
		b, hexErr := hex.DecodeString(req.KeyHex)
		if key = string(b); hexErr != nil {
			err = operator.NewProblem(operator.TypeInvalid, "key_hex is not hexadecimal.")
		}
	case req.Token != "":
		var t idem.Token
		if err = t.UnmarshalText([]byte(req.Token)); err == nil {
			key, fence = t.Key, t.Fence
		}
	}
	if err != nil {
		a.fail(r, err)
		return
	}
	l, err := a.byKey(r.Context(), key)
	switch {
	case err != nil:
		a.fail(r, err)
	case fence != 0 && l.Err == nil && l.Fence != fence:
		a.refuse(r, a.lost([]idem.Listed{l}))
	default:
		writeJSON(r, http.StatusOK, "application/json", show(a.whole(), l))
	}
}

func (a *admin) apiSettle(r *request) {
	action, err := operator.ParseAction(r.path[3])
	if err != nil {
		a.refuse(r, operator.NewProblem(operator.TypeNoPage, ""))
		return
	}
	o := order{action: action}
	if o.target, err = targetOf(r.path[1], r.path[2], r.URL.Query().Get("after")); err != nil {
		a.log(r, r.who, order{}, err)
		a.fail(r, err)
		return
	}
	var req operator.SettleRequest
	flaw := readJSON(r, a.bodyLimit(), &req)
	if flaw == nil {
		o.state, flaw = operator.ParseState(req.State)
	}
	if flaw == nil {
		o.payload, flaw = a.payloadOf(action, req.Format, req.Payload)
	}
	done, err := a.carryOut(r, o, flaw)
	if err != nil {
		a.fail(r, err)
		return
	}
	writeJSON(r, http.StatusOK, "application/json", done)
}

// payloadOf reads the payload of an action.
func (a *admin) payloadOf(action operator.Action, f operator.Format, text string) ([]byte, error) {
	if !action.Takes() && text != "" {
		return nil, operator.NewProblem(operator.TypeInvalid, "There is a payload, and "+string(action)+" takes none.")
	}
	b, err := operator.ParsePayload(f, text)
	if limit := a.store.Options().MaxResult; err == nil && len(b) > limit {
		return nil, operator.NewProblem(operator.TypeTooLarge, "The payload has "+strconv.Itoa(len(b))+" bytes; the store keeps "+strconv.Itoa(limit)+".")
	}
	return b, err
}

// bodyLimit bounds the body of an order: a payload of the greatest size, each byte
// written as an escape, and something for the rest.
func (a *admin) bodyLimit() int64 { return 6*int64(a.store.Options().MaxResult) + 16<<10 }

// readJSON reads the body into v. It must be one value, without unknown fields, or empty.
func readJSON(r *request, limit int64, v any) error {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil || media != "application/json" {
		return operator.NewProblem(operator.TypeMedia, "Send application/json.")
	}
	d := json.NewDecoder(http.MaxBytesReader(r.w, r.Body, limit))
	d.DisallowUnknownFields()
	switch err = d.Decode(v); err {
	case io.EOF: // no body is an empty object
		return nil
	case nil:
		if _, end := d.Token(); end != io.EOF {
			err = errors.New("more than one value")
		}
	}
	return bodyErr(err)
}

// bodyErr returns what an error of reading a body means. Its text could hold a piece of
// the body, and is not shown.
func bodyErr(err error) error {
	var tooLong *http.MaxBytesError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &tooLong):
		return operator.NewProblem(operator.TypeTooLarge, "At most "+strconv.FormatInt(tooLong.Limit, 10)+" bytes are read.")
	}
	return operator.NewProblem(operator.TypeInvalid, "The body cannot be read: it is cut off, malformed, or has a field that is not known.")
}

// writeJSON answers with v, which can be encoded.
func writeJSON(r *request, status int, media string, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		status, b = http.StatusInternalServerError, []byte(`{}`)
	}
	r.w.Header().Set("Content-Type", media)
	r.w.Header().Set("Content-Length", strconv.Itoa(len(b)+1))
	r.w.WriteHeader(status)
	if r.Method != http.MethodHead {
		_, _ = r.w.Write(append(b, '\n')) // a client that is gone asks again
	}
}

func writeProblem(r *request, p operator.Problem) {
	writeJSON(r, p.Status, "application/problem+json", p)
}

// selection is what a list shows.
type selection struct {
	filter idem.Filter
	stuck  string // "" all, "any", or a reason
	after  string // sealed
}

func (a *admin) selectionOf(q url.Values) (s selection, err error) {
	s.after = q.Get("after")
	if s.filter.State, err = operator.ParseState(q.Get("state")); err != nil {
		return s, err
	}
	if hash := q.Get("hash"); hash != "" {
		if _, err := targetOf(hash, "", ""); err != nil {
			return s, err
		}
		s.filter.KeyHash = hash
	}
	// A list by prefix answers guesses at keys, letter by letter.
	if s.filter.Prefix = q.Get("prefix"); s.filter.Prefix != "" && a.o.Reveal&RevealKeys == 0 {
		return s, operator.NewProblem(operator.TypeNotAllowed, "A list by prefix discloses keys. It needs Options.Reveal to have RevealKeys.")
	}
	switch q.Get("unsettled") {
	case "", "0":
	case "1":
		s.filter.Unsettled = true
	default:
		return s, operator.NewProblem(operator.TypeInvalid, "unsettled must be 0 or 1.")
	}
	s.stuck = q.Get("stuck")
	_, err = operator.ParseReason(s.stuck)
	return s, err
}

// part returns the part of the list that s selects.
func (a *admin) part(ctx context.Context, s selection, limit int) (operator.List, error) {
	after, err := a.seal.open(s.after)
	if err != nil {
		return operator.List{}, err
	}
	v := a.view(rowLimit)
	p := idem.Part{After: after, Limit: limit, Look: a.o.Look}
	if s.stuck != "" {
		p.Match = func(rec idem.Record) bool {
			stuck, ok := operator.StuckBy(rec, v.MaxAttempts, v.Now)
			return ok && (s.stuck == "any" || string(stuck.Reason) == s.stuck)
		}
	}
	l, err := a.store.List(ctx, s.filter, p)
	if err != nil {
		return operator.List{}, listErr(err)
	}
	for i := range l.Records {
		a.seen.add(a.store.KeyHash(l.Records[i].Key), l.Records[i].Key)
	}
	return operator.List{Records: showAll(v, l.Records), Looked: l.Looked, Next: a.seal.place(l.Next)}, nil
}
