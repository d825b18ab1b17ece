package engine

import (
	"fmt"
	"slices"
)

// State is the stored state of a record. Lapsed and expired are not states: they are
// computed on each read.
type State uint8

// The stored states; idem has the same names for them.
const (
	// InFlight: claimed; the attempt may be running.
	InFlight State = iota + 1
	// Released: the last attempt failed in a way that may be retried.
	Released
	// Held: the outcome is unknown and must be settled by the claim's token.
	Held
	// Completed: done; the result replays.
	Completed
	// Failed: failed for good; the reason replays.
	Failed
)

var stateNames = [...]string{"none", "in_flight", "released", "held", "completed", "failed"}

// String returns the state's name in lower case, "none" for zero.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("state(%d)", uint8(s))
}

// MarshalText returns String's name. ErrInvalid is returned when s is no state; zero,
// "none", stands for no record.
func (s State) MarshalText() ([]byte, error) {
	if int(s) >= len(stateNames) {
		return nil, fmt.Errorf("%w: %v is not a state of a record", ErrInvalid, s)
	}
	return []byte(s.String()), nil
}

// UnmarshalText reads what MarshalText writes. ErrInvalid is returned for anything else;
// s is then unchanged.
func (s *State) UnmarshalText(text []byte) error {
	i := slices.Index(stateNames[:], string(text))
	if i < 0 {
		return fmt.Errorf("%w: %.40q is not a state of a record; they are %q", ErrInvalid, text, stateNames)
	}
	*s = State(i)
	return nil
}

// Final reports whether the state is Completed or Failed.
func (s State) Final() bool { return s == Completed || s == Failed }
