package main

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync/atomic"
	"time"
)

// network is the way from the clients to the service, and a bad one: it loses answers,
// and leads nowhere while the server is dead. It counts what it carries.
type network struct {
	server atomic.Pointer[string] // its address, which changes when it is restarted
	base   *http.Transport
	counts *counters
}

func newNetwork(c *counters) *network {
	n := &network{counts: c}
	n.base = &http.Transport{
		MaxIdleConnsPerHost: 200,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, *n.server.Load())
		},
	}
	return n
}

// trip is one payment's way over the network, with all its tries.
type trip struct {
	route string
	lose  bool // the first answer
	tries int
}

type tripKey struct{}

func withTrip(ctx context.Context, t *trip) context.Context {
	return context.WithValue(ctx, tripKey{}, t)
}

var errLost = errors.New("the network lost the answer")

// RoundTrip implements http.RoundTripper: one try.
func (n *network) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	t := r.Context().Value(tripKey{}).(*trip)
	t.tries++
	n.counts.fly(1)
	defer n.counts.fly(-1)
	if t.lose && t.tries == 1 {
		err = n.lose(r)
	} else {
		resp, err = n.base.RoundTrip(r)
	}
	n.counts.count(t.route, func(c *counts) {
		c.Requests++
		if t.tries > 1 {
			c.Retries++
		}
		switch {
		case errors.Is(err, errLost):
			c.Lost++
		case err != nil:
			c.Unanswered++
		case resp.StatusCode == http.StatusCreated && resp.Header.Get("Idempotent-Replayed") == "true":
			c.Replayed++
		case resp.StatusCode == http.StatusCreated:
			c.Made++
		case resp.StatusCode == http.StatusUnprocessableEntity:
			c.Mismatched++
		case resp.StatusCode == http.StatusInternalServerError:
			c.Unknown++
		default:
			c.NotNow++
		}
	})
	return resp, err
}

// lose sends the request and breaks the connection soon after it is out: the service
// may be anywhere in its work.
func (n *network) lose(r *http.Request) error {
	ctx, cancel := context.WithCancel(r.Context())
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { time.AfterFunc(rand.N(5*time.Millisecond), cancel) },
	})
	if resp, err := n.base.RoundTrip(r.WithContext(ctx)); err == nil {
		_ = resp.Body.Close()
	}
	return errLost
}

// CloseIdleConnections is for http.Client.
func (n *network) CloseIdleConnections() { n.base.CloseIdleConnections() }
