// Package callback runs a caller's function on behalf of another goroutine. The
// goroutine that leads a commit runs the same-commit functions of everyone in it. A
// panic or Goexit in such a function must reach its own caller and nobody else.
package callback

import (
	"errors"
	"fmt"
	"runtime"
	"runtime/debug"
	"strings"
)

// ended is the error of a function that did not return.
type ended struct {
	value any // of the panic; nil: Goexit
}

func (e *ended) Error() string {
	if e.value == nil {
		return "idem: same-commit function called runtime.Goexit"
	}
	return fmt.Sprintf("idem: same-commit function panicked: %v", e.value)
}

// Fault is the error of a function stopped by the engine's fault, not its own: the
// engine's file can no longer be read, or the engine failed.
type Fault struct{ Err error }

func (f *Fault) Error() string { return f.Err.Error() }
func (f *Fault) Unwrap() error { return f.Err }

// caught is a recovered panic.
type caught struct {
	text  string
	stack string
}

// Caught returns a panic's value as an error, with the current stack; call it in a
// deferred function. Error returns one line. The stack is available through errors.As,
// as a method Stack() string.
func Caught(what string, value any) error {
	text := strings.Join(strings.Fields(fmt.Sprint(value)), " ")
	return &caught{text: what + ": " + text, stack: string(debug.Stack())}
}

func (c *caught) Error() string { return c.text }

// Stack returns the stack of the panic.
func (c *caught) Stack() string { return c.stack }

// Run calls fn in a new goroutine and waits for it. If fn panics or calls Goexit, Run
// returns an error that Rethrow turns back into the same. A memory fault becomes a
// *Fault.
//
// While a processor is idle, the goroutine costs about 11 µs: it wakes a thread that
// finds nothing to do. A coroutine of iter.Pull costs 1 µs, but the runtime ends the
// process when a function in one leaves its thread locked.
func Run(fn func() ([]byte, error)) (result []byte, err error) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		returned := false
		defer func() {
			if returned {
				return
			}
			v := recover()
			if f, ok := v.(interface {
				runtime.Error // excludes a caller's own value that has an Addr
				Addr() uintptr
			}); ok {
				err = &Fault{Err: Caught("memory fault", f)}
				return
			}
			result, err = nil, &ended{value: v}
		}()
		debug.SetPanicOnFault(true)
		result, err = fn()
		returned = true
	}()
	<-done
	return result, err
}

// Rethrow repeats in the calling goroutine the panic or Goexit that err stands for. It
// returns if err stands for none.
func Rethrow(err error) {
	var e *ended
	if !errors.As(err, &e) {
		return
	}
	if e.value == nil {
		runtime.Goexit()
	}
	panic(e.value)
}
