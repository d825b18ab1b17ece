package idemadmin

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"sync"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

// seenMost is how many keys are remembered by their hash.
const seenMost = 4096

// seen remembers the keys of records that were shown. Without it, each step from a list
// to a record, and on to settling it, would walk over the store to find the hash again.
// What it says is a hint: the fence decides.
type seen struct {
	mu   sync.Mutex
	keys map[string]string // by hash
	ring [seenMost]string  // hashes, the oldest next
	next int
}

func (s *seen) add(hash, key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.keys == nil {
		s.keys = make(map[string]string)
	}
	if _, known := s.keys[hash]; !known {
		delete(s.keys, s.ring[s.next])
		s.ring[s.next] = hash
		s.next = (s.next + 1) % seenMost
	}
	s.keys[hash] = key
}

func (s *seen) get(hash string) (key string, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	key, ok = s.keys[hash]
	return key, ok
}

// target names a record in a request.
type target struct {
	hash  string
	fence string // "" if not given; "0" of a record that cannot be read
	after string // where the search goes on
}

// targetOf reads and checks a target.
func targetOf(hash, fence, after string) (t target, err error) {
	if len(hash) != 12 || strings.Trim(hash, "0123456789abcdef") != "" {
		return t, operator.NewProblem(operator.TypeInvalid, "A key hash is 12 hexadecimal digits in lower case.")
	}
	if n, err := strconv.ParseUint(fence, 10, 64); fence != "" && (err != nil || strconv.FormatUint(n, 10) != fence) {
		return t, operator.NewProblem(operator.TypeInvalid, "A fence is a decimal number.")
	}
	return target{hash, fence, after}, nil
}

// is reports whether l has the fence that t names.
func (t target) is(l *idem.Listed) bool {
	if l.Err != nil {
		return t.fence == "0"
	}
	return strconv.FormatUint(l.Fence, 10) == t.fence
}

// found is what a search for a hash came to.
type found struct {
	records []idem.Listed // with the hash; the one with the fence alone, if it was found
	exact   bool          // the fence was given, and records has its record
	next    string        // where the search goes on, sealed; "" if it has ended
}

// sharing is how many records with one hash are shown.
const sharing = 16

// lookup finds the records that t names. It looks at Options.Look records at most.
func (a *admin) lookup(ctx context.Context, t target) (f found, err error) {
	if t.fence != "" && t.after == "" {
		if l, ok, err := a.remembered(ctx, t); ok || err != nil {
			return found{records: []idem.Listed{l}, exact: true}, err
		}
	}
	after, err := a.seal.open(t.after)
	if err != nil {
		return f, err
	}
	l, err := a.store.List(ctx, idem.Filter{KeyHash: t.hash}, idem.Part{After: after, Limit: sharing, Look: a.o.Look})
	if err != nil {
		return f, listErr(err)
	}
	for i := range l.Records {
		a.seen.add(t.hash, l.Records[i].Key)
		if t.fence != "" && t.is(&l.Records[i]) {
			return found{records: l.Records[i : i+1], exact: true}, nil
		}
	}
	return found{records: l.Records, next: a.seal.place(l.Next)}, nil
}

// remembered finds the record without a search, if its key was shown before.
func (a *admin) remembered(ctx context.Context, t target) (l idem.Listed, ok bool, err error) {
	key, ok := a.seen.get(t.hash)
	if !ok {
		return l, false, nil
	}
	rec, err := a.store.Get(ctx, key)
	switch {
	case err == nil:
		l.Record = rec
	case errors.Is(err, idem.ErrBroken), errors.Is(err, idem.ErrClosed): // they may wrap ErrCorrupt
		return l, false, err
	case errors.Is(err, idem.ErrCorrupt), errors.Is(err, idem.ErrVersion):
		l.Record, l.Err = idem.Record{Key: key}, err
	case errors.Is(err, idem.ErrNotFound):
		return l, false, nil
	default:
		return l, false, err
	}
	return l, t.is(&l), nil
}

// byKey finds the record of a key.
func (a *admin) byKey(ctx context.Context, key string) (idem.Listed, error) {
	rec, err := a.store.Get(ctx, key)
	l := idem.Listed{Record: rec}
	if err != nil {
		if p := problemOf(err); p.Type != operator.TypeUnreadable {
			return l, err
		}
		l = idem.Listed{Record: idem.Record{Key: key}, Err: err}
	}
	a.seen.add(a.store.KeyHash(key), key)
	return l, nil
}

// view returns how records are shown, each payload up to limit bytes.
func (a *admin) view(limit int) operator.View {
	v := operator.ViewOf(a.store, a.o.Reveal.operator())
	v.Limit = limit
	return v
}

// show returns l as v shows it.
func show(v operator.View, l idem.Listed) operator.Record {
	if l.Err != nil {
		return v.Unreadable(l.Key, l.Err)
	}
	return v.Record(l.Record)
}

func showAll(v operator.View, ls []idem.Listed) []operator.Record {
	out := make([]operator.Record, 0, len(ls))
	for _, l := range ls {
		out = append(out, show(v, l))
	}
	return out
}

// listErr returns err, from a list whose filter and bounds are known to be right.
func listErr(err error) error {
	if errors.Is(err, idem.ErrInvalid) {
		return operator.NewProblem(operator.TypeNoList, "Find a record by its key, or choose an engine that implements engine.Scanner.")
	}
	return err
}
