package faultproxy

import (
	"fmt"
	"math/rand/v2"
	"time"
)

// Fault is something that happens to a turn of a connection.
type Fault int

const (
	// None: the turn passes.
	None Fault = iota
	// Refuse: the connection is closed as soon as it is accepted.
	Refuse
	// DropRequest: the connection is closed instead of forwarding the request.
	DropRequest
	// CutRequest: part of the request is forwarded, then both sides are closed.
	CutRequest
	// DropWaiting: the whole request is forwarded, as far as one read brings it, then
	// both sides are closed while the server is working on it.
	DropWaiting
	// DropAnswer: the request is forwarded. When the answer comes, the connection is
	// closed instead of forwarding it.
	DropAnswer
	// CutAnswer: part of the answer is forwarded, then the connection is closed.
	CutAnswer
	// DelayRequest: the request is held back for some time, and then forwarded even if
	// the client has hung up.
	DelayRequest
	// DelayAnswer: the answer is held back for some time.
	DelayAnswer
	// Reorder: the request is held back until the server has answered another
	// connection, but no longer than a delay.
	Reorder
	faults
)

var faultNames = [faults]string{
	"none", "refused", "request dropped", "request cut", "dropped while waiting",
	"answer dropped", "answer cut", "request delayed", "answer delayed", "reordered",
}

// String returns the fault in words.
func (f Fault) String() string {
	if f >= 0 && f < faults {
		return faultNames[f]
	}
	return fmt.Sprintf("fault(%d)", int(f))
}

// Plan is what happens to one connection.
type Plan struct {
	// Fault strikes once.
	Fault Fault
	// Turn is the turn in which it strikes, from 0.
	Turn int
	// Bytes is how many bytes a cut lets through.
	Bytes int
	// Delay is how long something is held back, at most.
	Delay time.Duration
	// Reset: closing resets the connection, and the peer sees an error instead of an
	// end.
	Reset bool
}

// Odds are the chances of a seeded plan.
type Odds struct {
	// Fault is the share of connections with a fault, from 0 to 1.
	Fault float64
	// Turns: the fault strikes in one of that many first turns. Default 1.
	Turns int
	// MaxBytes bounds what a cut lets through. Default 300.
	MaxBytes int
	// MaxDelay bounds delays. Default 20 ms.
	MaxDelay time.Duration
}

// Seeded returns a plan that is the same for the same seed. Each kind of fault is
// equally likely, on the share of connections that odds say.
func Seeded(seed uint64, odds Odds) func(n int) Plan {
	turns, bytes, delay := max(odds.Turns, 1), odds.MaxBytes, odds.MaxDelay
	if bytes <= 0 {
		bytes = 300
	}
	if delay <= 0 {
		delay = 20 * time.Millisecond
	}
	return func(n int) Plan {
		rng := rand.New(rand.NewPCG(seed, uint64(n)))
		if rng.Float64() >= odds.Fault {
			return Plan{}
		}
		return Plan{
			Fault: Refuse + Fault(rng.IntN(int(faults-Refuse))),
			Turn:  rng.IntN(turns),
			Bytes: rng.IntN(bytes),
			Delay: time.Duration(rng.Int64N(int64(delay))),
			Reset: rng.IntN(2) == 0,
		}
	}
}
