package oracle

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Clock is the machine's wall clock, kept from going back. It gives one reading for
// both wall and elapsed time, which makes times in records exact, and comparable over
// lives and processes.
type Clock struct {
	last  atomic.Int64
	ahead int64
}

// NewClock returns a Clock that starts no earlier than from, in Unix nanoseconds: the
// last time of the life before.
func NewClock(from int64) *Clock {
	c := &Clock{}
	c.last.Store(from)
	return c
}

// NewClockAhead is NewClock for a machine on which the given time has passed in
// addition.
func NewClockAhead(from int64, ahead time.Duration) *Clock {
	c := NewClock(from)
	c.ahead = int64(ahead)
	return c
}

// Nanos returns the time in Unix nanoseconds.
func (c *Clock) Nanos() int64 {
	now := time.Now().UnixNano() + c.ahead
	for {
		last := c.last.Load()
		if now <= last {
			return last
		}
		if c.last.CompareAndSwap(last, now) {
			return now
		}
	}
}

// Now implements idem.Clock.
func (c *Clock) Now() (time.Time, time.Duration) {
	n := c.Nanos()
	return time.Unix(0, n), time.Duration(n)
}

// AfterFunc implements idem.Clock.
func (c *Clock) AfterFunc(d time.Duration, f func()) func() bool {
	return time.AfterFunc(d, f).Stop
}

// Journal records events in order, from many goroutines.
type Journal struct {
	clock *Clock
	mu    sync.Mutex
	w     io.Writer // nil: in memory
	err   error
	kept  []*Event
}

// NewJournal returns a Journal that keeps its events in memory.
func NewJournal(c *Clock) *Journal { return &Journal{clock: c} }

// NewFileJournal returns a Journal that writes each event to w with one call of Write.
// A file opened for appending then outlives the process.
func NewFileJournal(c *Clock, w io.Writer) *Journal { return &Journal{clock: c, w: w} }

// Begin begins a life.
func (j *Journal) Begin(l Life) { j.add(&Event{Life: &l}) }

// Note adds a remark.
func (j *Journal) Note(format string, args ...any) { j.add(&Event{Note: fmt.Sprintf(format, args...)}) }

// add adds e. Its time is taken here: a call's before the call is made, a return's
// after it.
func (j *Journal) add(e *Event) {
	e.T = j.clock.Nanos()
	if j.w == nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.kept = append(j.kept, e)
		return
	}
	b, err := json.Marshal(e)
	if err == nil {
		// No lock: one write to a file opened for appending is atomic.
		_, err = j.w.Write(append(b, '\n'))
	}
	if err != nil {
		j.mu.Lock()
		defer j.mu.Unlock()
		j.err = err
	}
}

// Err returns the first write error.
func (j *Journal) Err() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.err
}

// Len returns the number of events in memory.
func (j *Journal) Len() int {
	j.mu.Lock()
	defer j.mu.Unlock()
	return len(j.kept)
}

// Events returns the events in memory.
func (j *Journal) Events() []*Event {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.kept)
}

// ReadJournal returns the events that a file Journal has written. A last line that a
// kill cut short is not an event: what it would say had not happened yet, or is not
// known to have.
func ReadJournal(b []byte) ([]*Event, error) {
	var events []*Event
	for n := 1; ; n++ {
		line, rest, whole := bytes.Cut(b, []byte("\n"))
		if !whole {
			return events, nil
		}
		e := &Event{}
		if err := json.Unmarshal(line, e); err != nil {
			return nil, fmt.Errorf("line %d of the journal: %w: %q", n, err, line)
		}
		events = append(events, e)
		b = rest
	}
}
