package main

import (
	"bytes"
	"context"
	"math/rand/v2"
	"sync"
)

// weather is what happens to one payment on one route.
type weather struct {
	copies  int  // sent at the same time, with the same key
	lose    bool // the first copy's first answer is lost
	changed bool // later, another amount is sent under the key
	late    bool // later, the payment is sent once more
}

func forecast(rng *rand.Rand) weather {
	w := weather{copies: 1}
	if rng.IntN(100) < 35 {
		w.copies = 2 + rng.IntN(3)
	}
	w.lose = rng.IntN(100) < 25
	w.changed = rng.IntN(100) < 15
	w.late = rng.IntN(100) < 20
	return w
}

// traffic is the clients of the service at work.
type traffic struct {
	client *client
	counts *counters
}

// sendAll sends every order to each of the routes, some at once, and returns when all
// are answered or ctx ends. The weather is the same for the same seed.
func (t *traffic) sendAll(ctx context.Context, all []order, routes []string, seed uint64, workers int) {
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
				again := t.send(ctx, j.route, j.order, j.weather)
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

// send sees one order through on one route. It returns what to do later, nil if
// nothing is.
func (t *traffic) send(ctx context.Context, route string, o order, w weather) (late func()) {
	answers := make([]answer, w.copies)
	errs := make([]error, w.copies)
	var wg sync.WaitGroup
	for i := range w.copies {
		wg.Go(func() {
			ctx := withTrip(ctx, &trip{route: route, lose: w.lose && i == 0})
			answers[i], errs[i] = t.client.pay(ctx, route, o.payment)
		})
	}
	wg.Wait()
	made, held := 0, 0
	for i, a := range answers {
		switch {
		case errs[i] != nil:
			t.counts.complain("%s: payment %q was not accepted: %v", route, o.Key, errs[i])
			return nil
		case a.unknown() && route == bankHeld:
			held++
			continue
		case !a.made():
			t.counts.complain("%s: payment %q was refused with %d: %s", route, o.Key, a.status, a.body)
			return nil
		case held == 0 && !bytes.Equal(a.body, answers[0].body):
			t.counts.complain("%s: payment %q has two receipts: %s and %s", route, o.Key, answers[0].body, a.body)
		}
		if !a.replayed {
			made++
		}
	}
	switch {
	case held == w.copies:
		t.counts.count(route, func(n *counts) { n.Held++ })
		return nil
	case held > 0:
		t.counts.complain("%s: payment %q was made, says the service, and does not know it", route, o.Key)
	case made > 1:
		t.counts.complain("%s: payment %q was made %d times, says the service", route, o.Key, made)
	}
	t.counts.count(route, func(n *counts) { n.Accepted++ })

	receipt := answers[0].body
	if w.changed {
		other := o.payment
		other.Cents++
		t.resend(ctx, route, o.payment, other, receipt)
	}
	for _, p := range o.again {
		t.resend(ctx, route, o.payment, p, receipt)
	}
	if !w.late {
		return nil
	}
	return func() { t.resend(ctx, route, o.payment, o.payment, receipt) }
}

// resend sends p under the key of a payment that was accepted with receipt: the
// same payment must replay, another one must be refused.
func (t *traffic) resend(ctx context.Context, route string, accepted, p payment, receipt []byte) {
	a, err := t.client.pay(withTrip(ctx, &trip{route: route}), route, p)
	switch {
	case err != nil:
		t.counts.complain("%s: payment %q, sent again, got no answer: %v", route, p.Key, err)
	case p == accepted && (!a.made() || !a.replayed || !bytes.Equal(a.body, receipt)):
		t.counts.complain("%s: payment %q, sent again, got %d %s in place of its receipt %s", route, p.Key, a.status, a.body, receipt)
	case p != accepted && !a.otherPayment():
		t.counts.complain("%s: another payment under the key %q got %d %s in place of a refusal", route, p.Key, a.status, a.body)
	}
}
