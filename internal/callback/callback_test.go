package callback_test

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem/internal/callback"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestRunReturnsWhatFnReturns(t *testing.T) {
	t.Parallel()
	cause := errors.New("no funds")
	for name, c := range map[string]struct {
		result []byte
		err    error
	}{
		"result": {[]byte("ok"), nil},
		"nil":    {nil, nil},
		"empty":  {[]byte{}, nil},
		"error":  {nil, cause},
		"both":   {[]byte("partial"), cause},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result, err := callback.Run(func() ([]byte, error) { return c.result, c.err })
			require.Equal(t, c.result, result)
			require.Equal(t, c.err, err)
			callback.Rethrow(err) // tells of no panic: returns
		})
	}
}

// fn runs in a goroutine of its own: what it does to it ends with it.
func TestRunUsesAGoroutineOfItsOwn(t *testing.T) {
	t.Parallel()
	fnReturned := false
	_, err := callback.Run(func() ([]byte, error) {
		defer func() { fnReturned = true }()
		runtime.Goexit()
		return nil, nil
	})
	require.Error(t, err)
	require.True(t, fnReturned, "Run returned before fn had ended")
}

// A panic goes on in fn's own caller, with the same value.
func TestPanicIsRethrown(t *testing.T) {
	t.Parallel()
	type custom struct{ n int }
	for name, value := range map[string]any{
		"string": "boom",
		"error":  errors.New("boom"),
		"struct": custom{42},
		"typed":  (*custom)(nil),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			result, err := callback.Run(func() ([]byte, error) { panic(value) })
			require.Nil(t, result)
			require.ErrorContains(t, err, fmt.Sprintf("panicked: %v", value))
			require.PanicsWithValue(t, value, func() { callback.Rethrow(err) })
			require.PanicsWithValue(t, value, func() { callback.Rethrow(fmt.Errorf("idem: key abc: %w", err)) },
				"also where the error was wrapped on its way")
		})
	}
}

func TestPanicOfNilIsRethrown(t *testing.T) {
	t.Parallel()
	_, err := callback.Run(func() ([]byte, error) { panic(nil) })
	var again *runtime.PanicNilError
	func() {
		defer func() { again, _ = recover().(*runtime.PanicNilError) }()
		callback.Rethrow(err)
	}()
	require.NotNil(t, again, "panic(nil) is a panic, not a Goexit")
}

// A nil pointer in fn is fn's own fault, not one of the engine's memory map.
func TestNilPointerIsAPanicOfFn(t *testing.T) {
	t.Parallel()
	var p *struct{ n int }
	_, err := callback.Run(func() ([]byte, error) { return make([]byte, p.n), nil })
	var fault *callback.Fault
	require.False(t, errors.As(err, &fault), "%v", err)
	require.Panics(t, func() { callback.Rethrow(err) })
}

// A Goexit (t.FailNow, say) goes on in fn's own caller.
func TestGoexitGoesOn(t *testing.T) {
	t.Parallel()
	_, err := callback.Run(func() ([]byte, error) {
		runtime.Goexit()
		return []byte("unreached"), nil
	})
	require.ErrorContains(t, err, "Goexit")
	ended := make(chan string, 1)
	go func() {
		how := "ended"
		defer func() {
			if v := recover(); v != nil {
				how = fmt.Sprintf("panicked: %v", v)
			}
			ended <- how
		}()
		callback.Rethrow(err)
		how = "went on"
	}()
	require.Equal(t, "ended", <-ended)
}

func TestRethrowOfOtherErrors(t *testing.T) {
	t.Parallel()
	require.NotPanics(t, func() {
		callback.Rethrow(nil)
		callback.Rethrow(errors.New("plain"))
		callback.Rethrow(&callback.Fault{Err: errors.New("address")})
	})
}

// addressed is a value with a method that memory faults have too.
type addressed uintptr

func (a addressed) Addr() uintptr { return uintptr(a) }

func TestPanicWithAnAddressIsTheCallersOwn(t *testing.T) {
	t.Parallel()
	_, err := callback.Run(func() ([]byte, error) { panic(addressed(7)) })
	var fault *callback.Fault
	require.False(t, errors.As(err, &fault), "%v", err)
	require.PanicsWithValue(t, addressed(7), func() { callback.Rethrow(err) })
}
