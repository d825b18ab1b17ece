package main

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"sync"

	pebbledb "github.com/cockroachdb/pebble/v2"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/examples/payments/service"
	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/memory"
	"github.com/idemkv/idem/pebble"
)

// ledger is the service's own, kept where its idempotency records are.
type ledger struct {
	charge service.Ledger
	read   func(context.Context) ([]service.Payment, error) // all lines, in order
}

// opener opens a store and its ledger. Closing the store closes both.
type opener func(engine, path string, o idem.Options) (*idem.Store, ledger, error)

// openStore opens the engine's files at path, which memory ignores.
func openStore(engine, path string, o idem.Options) (*idem.Store, ledger, error) {
	switch engine {
	case "bolt":
		backend, err := bolt.Open(path, bolt.Options{})
		if err != nil {
			return nil, ledger{}, err
		}
		store, err := newStore(backend, o)
		return store, ledger{service.BoltLedger, func(ctx context.Context) ([]service.Payment, error) { return readBolt(ctx, backend) }}, err
	case "pebble":
		backend, err := pebble.Open(path, pebble.Options{})
		if err != nil {
			return nil, ledger{}, err
		}
		store, err := newStore(backend, o)
		return store, ledger{pebbleLedger, func(context.Context) ([]service.Payment, error) { return readPebble(backend) }}, err
	}
	store, err := newStore(memory.New(memory.Options{}), o)
	l := new(memoryLedger)
	return store, ledger{l.charge, l.read}, err
}

func newStore(b engine.Backend, o idem.Options) (*idem.Store, error) {
	store, err := idem.New(b, o)
	if err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return store, nil
}

func readBolt(ctx context.Context, b *bolt.Backend) (lines []service.Payment, err error) {
	err = b.View(ctx, func(_ context.Context, tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte("ledger"))
		if bucket == nil {
			return nil
		}
		return bucket.ForEach(func(_, v []byte) error {
			lines, err = appendLine(lines, v)
			return err
		})
	})
	return lines, err
}

func appendLine(lines []service.Payment, line []byte) ([]service.Payment, error) {
	var p service.Payment
	if err := json.Unmarshal(line, &p); err != nil {
		return nil, fmt.Errorf("line %d of the ledger: %w", len(lines)+1, err)
	}
	return append(lines, p), nil
}

// numbered makes a line of the ledger, and the answer that shows it.
func numbered(p service.Payment, number uint64) (line, answer []byte, err error) {
	p.Number = number
	if line, err = json.Marshal(p); err != nil {
		return nil, nil, err
	}
	answer, err = paid(line)
	return line, answer, err
}

// paid is the answer with a receipt, as idemhttp stores and replays it.
func paid(receipt []byte) ([]byte, error) {
	return idemhttp.Answer{Status: http.StatusCreated, Body: receipt}.MarshalBinary()
}

// The pebble ledger has keys of its own: the lines, and the number of the last one.
const (
	linePrefix = "ledger/"
	lineEnd    = "ledger0" // the slash plus one
	lastLine   = "ledger.last"
)

func pebbleLedger(ctx context.Context, store *idem.Store, t idem.Token, p service.Payment) error {
	return pebble.Complete(ctx, store, t, func(_ context.Context, b *pebbledb.Batch) ([]byte, error) {
		// The batch shows what earlier payments of the same commit wrote.
		number := uint64(1)
		switch last, closer, err := b.Get([]byte(lastLine)); {
		case err == nil:
			number += binary.BigEndian.Uint64(last)
			if err := closer.Close(); err != nil {
				return nil, err
			}
		case !errors.Is(err, pebbledb.ErrNotFound):
			return nil, err
		}
		line, answer, err := numbered(p, number)
		if err != nil {
			return nil, err
		}
		return answer, errors.Join(
			b.Set([]byte(lastLine), binary.BigEndian.AppendUint64(nil, number), nil),
			b.Set(binary.BigEndian.AppendUint64([]byte(linePrefix), number), line, nil))
	})
}

func readPebble(b *pebble.Backend) (lines []service.Payment, err error) {
	it, err := b.DB().NewIter(&pebbledb.IterOptions{LowerBound: []byte(linePrefix), UpperBound: []byte(lineEnd)})
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		lines, err = appendLine(lines, it.Value())
	}
	return lines, errors.Join(err, it.Close())
}

// memoryLedger is gone with its process, like the records, and needs no common commit.
type memoryLedger struct {
	mu    sync.Mutex
	lines []service.Payment
}

func (l *memoryLedger) charge(ctx context.Context, store *idem.Store, t idem.Token, p service.Payment) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	p.Number = uint64(len(l.lines) + 1)
	_, answer, err := numbered(p, p.Number)
	if err != nil {
		return err
	}
	if err := store.Complete(ctx, t, answer); err != nil {
		return err
	}
	l.lines = append(l.lines, p)
	return nil
}

func (l *memoryLedger) read(context.Context) ([]service.Payment, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clone(l.lines), nil
}
