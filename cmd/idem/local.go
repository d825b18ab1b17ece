package main

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/operator"
	idempebble "github.com/idemkv/idem/pebble"
)

// local is a store that this process has opened.
type local struct {
	path   string
	kind   kind
	engine engine.Backend
	store  *idem.Store
	reveal operator.Reveal
	full   bool // payloads are found whole, however long
}

var _ source = (*local)(nil)

// openLocal opens the store at path, which must be there.
func (t *tool) openLocal(path string, write bool) (*local, error) {
	l, err := t.openEngine(path, write)
	if err != nil {
		return nil, err
	}
	if err := l.bind(t.maxAttempts); err != nil {
		return nil, openError(path, errors.Join(err, l.engine.Close()))
	}
	return l, nil
}

// openEngine opens the engine at path, without a store on it.
func (t *tool) openEngine(path string, write bool) (*local, error) {
	k, err := detect(path)
	if err != nil {
		return nil, err
	}
	if write && k == pebbleKind {
		if err := mayOwn(path); err != nil {
			return nil, err
		}
	}
	l := &local{path: path, kind: k, reveal: t.reveal(), full: t.full}
	p := t.progress(&progress{what: "opening"})
	defer p.end()
	if k == boltKind {
		l.engine, err = opened(bolt.Open(path, bolt.Options{ReadOnly: !write, LockTimeout: t.lockTimeout}))
	} else {
		l.engine, err = opened(idempebble.Open(path, idempebble.Options{ReadOnly: !write, LockTimeout: t.lockTimeout}))
	}
	if err != nil {
		return nil, openError(path, err)
	}
	return l, nil
}

// opened is what an Open returned, as an engine of any kind.
func opened[B engine.Backend](b B, err error) (engine.Backend, error) { return b, err }

// bind makes a store on l's engine.
func (l *local) bind(maxAttempts int) (err error) {
	l.store, err = idem.New(l.engine, idem.Options{
		MaxAttempts:   maxAttempts, // decides what is called exhausted; nothing is claimed here
		MaxResult:     256 << 20,   // what an operator records is never dropped
		CacheBytes:    -1,
		SweepInterval: -1,
	})
	return err
}

// openError turns an error of opening the store at path into one that says what to do on
// a command line.
func openError(path string, err error) error {
	doing := "opening " + path
	if strings.Contains(err.Error(), path) {
		doing = "" // it says so itself
	}
	switch {
	case errors.Is(err, idem.ErrLocked):
		return &failure{
			exitLocked, "opening " + path, &saidAs{"another process has it open, most likely the service that owns it", err},
			"ask that service with -url, or stop it first; -lock-timeout 30s waits for it to end",
		}
	case errors.Is(err, idem.ErrInvalid):
		return &failure{exitNoStore, doing, err, ""}
	}
	code, advice := classify(err)
	return &failure{code, doing, err, advice}
}

// saidAs is an error in other words.
type saidAs struct {
	text string
	err  error
}

func (s *saidAs) Error() string { return s.text }
func (s *saidAs) Unwrap() error { return s.err }

func (l *local) name() string { return l.path }

func (l *local) flag() string { return "-store " + shellWord(l.path) }

func (l *local) close() error {
	err := error(nil)
	if l.store != nil {
		err = l.store.Close()
	} else {
		err = l.engine.Close()
	}
	return failed(err, "closing %s", l.path)
}

// rowLimit bounds the bytes shown of a payload in a list, and most those of one that is
// asked for whole.
const (
	rowLimit = 512
	most     = 1 << 30
)

func (l *local) view(limit int) operator.View {
	v := operator.ViewOf(l.store, l.reveal)
	v.Limit = limit
	return v
}

// wholeView is the view of a record that was asked for by name.
func (l *local) wholeView() operator.View {
	if l.full {
		return l.view(most)
	}
	return l.view(operator.DefaultLimit)
}

func (l *local) stats(ctx context.Context) (operator.Stats, error) {
	st, err := l.store.Stats(ctx)
	if err != nil {
		return operator.Stats{}, failed(err, "counting the records of %s", l.path)
	}
	return operator.StatsOf(st, l.view(rowLimit).Now), nil
}

func (l *local) list(ctx context.Context, q query) iter.Seq2[operator.Record, error] {
	return func(yield func(operator.Record, error) bool) {
		filter := idem.Filter{State: q.state, Prefix: q.prefix, KeyHash: q.hash, Unsettled: q.unsettled}
		for rec, err := range l.store.Records(ctx, filter) {
			var r operator.Record
			switch {
			case err == nil:
				if r = l.view(rowLimit).Record(rec); q.stuck && r.Stuck == nil {
					continue
				}
			case unreadable(err):
				r = l.view(rowLimit).Unreadable(rec.Key, err)
			default:
				yield(r, failed(err, "listing the records of %s", l.path))
				return
			}
			if !yield(r, nil) {
				return
			}
		}
	}
}

func unreadable(err error) bool {
	return errors.Is(err, idem.ErrCorrupt) || errors.Is(err, idem.ErrVersion)
}

func (l *local) find(ctx context.Context, ref reference) ([]found, error) {
	var all []found
	add := func(rec idem.Record, err error, as refKind, fence uint64) error {
		switch {
		case errors.Is(err, idem.ErrNotFound):
		case err == nil:
			all = append(all, found{
				Record: l.wholeView().Record(rec), as: as, stale: fence != 0 && fence != rec.Fence, token: rec.Token(),
			})
		case rec.Key != "" && unreadable(err):
			all = append(all, found{Record: l.wholeView().Unreadable(rec.Key, err), as: as, token: idem.Token{Key: rec.Key}})
		default:
			return failed(err, "looking it up in %s", l.path)
		}
		return nil
	}
	for _, c := range ref.keys() {
		rec, err := l.store.Get(ctx, c.key)
		rec.Key = c.key
		if err := add(rec, err, c.as, c.fence); err != nil {
			return nil, err
		}
	}
	if hash := ref.hash(); hash != "" {
		for rec, err := range l.store.Records(ctx, idem.Filter{KeyHash: hash}) {
			if err := add(rec, err, byHash, 0); err != nil {
				return nil, err
			}
		}
	}
	return all, nil
}

func (l *local) settle(ctx context.Context, f found, a operator.Action, payload []byte) (*operator.Record, error) {
	state, err := operator.ParseState(f.State)
	if err != nil {
		return nil, failed(err, "settling key %s", f.KeyHash)
	}
	err = operator.Settle(ctx, l.store, operator.Order{Token: f.token, Action: a, Payload: payload, State: state})
	var now *operator.Record
	if rec, readErr := l.store.Get(ctx, f.token.Key); readErr == nil {
		r := l.view(rowLimit).Record(rec)
		now = &r
	}
	return now, err
}

// canBackup is what engines on disk offer besides engine.Backend.
type canBackup interface {
	Backup(ctx context.Context, path string) error
}

func (l *local) lacks(what string) error {
	return &failure{code: exitFailed, err: fmt.Errorf("the engine of %s (%s) offers no %s", l.path, l.kind, what)}
}
