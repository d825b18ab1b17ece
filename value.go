package idem

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"reflect"
	"strings"

	"github.com/idemkv/idem/internal/jcs"
)

// completeValue completes the claim with value and returns what its duplicates will
// get. With an error it returns value itself.
func completeValue[T any](ctx context.Context, s *Store, t Token, value T) (T, error) {
	var replay T
	var err error
	if p, ok := any(&value).(*[]byte); ok {
		replay, err = value, s.End(ctx, Ending{Token: t, State: Completed, Result: *p})
	} else {
		replay, err = completeJSON(ctx, s, t, value)
	}
	switch err {
	case nil:
		return replay, nil
	case ErrCompleted, ErrFailed: // the work settled it otherwise
		return settledValue(ctx, s, t, value, err)
	}
	return value, err
}

// settledValue returns what duplicates get after the work settled its own claim.
func settledValue[T any](ctx context.Context, s *Store, t Token, value T, refusal error) (T, error) {
	rec, err := s.Get(context.WithoutCancel(ctx), t.Key)
	switch {
	case err != nil || rec.Fence != t.Fence: // it is gone
		return value, refusal
	case rec.State == Failed:
		return value, failedErr(rec)
	}
	return decode[T](s, rec)
}

func completeJSON[T any](ctx context.Context, s *Store, t Token, value T) (T, error) {
	drop := action{kind: actComplete, dropped: true, unlessHeld: true}
	returned := false
	defer func() {
		if !returned { // a method of value called Goexit; the work is done by then
			_ = s.tokenOp(ctx, t, drop)
		}
	}()
	b, replay, cause := roundTrip(value, s.opts.MaxResult)
	returned = true
	if cause == nil {
		return replay, s.End(ctx, Ending{Token: t, State: Completed, Result: b})
	}
	switch err := s.tokenOp(ctx, t, drop); {
	case settledItself(err):
		return value, err
	case err != nil && !errors.Is(err, ErrTooLarge):
		return value, fmt.Errorf("idem: key %s could not be completed: %w; and its value %w", s.KeyHash(t.Key), err, cause)
	}
	return value, &notKeptError{keyHash: s.KeyHash(t.Key), cause: cause}
}

// notKeptError is the first caller's error when JSON does not preserve the value. It
// matches ErrTooLarge, which duplicates get, but does not call the value too large.
type notKeptError struct {
	keyHash string
	cause   error
}

func (e *notKeptError) Error() string {
	return fmt.Sprintf("idem: key %s is completed, but its value %v; it will not replay, and the work must not be run again", e.keyHash, e.cause)
}

func (e *notKeptError) Unwrap() error        { return e.cause }
func (e *notKeptError) Is(target error) bool { return target == ErrTooLarge }

var errChanged = errors.New("decodes from JSON to something else; use a type that JSON keeps, or []byte")

// roundTrip returns value as JSON, and the value decoded from it. JSON longer than
// limit will not be recorded, and is not decoded.
func roundTrip[T any](value T, limit int) (b []byte, replay T, err error) {
	if b, err = encodeJSON(&value); err != nil {
		return nil, replay, fmt.Errorf("cannot be encoded: %w", err)
	}
	if len(b) > limit {
		return b, replay, nil
	}
	if replay, err = decodeJSON[T](b); err != nil {
		return nil, replay, fmt.Errorf("does not decode from its JSON: %w", err)
	}
	again, err := encodeJSON(&replay)
	if err != nil {
		return nil, replay, fmt.Errorf("cannot be encoded once decoded: %w", err)
	}
	if !sameJSON(b, again) {
		return nil, replay, errChanged
	}
	return b, replay, nil
}

// encodeJSON takes a pointer, because a type may implement its encoding on the pointer;
// that is also what decodeJSON fills in. A panic of such a method becomes an error,
// because the work is done.
func encodeJSON[T any](value *T) (b []byte, err error) {
	defer func() {
		if p := recover(); p != nil {
			b, err = nil, fmt.Errorf("encoding panicked: %v", p)
		}
	}()
	return json.Marshal(value)
}

// decodeJSON returns the zero value with an error, never a half-filled one.
func decodeJSON[T any](b []byte) (value T, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("decoding panicked: %v", p)
		}
		if err != nil {
			var zero T
			value = zero
		}
	}()
	if err = json.Unmarshal(b, &value); err != nil {
		err = &decodeError{err}
	}
	return value, err
}

// decodeError says where decoding failed, without cause's text. That text quotes the
// value, in encoding/json and time for instance, and results do not belong in logs.
type decodeError struct{ cause error }

func (e *decodeError) Error() string {
	switch c := e.cause.(type) { //nolint:errorlint // what a decoder wraps is the value's own text
	case *json.UnmarshalTypeError:
		kind, _, _ := strings.Cut(c.Value, " ") // the digits of a number follow
		if c.Field != "" {
			kind += " of field " + c.Field
		}
		return fmt.Sprintf("the %s at byte %d does not fit %v", kind, c.Offset, c.Type)
	case *json.SyntaxError:
		return fmt.Sprintf("it stops being JSON at byte %d", c.Offset)
	}
	return fmt.Sprintf("decoding failed with a %T", e.cause)
}

func (e *decodeError) Unwrap() error { return e.cause }

// decode returns the value of a completed operation.
func decode[T any](s *Store, r Record) (value T, err error) {
	if err := s.droppedErr(r); err != nil {
		return value, err
	}
	if p, ok := any(&value).(*[]byte); ok {
		*p = r.Result
		return value, nil
	}
	if value, err = decodeJSON[T](r.Result); err != nil {
		err = fmt.Errorf("idem: key %s is completed, but its result is not JSON of a %v: %w", s.KeyHash(r.Key), reflect.TypeFor[T](), err)
	}
	return value, err
}

// sameJSON reports whether two texts from encodeJSON mean the same. Their bytes may
// differ: a struct in an any comes back as a map with its names sorted, and a
// json.Number or json.RawMessage as a float64, which writes 1.50 as 1.5.
func sameJSON(a, b []byte) bool {
	if bytes.Equal(a, b) {
		return true
	}
	// The encoder writes invalid UTF-8 as this escape, but a real U+FFFD as the
	// character.
	replaced := []byte(`\ufffd`)
	if bytes.Count(a, replaced) != bytes.Count(b, replaced) {
		return false
	}
	a, errA := jcs.Canonical(a)
	b, errB := jcs.Canonical(b)
	return errA == nil && errB == nil && bytes.Equal(a, b)
}
