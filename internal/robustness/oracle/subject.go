package oracle

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// KV is the caller's own data inside a same-commit function. Its methods panic with
// the engine's error.
type KV interface {
	// Get returns the value of key, nil if there is none. It may be kept only until the
	// function returns.
	Get(key string) []byte
	// Put sets the value of key.
	Put(key string, value []byte)
}

// Effect is a same-commit function.
type Effect func(KV) ([]byte, error)

// Subject is the store under attack, and the parts of its engine that a Store lacks.
type Subject struct {
	Store    *idem.Store
	Do       func(ctx context.Context, r idem.Request, fn Effect) (result []byte, replayed bool, err error)
	Complete func(ctx context.Context, t idem.Token, fn Effect) error
	Update   func(ctx context.Context, fn func(KV) error) error
	// Own yields every pair of the caller's own data.
	Own func(yield func(key string, value []byte)) error
}

// Doors are what an engine runs in its own commits, in transactions or batches of type T.
type Doors[T any] struct {
	Do       func(context.Context, *idem.Store, idem.Request, func(context.Context, T) ([]byte, error)) ([]byte, bool, error)
	Complete func(context.Context, *idem.Store, idem.Token, func(context.Context, T) ([]byte, error)) error
	Update   func(context.Context, func(T) error) error
	KV       func(T) KV
	Own      func(yield func(key string, value []byte)) error
}

// NewSubject opens a store on b, and closes b where that fails.
func NewSubject[T any](b engine.Backend, o idem.Options, d Doors[T]) (Subject, error) {
	store, err := idem.New(b, o)
	if err != nil {
		return Subject{}, errors.Join(err, b.Close())
	}
	within := func(fn Effect) func(context.Context, T) ([]byte, error) {
		return func(_ context.Context, tx T) ([]byte, error) { return fn(d.KV(tx)) }
	}
	return Subject{
		Store: store,
		Do: func(ctx context.Context, r idem.Request, fn Effect) ([]byte, bool, error) {
			return d.Do(ctx, store, r, within(fn))
		},
		Complete: func(ctx context.Context, t idem.Token, fn Effect) error { return d.Complete(ctx, store, t, within(fn)) },
		Update: func(ctx context.Context, fn func(KV) error) error {
			return d.Update(ctx, func(tx T) error { return fn(d.KV(tx)) })
		},
		Own: d.Own,
	}, nil
}

const (
	entryPrefix   = "entry "
	balancePrefix = "balance "
)

// enter writes op's ledger entry and adds it to its balance.
func enter(kv KV, op *Op) {
	number := func(n int64) []byte { return binary.BigEndian.AppendUint64(nil, uint64(n)) }
	balance := balancePrefix + strconv.FormatInt(op.ID%Accounts, 10)
	sum := int64(0)
	if old := kv.Get(balance); old != nil {
		sum = int64(binary.BigEndian.Uint64(old))
	}
	kv.Put(balance, number(sum+op.Amount))
	kv.Put(entryPrefix+strconv.FormatInt(op.ID, 10), number(op.Amount))
}

// ErrContradiction is wrapped by the errors of Look and Probe when the store
// contradicts itself or what is known, whatever a journal says.
var ErrContradiction = errors.New("the store contradicts itself")

// Look audits the store. Nothing else may use it at the same time.
func Look(ctx context.Context, s Subject, now int64) (*Audit, error) {
	a := &Audit{Began: now, Records: map[string]Record{}, Ledger: map[int64]int64{}, Balances: map[int64]int64{}}
	for r, err := range s.Store.Records(ctx, idem.Filter{}) {
		if err != nil {
			return nil, fmt.Errorf("listing the records, at key %q: %w", r.Key, err)
		}
		listed := RecordOf(r)
		if _, twice := a.Records[r.Key]; twice || listed == nil {
			return nil, fmt.Errorf("%w: the list of records has key %q twice, or empty: %#v", ErrContradiction, r.Key, r)
		}
		a.Records[r.Key] = *listed
	}
	var wrong error
	err := s.Own(func(key string, value []byte) {
		kind, into := entryPrefix, a.Ledger
		if strings.HasPrefix(key, balancePrefix) {
			kind, into = balancePrefix, a.Balances
		}
		id, err := strconv.ParseInt(strings.TrimPrefix(key, kind), 10, 64)
		if err != nil || len(value) != 8 {
			wrong = fmt.Errorf("%w: the ledger has %q = %x", ErrContradiction, key, value)
			return
		}
		into[id] = int64(binary.BigEndian.Uint64(value))
	})
	if err == nil {
		err = wrong
	}
	return a, err
}

// Audit looks at the store, which has just been opened, and records what is there.
func (j *Journal) Audit(ctx context.Context, s Subject) (*Audit, error) {
	a, err := Look(ctx, s, j.clock.Nanos())
	if err != nil {
		return nil, err
	}
	j.add(&Event{Audit: a})
	return a, nil
}

// Probe uses a store whose clock stands still, after Look returned a. It reads and
// claims each record again; the answers must be those of what Look saw. A new claim
// must get a fence above known.
func Probe(ctx context.Context, s *idem.Store, a *Audit, known uint64) error {
	for key, want := range a.Records {
		r, err := s.Get(ctx, key)
		if got := RecordOf(r); err != nil || got == nil || *got != want {
			return fmt.Errorf("%w: key %q is listed as %+v, and read as %+v, %v", ErrContradiction, key, want, got, err)
		}
		c, err := s.Claim(ctx, idem.Request{Key: key})
		code, _ := codeOf(err)
		wanted := map[idem.State]Code{idem.Completed: Completed, idem.Failed: Failed, idem.Held: Held}[want.State]
		if wanted == "" { // free, or of a lease that is over or not
			if err == nil && c.Token.Fence <= known {
				return fmt.Errorf("%w: key %q was claimed with fence %d when %d was known already", ErrContradiction, key, c.Token.Fence, known)
			}
			continue
		}
		if got := RecordOf(c.Record); code != wanted || got == nil || *got != want {
			return fmt.Errorf("%w: key %q is listed as %+v, and a claim gets %v with %+v", ErrContradiction, key, want, err, got)
		}
	}
	c, err := s.Claim(ctx, idem.Request{Key: "a key that nobody used"})
	if err != nil || c.Token.Fence <= known {
		return fmt.Errorf("%w: a new claim got fence %d, %v, when %d was known already", ErrContradiction, c.Token.Fence, err, known)
	}
	return nil
}
