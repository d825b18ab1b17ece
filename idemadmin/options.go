package idemadmin

import (
	"fmt"
	"log/slog"
	"net/http"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

// Action is what a request wants to do.
type Action string

// The actions. All but Read change a record.
const (
	// Read looks at the store: its counts, lists and single records.
	Read Action = "read"
	// Complete records an operation as done.
	Complete = Action(operator.Complete)
	// Fail records an operation as failed for good.
	Fail = Action(operator.Fail)
	// Release lets an operation run again.
	Release = Action(operator.Release)
	// Hold records that the outcome is unknown.
	Hold = Action(operator.Hold)
	// Forget removes a record. The operation can then run a second time.
	Forget = Action(operator.Forget)
)

// Reveal says what is shown in the clear.
type Reveal uint8

// What may be revealed. RevealKeys|RevealPayloads reveals both.
const (
	// RevealKeys shows keys, tokens and fingerprints, and allows lists by key prefix.
	RevealKeys Reveal = 1 << iota
	// RevealPayloads shows results, reasons, notes and checkpoints.
	RevealPayloads
)

// Options configures New. Zero fields mean the default named at each; Authorize has
// none.
type Options struct {
	// Authorize returns who makes the request, and whether they may do a. Required. It is
	// called several times per request, to show only the buttons that work, so it must be
	// quick and must not change anything. Changing a record takes a name: without one the
	// request is refused even if ok.
	Authorize func(r *http.Request, a Action) (who string, ok bool)
	// Reveal says what is shown in the clear. Default: neither keys nor payloads.
	Reveal Reveal
	// Logger is told who did what. Default slog.Default().
	Logger *slog.Logger
	// Title names the store on the pages, to tell production from staging. Default
	// "idem".
	Title string
	// PageSize is how many records a page lists. Default 50, at most 200.
	PageSize int
	// Look is how many stored records one answer looks at, at most. Default 100,000,
	// which takes a fraction of a second.
	Look int
}

const (
	defaultTitle    = "idem"
	defaultPageSize = 50
	maxPageSize     = 200
	defaultLook     = 100_000
)

func (o Options) withDefaults() (Options, error) {
	switch {
	case o.Authorize == nil:
		return o, invalid("Options.Authorize is missing; say who may read and who may settle")
	case o.Reveal&^(RevealKeys|RevealPayloads) != 0:
		return o, invalid("Options.Reveal is %d; RevealKeys and RevealPayloads are possible", o.Reveal)
	case o.PageSize < 0 || o.PageSize > maxPageSize:
		return o, invalid("Options.PageSize is %d; 0 is %d, at most %d", o.PageSize, defaultPageSize, maxPageSize)
	case o.Look < 0:
		return o, invalid("Options.Look is %d; it cannot be negative", o.Look)
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	setDefault(&o.Title, defaultTitle)
	setDefault(&o.PageSize, defaultPageSize)
	setDefault(&o.Look, defaultLook)
	return o, nil
}

func (r Reveal) operator() operator.Reveal {
	return operator.Reveal{Keys: r&RevealKeys != 0, Payloads: r&RevealPayloads != 0}
}

func setDefault[T comparable](option *T, value T) {
	var zero T
	if *option == zero {
		*option = value
	}
}

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: idemadmin.New: %s", idem.ErrInvalid, fmt.Sprintf(format, args...))
}
