package main

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"unicode/utf8"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

// remote is a live service's store, by its admin API (package idemadmin).
type remote struct {
	base   *url.URL // without credentials
	client *http.Client
	header http.Header // credentials; never printed
	redact bool
}

var _ source = (*remote)(nil)

func (r *remote) name() string { return r.base.String() }
func (r *remote) flag() string { return "-url " + shellWord(r.base.String()) }

func (r *remote) close() error {
	r.client.CloseIdleConnections()
	return nil
}

// maxAnswer bounds what is read of one answer. A record with a large result is the
// longest.
const maxAnswer = 768 << 20

// pageLimit is the most records that the API lists in one answer.
const pageLimit = "200"

// call asks the API for path and decodes its answer into out. body, if not nil, is sent
// as JSON.
func (r *remote) call(ctx context.Context, method string, path []string, q url.Values, body, out any) error {
	u := r.base.JoinPath(append([]string{"api"}, path...)...)
	u.RawQuery = q.Encode()
	var send io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return failed(err, "writing JSON")
		}
		send = bytes.NewReader(b)
	}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), send)
	if err != nil {
		return failed(err, "asking %s", r.name())
	}
	for name, values := range r.header {
		req.Header[name] = slices.Clone(values)
	}
	req.Header.Set("Accept", "application/json, application/problem+json")
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := r.client.Do(req)
	if err != nil {
		return r.unreachable(changes(method, path), err)
	}
	defer func() { _ = resp.Body.Close() }()
	answer, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer+1))
	if err != nil {
		return r.unreachable(changes(method, path), err)
	}
	if len(answer) > maxAnswer {
		return &failure{
			exitFailed, "asking " + r.name(), fmt.Errorf("its answer is longer than %s", size(maxAnswer)),
			"look at a smaller part, or stop the service and use -store",
		}
	}
	if resp.StatusCode == http.StatusOK && json.Unmarshal(answer, out) == nil && fromAdmin(out) {
		return nil
	}
	return r.refused(changes(method, path), resp, answer)
}

// fromAdmin reports whether an answer has what the API's answers always have. Another
// service may answer anything with some other JSON and 200.
func fromAdmin(answer any) bool {
	switch a := answer.(type) {
	case *operator.Stats:
		return !a.At.IsZero()
	case *operator.List:
		return a.Records != nil
	case *operator.Record:
		return a.KeyHash != ""
	case *operator.Settled:
		return a.KeyHash != ""
	}
	return false
}

// changes reports whether a request may have changed something.
func changes(method string, path []string) bool { return method == http.MethodPost && len(path) > 1 }

// unreachable is for a service that does not answer. The text of a url.Error repeats the
// URL with its query, so only its cause is told.
func (r *remote) unreachable(changing bool, err error) error {
	var wrapped *url.Error
	if errors.As(err, &wrapped) {
		err = wrapped.Err
	}
	code, advice := exitUnavailable, "check that the service is up and the URL is right; if it is stopped, use -store"
	if errors.Is(err, context.Canceled) {
		code, advice = exitInterrupted, ""
	}
	if changing {
		advice = unknownOutcome
	}
	return &failure{code, "asking " + r.name(), err, advice}
}

const giveCredentials = "give your credentials in " + authorizationVariable + " or with -header-file"

const unknownOutcome = "it may or may not have been done: look with idem show, or do the same again"

// problems says how the run ends for the API's types of problems.
var problems = map[string]exitCode{
	operator.TypeNotAllowed:  exitRefused,
	operator.TypeCrossOrigin: exitRefused,
	operator.TypeNotFound:    exitNotFound,
	operator.TypeNotReached:  exitNotFound,
	operator.TypeAmbiguous:   exitAmbiguous,
	operator.TypeLost:        exitLost,
	operator.TypeUnreadable:  exitDamaged,
	operator.TypeUnavailable: exitUnavailable,
	operator.TypeInvalid:     exitFailed,
	operator.TypeTooLarge:    exitFailed,
	operator.TypeNoList:      exitFailed,
}

// refused is for an answer that is not the one asked for.
func (r *remote) refused(changing bool, resp *http.Response, answer []byte) error {
	doing := "asking " + r.name()
	var p operator.Problem
	if json.Unmarshal(answer, &p) == nil {
		if code, ok := problems[p.Type]; ok {
			advice := ""
			switch {
			case code == exitUnavailable && changing:
				advice = unknownOutcome
			case code == exitRefused && len(r.header) == 0:
				advice = giveCredentials
			}
			return &failure{code, doing, &p, advice}
		}
	}
	status := errors.New("it answers " + printable(resp.Status))
	switch {
	case resp.StatusCode == http.StatusUnauthorized || resp.StatusCode == http.StatusForbidden || resp.StatusCode == http.StatusProxyAuthRequired:
		return &failure{exitRefused, doing, status, giveCredentials}
	case resp.StatusCode >= 300 && resp.StatusCode < 400:
		to := ""
		if u, err := resp.Location(); err == nil {
			u.User, u.RawQuery = nil, ""
			to = " to " + printable(u.String())
		}
		return &failure{exitNoStore, doing, fmt.Errorf("it redirects%s", to), "name the place itself: credentials are not sent on"}
	case resp.StatusCode >= 500 || resp.StatusCode == http.StatusTooManyRequests:
		advice := "try again when the service is well"
		if changing {
			advice = unknownOutcome
		}
		return &failure{exitUnavailable, doing, status, advice}
	}
	return &failure{
		exitNoStore, doing, fmt.Errorf("it is no admin API of a store (%s)", printable(resp.Status)),
		"-url is the address where the service mounts idemadmin",
	}
}

