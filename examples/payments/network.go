package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"net/http/httptrace"
	"sync"
	"time"
)

// weather is what the network does to one payment on one route.
type weather struct {
	copies  int  // sent at the same time, with the same key
	drop    bool // the first copy's first answer is not waited for
	changed bool // later, another amount is sent under the key
	late    bool // later, the payment is sent once more
}

func forecast(rng *rand.Rand) weather {
	w := weather{copies: 1}
	if rng.IntN(100) < 35 {
		w.copies = 2 + rng.IntN(3)
	}
	w.drop = rng.IntN(100) < 25
	w.changed = rng.IntN(100) < 15
	w.late = rng.IntN(100) < 20
	return w
}

// sendAll sends every order to both routes, some at once, and returns when all
// are accepted or ctx ends. The weather is the same for the same seed.
func (c *client) sendAll(ctx context.Context, all []order, seed uint64, workers int) {
	type job struct {
		order
		route   string
		weather weather
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			var late func()
			for j := range jobs {
				again := c.pay(ctx, j.route, j.order, j.weather)
				if late != nil { // after the next payment, and perhaps another start of the server
					late()
				}
				late = again
			}
			if late != nil {
				late()
			}
		})
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, o := range all {
		for _, route := range routes {
			jobs <- job{o, route, forecast(rng)}
		}
	}
	close(jobs)
	wg.Wait()
}

// pay sees one order through on one route. It returns what to do later, nil if
// nothing is.
func (c *client) pay(ctx context.Context, route string, o order, w weather) (late func()) {
	answers := make([]answer, w.copies)
	errs := make([]error, w.copies)
	var wg sync.WaitGroup
	for i := range w.copies {
		wg.Go(func() { answers[i], errs[i] = c.deliver(ctx, route, o.payment, w.drop && i == 0) })
	}
	wg.Wait()
	made := 0
	for i, a := range answers {
		switch {
		case errs[i] != nil:
			c.complain("%s: payment %q was not accepted: %v", route, o.Key, errs[i])
			return nil
		case a.status != 201:
			c.complain("%s: payment %q was refused with %d: %s", route, o.Key, a.status, a.body)
			return nil
		case !bytes.Equal(a.body, answers[0].body):
			c.complain("%s: payment %q has two receipts: %s and %s", route, o.Key, answers[0].body, a.body)
		}
		if !a.replayed {
			made++
		}
	}
	if made > 1 {
		c.complain("%s: payment %q was made %d times, says the service", route, o.Key, made)
	}
	c.count(route, func(n *counts) { n.Accepted++ })

	first := answers[0].body
	if w.changed {
		other := o.payment
		other.Cents++
		c.resend(ctx, route, o.payment, other, first)
	}
	for _, p := range o.again {
		c.resend(ctx, route, o.payment, p, first)
	}
	if !w.late {
		return nil
	}
	return func() { c.resend(ctx, route, o.payment, o.payment, first) }
}

// resend sends p under the key of a payment that was accepted with receipt: the
// same payment must replay, another one must be refused.
func (c *client) resend(ctx context.Context, route string, accepted, p payment, receipt []byte) {
	a, err := c.deliver(ctx, route, p, false)
	switch {
	case err != nil:
		c.complain("%s: payment %q, sent again, got no answer: %v", route, p.Key, err)
	case p == accepted && (a.status != 201 || !a.replayed || !bytes.Equal(a.body, receipt)):
		c.complain("%s: payment %q, sent again, got %d %s in place of its receipt %s", route, p.Key, a.status, a.body, receipt)
	case p != accepted && a.status != 422:
		c.complain("%s: another payment under the key %q got %d %s in place of a refusal", route, p.Key, a.status, a.body)
	}
}

// sendAndHangUp sends p and closes the connection soon after the request is out,
// without an answer: the service may be anywhere in its work.
func (c *client) sendAndHangUp(ctx context.Context, route string, p payment) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { time.AfterFunc(rand.N(5*time.Millisecond), cancel) },
	})
	_, err := c.exchange(ctx, route, p)
	return err
}
