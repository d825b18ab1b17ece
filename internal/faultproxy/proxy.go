// Package faultproxy is a bad network for tests: a TCP proxy on the loopback that
// drops, cuts, delays and reorders traffic according to a plan.
//
// It knows nothing of HTTP, only turns. What the client sends until the server answers,
// together with the answer, is one turn. A fault strikes in one turn of a connection,
// and can hit a connection that is kept open in the middle of its life.
package faultproxy

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"time"
)

// Options configures a Proxy.
type Options struct {
	// Target is the address of the server.
	Target string
	// Plan returns what happens to the nth connection, from 0. Default: nothing.
	Plan func(n int) Plan
}

// Proxy forwards connections to a server and carries out the plan on them.
type Proxy struct {
	o        Options
	listener net.Listener
	done     chan struct{} // closed by Close
	wg       sync.WaitGroup

	mu     sync.Mutex
	n      int
	open   map[net.Conn]bool
	counts [faults]int
	passed chan struct{} // closed and replaced whenever the server answers
}

// Listen starts a proxy on a free port of the loopback. Close stops it.
func Listen(o Options) (*Proxy, error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("proxy: %w", err)
	}
	if o.Plan == nil {
		o.Plan = func(int) Plan { return Plan{} }
	}
	p := &Proxy{o: o, listener: listener, done: make(chan struct{}), open: map[net.Conn]bool{}, passed: make(chan struct{})}
	p.wg.Go(p.accept)
	return p, nil
}

// Addr returns the address that clients connect to.
func (p *Proxy) Addr() string { return p.listener.Addr().String() }

// Counts returns how often each fault has struck, by its name, and the number of
// connections under "connections".
func (p *Proxy) Counts() map[string]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	counts := map[string]int{"connections": p.n}
	for f := Refuse; f < faults; f++ {
		counts[f.String()] = p.counts[f]
	}
	return counts
}

// Close ends all connections and waits until no goroutine of the proxy is running.
func (p *Proxy) Close() error {
	p.mu.Lock()
	select {
	case <-p.done:
		p.mu.Unlock()
		p.wg.Wait()
		return nil
	default:
	}
	close(p.done)
	for c := range p.open {
		_ = c.Close()
	}
	p.mu.Unlock()
	err := p.listener.Close()
	p.wg.Wait()
	return err
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			time.Sleep(time.Millisecond) // out of descriptors, perhaps
			continue
		}
		p.mu.Lock()
		n := p.n
		p.n++
		p.mu.Unlock()
		p.wg.Go(func() { p.serve(client, p.o.Plan(n)) })
	}
}

// serve handles one connection until it ends.
func (p *Proxy) serve(client net.Conn, plan Plan) {
	if !p.track(client) {
		return
	}
	defer p.drop(client)
	if plan.Fault == Refuse {
		p.strike(Refuse)
		reset(client)
		return
	}
	server, err := net.DialTimeout("tcp", p.o.Target, 10*time.Second)
	if err != nil || !p.track(server) {
		return
	}
	defer p.drop(server)
	l := &link{Proxy: p, plan: plan, client: client, server: server}
	var both sync.WaitGroup
	both.Go(l.requests)
	l.answers()
	both.Wait()
}

// track makes Close close c. If Close has begun, track closes c itself and returns
// false.
func (p *Proxy) track(c net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	select {
	case <-p.done:
		_ = c.Close()
		return false
	default:
		p.open[c] = true
		return true
	}
}

func (p *Proxy) drop(c net.Conn) {
	_ = c.Close()
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, c)
}

func (p *Proxy) strike(f Fault) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[f]++
}

// pass tells requests that are held back that something has overtaken them.
func (p *Proxy) pass() {
	p.mu.Lock()
	defer p.mu.Unlock()
	close(p.passed)
	p.passed = make(chan struct{})
}

// overtaken returns a channel that is closed when something passes after this call.
func (p *Proxy) overtaken() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.passed
}

// sleep waits for d, or until early or the proxy is closed.
func (p *Proxy) sleep(d time.Duration, early <-chan struct{}) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-early:
	case <-p.done:
	}
}

// reset closes c with a reset: its peer sees an error instead of an end.
func reset(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	_ = c.Close()
}