func (r *remote) stats(ctx context.Context) (st operator.Stats, err error) {
	err = r.call(ctx, http.MethodGet, []string{"stats"}, nil, nil, &st)
	return st, err
}

func (r *remote) list(ctx context.Context, q query) iter.Seq2[operator.Record, error] {
	v := url.Values{"limit": {pageLimit}}
	set := func(name, value string) {
		if value != "" {
			v.Set(name, value)
		}
	}
	if q.state != 0 {
		set("state", q.state.String())
	}
	set("prefix", q.prefix)
	set("hash", q.hash)
	if q.unsettled {
		set("unsettled", "1")
	}
	if q.stuck {
		set("stuck", "any")
	}
	return func(yield func(operator.Record, error) bool) {
		for {
			var part operator.List
			if err := r.call(ctx, http.MethodGet, []string{"records"}, v, nil, &part); err != nil {
				yield(operator.Record{}, err)
				return
			}
			for _, rec := range part.Records {
				if !yield(r.shown(rec), nil) {
					return
				}
			}
			if part.Next == "" {
				return
			}
			v.Set("after", part.Next)
		}
	}
}

// shown takes out of rec what -redact keeps from being printed. The service has its own
// idea of that, too.
func (r *remote) shown(rec operator.Record) operator.Record {
	if !r.redact {
		return rec
	}
	rec.Key, rec.KeyHex, rec.Token, rec.Fingerprint = "", "", "", ""
	for _, p := range []**operator.Payload{&rec.Result, &rec.Checkpoint} {
		if *p != nil {
			*p = &operator.Payload{Kind: operator.KindHidden, Bytes: (*p).Bytes}
		}
	}
	return rec
}

func (r *remote) find(ctx context.Context, ref reference) ([]found, error) {
	var all []found
	for _, c := range ref.keys() {
		ask := operator.FindRequest{Key: c.key}
		if !utf8.ValidString(c.key) {
			ask = operator.FindRequest{KeyHex: hex.EncodeToString([]byte(c.key))}
		}
		var rec operator.Record
		err := r.call(ctx, http.MethodPost, []string{"find"}, nil, ask, &rec)
		var f *failure
		switch {
		case err == nil:
			stale := c.fence != 0 && rec.Error == "" && rec.Fence != strconv.FormatUint(c.fence, 10)
			all = append(all, found{Record: r.shown(rec), as: c.as, stale: stale})
		case !errors.As(err, &f) || f.code != exitNotFound:
			return nil, err
		}
	}
	if hash := ref.hash(); hash != "" {
		for rec, err := range r.list(ctx, query{hash: hash}) {
			if err != nil {
				return nil, err
			}
			if rec, err = r.whole(ctx, rec); err != nil {
				return nil, err
			}
			all = append(all, found{Record: rec, as: byHash})
		}
	}
	return all, nil
}

// whole returns rec, out of a list, with its payloads in full.
func (r *remote) whole(ctx context.Context, rec operator.Record) (operator.Record, error) {
	if rec.Error != "" {
		return rec, nil
	}
	var full operator.Record
	err := r.onward(func(after url.Values) error {
		after.Set("fence", rec.Fence)
		return r.call(ctx, http.MethodGet, []string{"records", rec.KeyHash}, after, nil, &full)
	})
	var p *operator.Problem
	if errors.As(err, &p) && (p.Type == operator.TypeLost || p.Type == operator.TypeNotFound) {
		return rec, nil // it has changed since it was listed
	}
	return r.shown(full), err
}

// onward repeats a request while the service answers that it has not looked far enough.
func (r *remote) onward(ask func(after url.Values) error) error {
	after := url.Values{}
	for {
		err := ask(after)
		var p *operator.Problem
		if !errors.As(err, &p) || p.Type != operator.TypeNotReached || p.Next == "" || p.Next == after.Get("after") {
			return err
		}
		after.Set("after", p.Next)
	}
}

func (r *remote) settle(ctx context.Context, f found, a operator.Action, payload []byte) (*operator.Record, error) {
	body := operator.SettleRequest{State: f.State}
	switch {
	case payload == nil:
	case utf8.Valid(payload):
		body.Format, body.Payload = operator.FormatText, string(payload)
	default:
		body.Format, body.Payload = operator.FormatHex, hex.EncodeToString(payload)
	}
	var done operator.Settled
	err := r.onward(func(after url.Values) error {
		return r.call(ctx, http.MethodPost, []string{"records", f.KeyHash, fenceOf(f.Record), string(a)}, after, body, &done)
	})
	now := done.Record
	var p *operator.Problem
	if errors.As(err, &p) {
		now = p.Record
		if p.Type == operator.TypeLost {
			err = fmt.Errorf("%w (%w)", operator.ErrLost, idem.ErrFenced)
		}
	}
	if now != nil {
		shown := r.shown(*now)
		now = &shown
	}
	return now, err
}
