package pebble

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/idemkv/idem/internal/txbackend"
)

// fatal collects what Pebble considers fatal. Pebble reports it through Logger.Fatalf,
// which by default ends the process, or only through its event listener. Here it breaks
// the store instead. A commit that returns without an error counts only if nothing
// fatal was reported during it.
type fatal struct {
	mu      sync.Mutex
	cause   error
	heard   chan struct{} // closed with the first cause
	damaged chan struct{} // closed when a background task met damage
	damage  sync.Once
	leaving chan struct{} // closed before the database is closed
	backend *txbackend.Backend

	// pause is called when Pebble cannot read the statistics of a table.
	pause func()
}

// statsPause is how long Pebble waits before it tries again to read the statistics of a
// table.
const statsPause = time.Second

var _ pebble.Logger = (*fatal)(nil)

func newFatal() *fatal {
	f := &fatal{heard: make(chan struct{}), damaged: make(chan struct{}), leaving: make(chan struct{})}
	f.pause = f.untilNextStats
	return f
}

// leave ends all pauses. It is called once, before the database is closed.
func (f *fatal) leave() { close(f.leaving) }

func (f *fatal) untilNextStats() {
	timer := time.NewTimer(statsPause)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-f.leaving:
	}
}

// set records the first cause. Pebble may hold any of its locks when calling it.
func (f *fatal) set(cause error) {
	if f.err() != nil {
		return
	}
	cause = redact(cause)
	f.mu.Lock()
	first := f.cause == nil
	if first {
		f.cause = cause
	}
	backend := f.backend
	f.mu.Unlock()
	if backend != nil {
		_ = backend.Break(cause) // it returns cause
	}
	if first {
		close(f.heard)
	}
}

func (f *fatal) err() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.cause
}

// breaks names the backend to break. A cause reported earlier breaks it now.
func (f *fatal) breaks(b *txbackend.Backend) {
	f.mu.Lock()
	f.backend = b
	cause := f.cause
	f.mu.Unlock()
	if cause != nil {
		_ = b.Break(cause) // it returns cause
	}
}

// Infof implements pebble.Logger.
func (f *fatal) Infof(string, ...any) {}

// Errorf implements pebble.Logger. Whatever matters in it reaches the listener too.
func (f *fatal) Errorf(string, ...any) {}

// Fatalf implements pebble.Logger. It returns, which Pebble does not expect. The store
// is broken before it does, so nothing that follows counts.
func (f *fatal) Fatalf(format string, args ...any) { f.set(fmt.Errorf(format, args...)) }

// listener learns of failed flushes and compactions, which Pebble retries forever
// without telling its writers. A damaged block is not fatal here, as it would be by
// default: the read that met it returns an error, and other keys are not affected. But
// a compaction that meets it never finishes, and some day writers wait for that
// compaction; see driver.await.
func (f *fatal) listener() *pebble.EventListener {
	return &pebble.EventListener{
		BackgroundError: func(err error) {
			if inOneBlock(err) {
				f.damage.Do(func() { close(f.damaged) })
			} else {
				f.set(fmt.Errorf("in the background: %w", err))
			}
			if inTableStats() {
				f.pause()
			}
		},
		DataCorruption: func(pebble.DataCorruptionInfo) {},
	}
}

// inOneBlock reports whether err is about a damaged block of a table. Pebble calls a table
// whose file is gone corrupt too. But then somebody is removing the store, and whatever else
// is still there counts for nothing.
func inOneBlock(err error) bool {
	return err != nil && pebble.IsCorruptionError(err) && !errors.Is(err, fs.ErrNotExist)
}

// inTableStats reports whether it is called by Pebble's job that reads the statistics of
// tables. If that cannot read one, damaged or gone, it tries again at once, and keeps a
// processor busy for as long as the database is open. Pebble calls the listener there
// without any of its locks, unlike elsewhere, so the job can be held up.
func inTableStats() bool {
	var pcs [32]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	for {
		frame, more := frames.Next()
		if strings.HasSuffix(frame.Function, ".collectTableStats") {
			return true
		}
		if !more {
			return false
		}
	}
}
