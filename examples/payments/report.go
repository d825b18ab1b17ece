package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
)

// report is what the clients tell the supervisor, one JSON object a line.
type report struct {
	Counts  map[string]*counts // by route
	Flying  int                // requests under way
	Trouble []string           // what must not happen and did
}

// counts are of one route. Requests is the sum of the seven after it.
type counts struct {
	Requests   int
	Made       int // 201, the payment was made now
	Replayed   int // 201, it had been made before
	Mismatched int // 422
	Unknown    int // 500: held
	NotNow     int // 409, 502, 503
	Lost       int // the network lost the answer
	Unanswered int // no connection, or the server died under it

	Retries  int // of the requests
	Accepted int // payments that are done
	Held     int // payments of which the service does not know whether they were made
}

func newReport() report {
	r := report{Counts: make(map[string]*counts)}
	for _, route := range routes {
		r.Counts[route] = new(counts)
	}
	return r
}

// counters is a report in the making.
type counters struct {
	mu     sync.Mutex
	report report
}

func newCounters() *counters { return &counters{report: newReport()} }

func (c *counters) count(route string, f func(*counts)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(c.report.Counts[route])
}

func (c *counters) fly(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.report.Flying += n
}

// complain notes what must not happen.
func (c *counters) complain(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.report.Trouble) < maxTrouble {
		c.report.Trouble = append(c.report.Trouble, fmt.Sprintf(format, args...))
	}
}

func (c *counters) write(w io.Writer) error {
	c.mu.Lock()
	b, err := json.Marshal(c.report)
	c.mu.Unlock()
	if err != nil {
		return err
	}
	_, err = w.Write(append(b, '\n'))
	return err
}
