package pebble

import (
	"fmt"
	"sync"

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
	backend *txbackend.Backend
}

var _ pebble.Logger = (*fatal)(nil)

func newFatal() *fatal {
	return &fatal{heard: make(chan struct{}), damaged: make(chan struct{})}
}

// set records the first cause. Pebble may hold any of its locks when calling it.
func (f *fatal) set(cause error) {
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
			if pebble.IsCorruptionError(err) {
				f.damage.Do(func() { close(f.damaged) })
				return
			}
			f.set(fmt.Errorf("in the background: %w", err))
		},
		DataCorruption: func(pebble.DataCorruptionInfo) {},
	}
}
