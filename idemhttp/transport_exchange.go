package idemhttp

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/idemkv/idem"
)

// exchange is one request with all its tries.
type exchange struct {
	Transport // with all defaults
	request   *http.Request
	header    http.Header // of every try
	keyed     bool
	made      bool   // the key is our own
	key       string // as it is in the header
	body      body
	again     bool // there may be a second try
	hidden    bool // the key is no leave for Base to make one
	start     time.Duration
	tries     int
	began     time.Duration // when the last try did
	limited   time.Duration // how long it may take; zero: forever
	inFlight  int           // how many tries met an operation in flight; they do not count against MaxTries
}

func (e *exchange) run() (*http.Response, error) {
	ctx := e.request.Context()
	if err := e.prepare(ctx); err != nil {
		e.body.close()
		return nil, err
	}
	defer e.body.close()
	for {
		resp, end, v, err := e.try(ctx)
		ended := e.ended(ctx)
		wait, more := time.Duration(0), false
		if v != tryFinal && ended == nil {
			wait, more = e.next(ctx, resp, v)
		}
		if more {
			if gone := e.body.open(); gone != nil {
				wait, more = 0, false
				if err != nil {
					err = gone
				}
			}
		}
		e.tell(resp, err, more, wait)
		switch {
		case err == nil && !more:
			resp.Body = endWith(resp.Body, end)
			return resp, nil
		case ended != nil:
			return nil, ended
		case !more:
			if v != tryFinal && e.body.why != nil {
				err = errors.Join(err, e.body.why)
			}
			return nil, err
		}
		e.drop(ctx, resp, end, wait)
		if v == tryWithoutKey {
			e.removeKey()
		}
		if err := e.wait(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// prepare sets header, key and body.
func (e *exchange) prepare(ctx context.Context) (err error) {
	r := e.request
	e.body = newBody(r)
	if err := e.ended(ctx); err != nil {
		return err
	}
	if err := sendable(r); err != nil {
		return err
	}
	if span(e.Header, isTchar) != len(e.Header) {
		return fmt.Errorf("%w: Transport.Header is %q, which is not the name of a header field", idem.ErrInvalid, e.Header)
	}
	e.header = r.Header.Clone()
	if e.header == nil {
		e.header = http.Header{}
	}
	given, keyed := e.given()
	if slices.ContainsFunc(given, blank) {
		// It would be retried as if the server could tell the tries apart.
		return fmt.Errorf("%w: the request's %s is empty; set a key, or leave the header out to get one", idem.ErrInvalid, e.Header)
	}
	declared := keyed && len(given) == 0 // idempotent by itself
	honoured := e.HonoursKeys == nil || e.HonoursKeys(r)
	wanted := !keyed && honoured && e.getsKey(r.Method)
	e.keyed = keyed || wanted
	if len(given) > 0 {
		e.key = given[0]
	}

	safe := idempotent(r.Method) || declared || e.keyed && honoured
	e.hidden = !safe && !honoured
	// What else than HTTP an http.Transport has been taught (RegisterProtocol) cannot be
	// seen. Mostly it is nothing, and its error the same every time.
	_, std := e.Base.(*http.Transport)
	if safe && e.MaxTries > 1 && (overHTTP(r) || !std) {
		if e.again, err = e.keepBody(ctx); err != nil {
			return err
		}
	}
	if !wanted {
		return nil
	}
	if e.body.tooLong(e.MaxBody) {
		// A key would be of no use, and servers bound the bodies that come with one.
		e.keyed = false
		return nil
	}
	key, err := e.newKey()
	if err != nil {
		return err
	}
	e.header.Set(e.Header, key)
	e.key, e.made = key, true
	return nil
}

// given returns the keys that the caller has set, and whether the field is there. A name
// that is not canonical is the same to the server: a second key next to it would have the
// request refused.
func (e *exchange) given() (values []string, there bool) {
	values, there = e.header[e.Header]
	for name, more := range e.header {
		if name != e.Header && strings.EqualFold(name, e.Header) && len(more) > 0 {
			values, there = append(slices.Clip(values), more...), true
		}
	}
	return values, there
}

// removeKey has the request sent once more, as it is without the Transport.
func (e *exchange) removeKey() {
	e.header.Del(e.Header)
	e.key, e.keyed, e.made, e.again = "", false, false, false
}

// keepBody keeps the body for more than one try, within Timeout: a pipe whose writer is
// stuck would block the call forever.
func (e *exchange) keepBody(ctx context.Context) (again bool, err error) {
	if e.Timeout <= 0 || e.body.first == nil || e.body.get != nil {
		return e.body.keep(ctx, e.request, e.MaxBody)
	}
	bounded, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	stop := e.Clock.AfterFunc(max(e.left(), 1), func() { cancel(errTimeout) })
	defer stop()
	again, err = e.body.keep(bounded, e.request, e.MaxBody)
	if err != nil && context.Cause(bounded) == error(errTimeout) {
		err = errTimeout
	}
	return again, err
}

func blank(value string) bool { return strings.Trim(value, " \t") == "" }

func (e *exchange) getsKey(method string) bool {
	if len(e.Methods) == 0 {
		return method == http.MethodPost || method == http.MethodPatch
	}
	return slices.Contains(e.Methods, method)
}

func (e *exchange) newKey() (string, error) {
	key, err := e.NewKey(e.request)
	if err != nil {
		return "", err
	}
	quoted, err := FormatKey(key)
	switch {
	case err != nil || !e.Bare:
		return quoted, err
	case blank(key): // spaces around a value are not part of it
		return "", fmt.Errorf("%w: the key that Transport.NewKey returned is empty without quotes", idem.ErrInvalid)
	}
	return key, nil
}

// idempotent is the table of RFC 9110, section 9.2.2. An empty method is GET.
func idempotent(method string) bool {
	switch method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return false
}

// worth is what the end of a try is worth.
type worth int

const (
	tryFinal worth = iota
	tryAgain
	tryPending    // again, when the operation that is in flight has ended
	tryUnsent     // again, even if the request may be sent only once: it was not
	tryWithoutKey // again, at once
)

// try sends the request once, and asks Retry whether another try is worth it. end,
// which is not nil, frees what the answer needs until its body is closed.
func (e *exchange) try(ctx context.Context) (resp *http.Response, end func(), v worth, err error) {
	tryCtx, cancel := context.WithCancelCause(ctx)
	unsent := func(error) bool { return false }
	if !e.again {
		tryCtx, unsent = watchSending(tryCtx)
	}
	end = func() { cancel(context.Canceled) }
	r, err := e.body.attach(tryCtx, e.request)
	if err != nil {
		end()
		return nil, end, tryFinal, err
	}
	r.Header = e.header.Clone() // Base may keep it
	if e.hidden {
		hideKeys(r.Header)
	}
	e.tries++
	stop, why := e.limit(cancel)
	resp, err = e.Base.RoundTrip(r)
	if resp == nil && err == nil {
		err = errNothing
	}
	if resp != nil && resp.Body == nil {
		resp.Body = http.NoBody
	}
	if resp != nil && e.hidden {
		showKeys(resp)
	}
	nothingSent := err != nil && unsent(err)
	if err == nil && e.keyed && r.Method != http.MethodHead {
		resp, err = e.keepAnswer(resp, end)
	}
	whole := err == nil && isWhole(resp)
	if err == nil {
		v = e.judge(resp) // which may read the body, and that may stall
	}
	if !stop() && ctx.Err() == nil && !whole {
		err = why // whatever came, its body can be cut off any moment
	}
	if err != nil {
		if resp != nil {
			_ = resp.Body.Close()
		}
		end()
		if v = e.judgeError(err); v == tryAgain && nothingSent && e.body.resendable() {
			v = tryUnsent
		}
		return nil, end, v, err
	}
	return resp, end, v, nil
}

func (e *exchange) judge(resp *http.Response) worth {
	switch {
	case e.made && e.tries == 1 && e.body.resendable() && withoutKey(resp):
		return tryWithoutKey
	case !e.Retry(resp, nil):
		return tryFinal
	case inFlight(resp):
		return tryPending
	}
	return tryAgain
}

// judgeError is judge for a try that has no answer.
func (e *exchange) judgeError(err error) worth {
	if !isOwn(err) && err != error(errTimeout) && err != errNothing && e.Retry(nil, err) {
		return tryAgain
	}
	return tryFinal
}

// limit cancels the try that begins now when its time is over, which is why. stop
// reports whether it kept that from happening.
func (e *exchange) limit(cancel context.CancelCauseFunc) (stop func() bool, why error) {
	limit := e.TryTimeout
	why = errTryTimeout
	if e.Timeout > 0 {
		if left := max(e.left(), 1); limit <= 0 || left < limit {
			limit, why = left, errTimeout
		}
	}
	_, e.began = e.Clock.Now()
	e.limited = max(limit, 0)
	if limit <= 0 {
		return func() bool { return true }, nil
	}
	return e.Clock.AfterFunc(limit, func() { cancel(why) }), why
}

// left is what remains of Timeout.
func (e *exchange) left() time.Duration {
	_, now := e.Clock.Now()
	return e.start + e.Timeout - now
}

// fits reports whether a wait ends before the exchange has to. The deadline of the
// context, which is also http.Client's Timeout, is in the system's time.
func (e *exchange) fits(ctx context.Context, wait time.Duration) bool {
	deadline, ok := ctx.Deadline()
	return (!ok || wait < time.Until(deadline)) && (e.Timeout < 0 || wait < e.left())
}

// next tells after how long a wait the request is tried again, if it can be. What
// cannot be waited for is not: the answer at hand is worth more than the news that
// time ran out.
func (e *exchange) next(ctx context.Context, resp *http.Response, v worth) (wait time.Duration, more bool) {
	if v == tryWithoutKey {
		return 0, true
	}
	nth := e.tries - e.inFlight
	if v == tryPending && e.bounded(ctx) {
		// The first request may take as long as the caller has. It is asked about less and
		// less often.
		e.inFlight++
		nth = e.inFlight
	}
	if !e.again && v != tryUnsent || e.tries-e.inFlight >= e.MaxTries {
		return 0, false
	}
	wait = backoff(e.MinBackoff, e.MaxBackoff, nth)
	if resp != nil {
		wall, _ := e.Clock.Now()
		if asked, ok := retryAfter(resp.Header, wall); ok && asked > 0 {
			if asked > e.MaxRetryAfter {
				return 0, false
			}
			// Not before, and not all at the same moment who were told the same.
			wait = asked + min(backoff(e.MinBackoff, e.MaxBackoff, 1), math.MaxInt64-asked)
		}
	}
	if !e.fits(ctx, wait) {
		return 0, false
	}
	return wait, true
}

// bounded reports whether time alone ends the tries.
func (e *exchange) bounded(ctx context.Context) bool {
	_, deadline := ctx.Deadline()
	return deadline || e.Timeout > 0 && e.Timeout < idem.Forever
}

func (e *exchange) tell(resp *http.Response, err error, again bool, wait time.Duration) {
	if e.Observer == nil {
		return
	}
	t := Try{Key: e.key, Number: e.tries, Err: err, Again: again, Wait: wait}
	if resp != nil {
		t.Status = resp.StatusCode
	}
	defer func() { _ = recover() }() // it would lose the answer, and leave its body open
	e.Observer(t)
}

const (
	drainBytes = 64 << 10
	drainTime  = time.Second
)

// drop frees the connection of an answer that is not wanted, in the time that the wait
// after it leaves.
func (e *exchange) drop(ctx context.Context, resp *http.Response, end func(), wait time.Duration) {
	if resp == nil {
		return
	}
	within := drainTime
	if e.Timeout > 0 {
		within = min(within, e.left()-wait)
	}
	if deadline, ok := ctx.Deadline(); ok {
		within = min(within, time.Until(deadline)-wait)
	}
	stop := e.Clock.AfterFunc(within, end)
	_, _ = io.CopyN(io.Discard, resp.Body, drainBytes) // what went wrong is dropped with it
	stop()
	_ = resp.Body.Close()
	end()
}

func (e *exchange) wait(ctx context.Context, d time.Duration) error {
	over := make(chan struct{})
	stop := e.Clock.AfterFunc(d, func() { close(over) })
	cancelled := e.request.Cancel //nolint:staticcheck // deprecated, and net/http still obeys it
	select {
	case <-over:
		return nil
	case <-ctx.Done():
	case <-cancelled:
	}
	stop()
	return e.ended(ctx)
}

// ended is how the context or Request.Cancel has ended the request; nil while neither
// has. http.Client sets both for its Timeout, and which comes first is chance.
func (e *exchange) ended(ctx context.Context) error {
	if err := ctxError(ctx); err != nil {
		return err
	}
	select {
	case <-e.request.Cancel: //nolint:staticcheck // deprecated, and net/http still obeys it
	default:
		return nil
	}
	if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) <= 0 {
		return context.DeadlineExceeded
	}
	return errCancel
}
