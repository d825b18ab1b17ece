package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/idemkv/idem/engine"
)

// The bars are our own. Libraries for them draw at once, most bring a terminal library,
// and none waits a second before it shows itself. This one is a line that is redrawn.
const (
	progressAfter = time.Second
	progressEvery = 200 * time.Millisecond
	barWidth      = 24
)

// progress tells a terminal how far some work is, once it has taken a second. A nil
// *progress tells nobody.
type progress struct {
	to     io.Writer
	what   string
	format func(n int64) string // of done and total
	done   atomic.Int64
	total  atomic.Int64 // 0: unknown

	stop    chan struct{}
	ended   sync.Once
	stopped sync.WaitGroup
}

// progress begins to tell about some work, if a terminal is there to see it. Call end.
func (t *tool) progress(p *progress) *progress {
	if !t.errTerminal {
		return nil
	}
	began := time.Now()
	p.to, p.stop = t.err, make(chan struct{})
	first, every := time.NewTimer(progressAfter), time.NewTicker(progressEvery)
	p.stopped.Go(func() {
		defer first.Stop()
		defer every.Stop()
		p.run(first.C, every.C, func() time.Duration { return time.Since(began) })
	})
	return p
}

// run draws at first and then at every tick, until stop is closed.
func (p *progress) run(first, every <-chan time.Time, elapsed func() time.Duration) {
	select {
	case <-first:
	case <-p.stop:
		return
	}
	for {
		fmt.Fprint(p.to, "\r\x1b[K", p.line(elapsed()))
		select {
		case <-every:
		case <-p.stop:
			fmt.Fprint(p.to, "\r\x1b[K")
			return
		}
	}
}

// line is what the terminal shows.
func (p *progress) line(elapsed time.Duration) string {
	n, total := p.done.Load(), p.total.Load()
	var b strings.Builder
	b.WriteString(p.what)
	if total > 0 {
		n = min(n, total)
		full := int(float64(n) / float64(total) * barWidth)
		fmt.Fprintf(&b, " [%s%s] %d%%", strings.Repeat("#", full), strings.Repeat("-", barWidth-full), int(float64(n)/float64(total)*100))
	}
	if p.format != nil && n > 0 {
		fmt.Fprintf(&b, " %s", p.format(n))
		if total > 0 {
			fmt.Fprintf(&b, " of %s", p.format(total))
		}
	}
	fmt.Fprintf(&b, ", %s", lasting(elapsed.Truncate(time.Second)))
	return b.String()
}

func (p *progress) add(n int64) {
	if p != nil {
		p.done.Add(n)
	}
}

// set says how far the work is, and of how much; 0 if that is unknown.
func (p *progress) set(done, total int64) {
	if p != nil {
		p.done.Store(done)
		p.total.Store(total)
	}
}

// within returns a context in which an engine's call reports to p.
func (p *progress) within(ctx context.Context) context.Context {
	if p == nil {
		return ctx
	}
	return engine.WithProgress(ctx, p.set)
}

// end takes the line away. It may be called again.
func (p *progress) end() {
	if p == nil {
		return
	}
	p.ended.Do(func() { close(p.stop) })
	p.stopped.Wait()
}

// counting reports what is written through it.
type counting struct {
	io.Writer
	p *progress
}

func (c counting) Write(b []byte) (int, error) {
	n, err := c.Writer.Write(b)
	c.p.add(int64(n))
	return n, err
}

// countingFile reports how far a file has been read, and starts over when it is read
// again.
type countingFile struct {
	*os.File
	p *progress
}

func (c countingFile) Read(b []byte) (int, error) {
	n, err := c.File.Read(b)
	c.p.add(int64(n))
	return n, err
}

func (c countingFile) Seek(offset int64, whence int) (int64, error) {
	at, err := c.File.Seek(offset, whence)
	if err == nil && c.p != nil {
		c.p.done.Store(at)
	}
	return at, err
}
