package faultproxy

import (
	"io"
	"net"
	"sync"
)

// link is a client's connection together with the one to the server behind it. One
// goroutine carries requests, another carries answers.
type link struct {
	*Proxy
	plan           Plan
	client, server net.Conn

	mu       sync.Mutex
	turn     int  // the current turn, from 0
	answered bool // the server has begun to answer it
	begun    bool // the client has sent something
}

// request notes that the client is sending. It returns the turn, and whether this is
// its beginning.
func (l *link) request() (turn int, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case !l.begun:
		l.begun, first = true, true
	case l.answered:
		l.turn, l.answered, first = l.turn+1, false, true
	}
	return l.turn, first
}

// answer is request for the server's side.
func (l *link) answer() (turn int, first bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	first = !l.answered
	l.answered = true
	return l.turn, first
}

const chunk = 32 << 10

// requests carries what the client sends. An end of its stream is passed on as one,
// because the answer may still be on its way.
func (l *link) requests() {
	buf := make([]byte, chunk)
	struck, let := false, 0 // cut this turn, after let bytes
	for {
		n, err := l.client.Read(buf)
		if n > 0 {
			turn, first := l.request()
			if first && turn == l.plan.Turn {
				switch l.plan.Fault {
				case DropRequest:
					l.end(DropRequest)
					return
				case CutRequest:
					struck, let = true, l.plan.Bytes
				case DelayRequest:
					l.strike(DelayRequest)
					l.sleep(l.plan.Delay, nil)
				case Reorder:
					l.strike(Reorder)
					l.sleep(l.plan.Delay, l.overtaken())
				}
			}
			send := buf[:n]
			if struck && let < n {
				send = buf[:let]
			}
			let -= len(send)
			if _, err := l.server.Write(send); err != nil {
				l.close()
				return
			}
			switch {
			case struck && len(send) < n:
				l.end(CutRequest)
				return
			case l.plan.Fault == DropWaiting && turn == l.plan.Turn:
				l.end(DropWaiting)
				return
			}
		}
		if err == io.EOF {
			halfClose(l.server)
			return
		}
		if err != nil {
			l.close()
			return
		}
	}
}

// answers carries what the server sends.
func (l *link) answers() {
	buf := make([]byte, chunk)
	struck, let := false, 0
	for {
		n, err := l.server.Read(buf)
		if n > 0 {
			turn, first := l.answer()
			if first {
				l.pass()
			}
			if first && turn == l.plan.Turn {
				switch l.plan.Fault {
				case DropAnswer:
					l.end(DropAnswer)
					return
				case CutAnswer:
					struck, let = true, l.plan.Bytes
				case DelayAnswer:
					l.strike(DelayAnswer)
					l.sleep(l.plan.Delay, nil)
				}
			}
			send := buf[:n]
			if struck && let < n {
				send = buf[:let]
			}
			let -= len(send)
			if _, err := l.client.Write(send); err != nil {
				l.close()
				return
			}
			if struck && len(send) < n {
				l.end(CutAnswer)
				return
			}
		}
		if err == io.EOF {
			halfClose(l.client)
			return
		}
		if err != nil {
			l.close()
			return
		}
	}
}

// end strikes with f, which ends the link.
func (l *link) end(f Fault) {
	l.strike(f)
	if l.plan.Reset {
		reset(l.client)
		reset(l.server)
	}
	l.close()
}

func (l *link) close() {
	_ = l.client.Close()
	_ = l.server.Close()
}

func halfClose(c net.Conn) {
	if tcp, ok := c.(*net.TCPConn); ok {
		_ = tcp.CloseWrite()
	}
}
