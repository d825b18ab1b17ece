package main

import (
	"context"
	"iter"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

// source is a store as the commands see it: opened here, or asked of a live service.
type source interface {
	// name is for messages: the path or the URL, without credentials.
	name() string
	// flag is how a command line names it.
	flag() string
	stats(ctx context.Context) (operator.Stats, error)
	// list yields records as they are shown. One that cannot be read has Error set.
	list(ctx context.Context, q query) iter.Seq2[operator.Record, error]
	// find returns the live records that ref stands for, none if there are none.
	find(ctx context.Context, ref reference) ([]found, error)
	// settle carries out what was decided about f, and returns what is there now; nil if
	// nothing is, or if that could not be read. operator.ErrLost is returned, wrapped,
	// when f is no longer as it was found.
	settle(ctx context.Context, f found, a operator.Action, payload []byte) (*operator.Record, error)
	close() error
}

// query selects records.
type query struct {
	state     idem.State
	prefix    string
	hash      string
	unsettled bool
	stuck     bool // only what waits for someone
}

// found is a record that an argument stands for.
type found struct {
	operator.Record
	// as says what the argument was taken for.
	as refKind
	// stale: the argument was a token of an earlier attempt.
	stale bool

	token idem.Token // of a store opened here
}
