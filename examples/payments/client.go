package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"net/http"
	"time"

	"github.com/idemkv/idem/idemhttp"
)

// client makes payments.
type client struct {
	http *http.Client
	url  string // of the service
}

// newClient makes a client that asks again until it has an answer: all that is needed
// for that is the Transport. network is what it does so over.
func newClient(url string, network http.RoundTripper) *client {
	return &client{url: url, http: &http.Client{Transport: &idemhttp.Transport{
		Base: network,
		// A service that is being restarted is worth waiting for, however often: what
		// bounds it is the context. The restart takes milliseconds, so do the waits.
		MaxTries:   math.MaxInt,
		Timeout:    -1,
		MinBackoff: 10 * time.Millisecond,
		MaxBackoff: 300 * time.Millisecond,
	}}}
}

// answer is what came back for a payment, however often it was sent.
type answer struct {
	status   int
	replayed bool
	body     []byte
}

// pay makes p on a route, and returns when there is an answer that will not change.
func (c *client) pay(ctx context.Context, route string, p payment) (a answer, err error) {
	body, err := json.Marshal(map[string]any{"account": p.Account, "amount_cents": p.Cents})
	if err != nil {
		return a, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+"/"+route, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	// The key is the payment's own, so that a request made tomorrow, from another
	// machine, has the same. Transport makes one up where there is none.
	key, err := idemhttp.FormatKey(clientKey(route, p.Key))
	if err != nil {
		return a, err
	}
	req.Header.Set("Idempotency-Key", key)
	req.Header.Set("Authorization", shopKey)
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a = answer{status: resp.StatusCode, replayed: resp.Header.Get("Idempotent-Replayed") == "true"}
	if a.body, err = io.ReadAll(resp.Body); err == nil && a.status == http.StatusBadRequest {
		err = fmt.Errorf("400: %s", a.body)
	}
	return a, err
}

// made: the money is on its way.
func (a answer) made() bool { return a.status == http.StatusCreated }

// otherPayment: the key was used for another payment.
func (a answer) otherPayment() bool { return a.is(idemhttp.TypeMismatch) }

// unknown: the service does not know whether it was made, and will not guess.
func (a answer) unknown() bool { return a.is(idemhttp.TypeOutcomeUnknown) }

// is tells the type of a problem (RFC 9457).
func (a answer) is(kind string) bool {
	var p idemhttp.Problem
	return json.Unmarshal(a.body, &p) == nil && p.Type == kind
}
