package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptrace"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem/examples/payments/service"
	"github.com/idemkv/idem/idemhttp"
)

// network is the way from the clients to the service, and a bad one: it loses answers,
// and leads nowhere while the server is dead.
type network struct {
	server atomic.Pointer[string] // its address, another one after each restart
	base   *http.Transport
	tally  *tally
	flying atomic.Int64 // requests under way
}

func newNetwork(t *tally) *network {
	n := &network{tally: t}
	n.base = &http.Transport{
		MaxIdleConnsPerHost: 200,
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, *n.server.Load())
		},
	}
	return n
}

func (n *network) leadTo(address string) { n.server.Store(&address) }

// trip is one payment's way over the network, with all its tries.
type trip struct {
	way   string
	lose  bool // the first answer
	tries int
}

type tripKey struct{}

var errLost = errors.New("the network lost the answer")

// RoundTrip implements http.RoundTripper: it is one try.
func (n *network) RoundTrip(r *http.Request) (resp *http.Response, err error) {
	t := r.Context().Value(tripKey{}).(*trip)
	t.tries++
	n.flying.Add(1)
	defer n.flying.Add(-1)
	if t.lose && t.tries == 1 {
		err = n.lose(r)
	} else {
		resp, err = n.base.RoundTrip(r)
	}
	n.tally.count(requests, t.way)
	if t.tries > 1 {
		n.tally.count(retries, t.way)
	}
	n.tally.count(ending(resp, err), t.way)
	return resp, err
}

// CloseIdleConnections is for http.Client.
func (n *network) CloseIdleConnections() { n.base.CloseIdleConnections() }

func ending(resp *http.Response, err error) string {
	switch {
	case errors.Is(err, errLost):
		return lost
	case err != nil:
		return unanswered
	case resp.Header.Get("Idempotent-Replayed") == "true":
		return replayed
	case resp.StatusCode == http.StatusCreated:
		return made
	case resp.StatusCode == http.StatusUnprocessableEntity:
		return mismatched
	case resp.StatusCode == http.StatusInternalServerError:
		return unknown
	}
	return notNow
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

// clients make payments and check the answers.
type clients struct {
	http  *http.Client
	url   string
	tally *tally
}

// newClients makes clients that ask again until they have an answer. All they need for
// that is the Transport. The restarts take milliseconds, so its waits are short.
func newClients(n *network) *clients {
	return &clients{url: "http://service/", tally: n.tally, http: &http.Client{Transport: &idemhttp.Transport{
		Base: n, MaxTries: math.MaxInt, Timeout: -1,
		MinBackoff: 10 * time.Millisecond, MaxBackoff: 300 * time.Millisecond,
	}}}
}

type answer struct {
	status   int
	replayed bool
	body     []byte
	problem  string // its type (RFC 9457)
}

func (a answer) made() bool    { return a.status == http.StatusCreated }
func (a answer) unknown() bool { return a.problem == idemhttp.TypeOutcomeUnknown }

// pay makes p, and returns when there is an answer that will not change.
func (c *clients) pay(ctx context.Context, t *trip, p service.Payment) (a answer, err error) {
	body, err := json.Marshal(p)
	if err != nil {
		return a, err
	}
	ctx = context.WithValue(ctx, tripKey{}, t)
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, c.url+t.way, bytes.NewReader(body))
	if err != nil {
		return a, err
	}
	// A key of the payment's own: a request made tomorrow by another process has the same.
	key, err := idemhttp.FormatKey(clientKey(t.way, p.ID))
	if err != nil {
		return a, err
	}
	req.Header.Set("Idempotency-Key", key)
	resp, err := c.http.Do(req)
	if err != nil {
		return a, err
	}
	defer resp.Body.Close()
	a = answer{status: resp.StatusCode, replayed: resp.Header.Get("Idempotent-Replayed") == "true"}
	if a.body, err = io.ReadAll(resp.Body); err != nil {
		return a, err
	}
	var problem idemhttp.Problem
	if json.Unmarshal(a.body, &problem) == nil {
		a.problem = problem.Type
	}
	return a, nil
}

// behaviour is what clients do with one payment.
type behaviour struct {
	copies  int  // sent at once, with the same key
	lose    bool // the first copy's first answer is lost
	changed bool // later, another amount is sent under the key
	late    bool // later, the payment is sent once more
}

func behave(rng *rand.Rand) behaviour {
	b := behaviour{copies: 1}
	if rng.IntN(100) < 35 {
		b.copies = 2 + rng.IntN(3)
	}
	b.lose, b.changed, b.late = rng.IntN(100) < 25, rng.IntN(100) < 15, rng.IntN(100) < 20
	return b
}

const workers = 32

// sendAll makes every payment in each of the ways, some at once, and returns when all are
// answered or ctx ends. The behaviour is the same for the same seed.
func (c *clients) sendAll(ctx context.Context, all []service.Payment, ways []string, seed uint64) {
	type job struct {
		way string
		service.Payment
		behaviour
	}
	jobs := make(chan job)
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			late := func() {}
			for j := range jobs {
				again := c.send(ctx, j.way, j.Payment, j.behaviour)
				late() // after the next payment, and perhaps a restart of the server
				late = again
			}
			late()
		})
	}
	rng := rand.New(rand.NewPCG(seed, 1))
	for _, p := range all {
		for _, way := range ways {
			jobs <- job{way, p, behave(rng)}
		}
	}
	close(jobs)
	wg.Wait()
	c.http.CloseIdleConnections() // or the server waits a while for those never used
}

// send makes one payment in one way. It returns what to do later.
func (c *clients) send(ctx context.Context, way string, p service.Payment, b behaviour) (late func()) {
	answers := make([]answer, b.copies)
	errs := make([]error, b.copies)
	var wg sync.WaitGroup
	for i := range b.copies {
		wg.Go(func() { answers[i], errs[i] = c.pay(ctx, &trip{way: way, lose: b.lose && i == 0}, p) })
	}
	wg.Wait()
	first, firsts, unsure := answers[0], 0, 0
	for i, a := range answers {
		switch {
		case errs[i] != nil || !a.made() && (way != held || !a.unknown()):
			c.tally.complain("%s: payment %s was refused: %d %s %v", way, p.ID, a.status, a.body, errs[i])
			return func() {}
		case a.unknown():
			unsure++
		case !a.replayed:
			firsts++
		}
		if a.made() && first.made() && !bytes.Equal(a.body, first.body) {
			c.tally.complain("%s: payment %s has two receipts: %s and %s", way, p.ID, first.body, a.body)
		}
	}
	switch {
	case unsure == b.copies:
		c.tally.count(outcomeHeld, way)
		return func() {}
	case unsure > 0:
		c.tally.complain("%s: the service says that payment %s was made, and that it does not know", way, p.ID)
	case firsts > 1:
		c.tally.complain("%s: the service says that it made payment %s %d times", way, p.ID, firsts)
	}
	c.tally.count(accepted, way)
	if b.changed {
		other := p
		other.Cents++
		a, err := c.pay(ctx, &trip{way: way}, other)
		if a.problem != idemhttp.TypeMismatch {
			c.tally.complain("%s: another payment under the key of %s was not refused: %d %s %v", way, p.ID, a.status, a.body, err)
		}
	}
	if !b.late {
		return func() {}
	}
	return func() {
		a, err := c.pay(ctx, &trip{way: way}, p)
		if !a.made() || !a.replayed || !bytes.Equal(a.body, first.body) {
			c.tally.complain("%s: payment %s, sent again, got %d %s %v, not its receipt %s", way, p.ID, a.status, a.body, err, first.body)
		}
	}
}
