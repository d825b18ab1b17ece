package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// Filled makes stores that are full of a workload's keys. What a durable engine
// holds is made once and copied for each that wants it. Its methods may be called
// at once.
type Filled struct {
	dir  string
	mu   sync.Mutex
	made map[string]string // directory of what was made
}

// NewFilled returns a Filled that keeps what it makes in dir, until Close.
func NewFilled(dir string) (*Filled, error) {
	dir, err := os.MkdirTemp(dir, "filled-")
	return &Filled{dir: dir, made: map[string]string{}}, err
}

// Close removes what was made.
func (f *Filled) Close() error { return os.RemoveAll(f.dir) }

// Open opens a store in dir that holds all keys of w and is settled.
func (f *Filled) Open(ctx context.Context, e Engine, dir string, w Workload, o idem.Options) (*idem.Store, error) {
	if !e.Durable {
		o.MaxBatch = fillBatch
		s, err := OpenStore(e, dir, o)
		if err != nil {
			return nil, err
		}
		if err := Fill(ctx, s, w, 0, w.Keys.Len(), 0); err != nil {
			return nil, errors.Join(err, s.Close())
		}
		return s, nil
	}
	original, err := f.original(ctx, e, w)
	if err != nil {
		return nil, err
	}
	if err := os.CopyFS(dir, os.DirFS(original)); err != nil {
		return nil, err
	}
	return OpenStore(e, dir, o)
}

// original returns the directory of a closed store that holds all keys of w.
func (f *Filled) original(ctx context.Context, e Engine, w Workload) (string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	name := fmt.Sprintf("%s-%d-%d", e.Name, w.Keys.Len(), w.ResultBytes)
	if dir, ok := f.made[name]; ok {
		return dir, nil
	}
	dir := filepath.Join(f.dir, name)
	if err := os.Mkdir(dir, 0o700); err != nil {
		return "", err
	}
	s, err := OpenStore(e, dir, idem.Options{MaxBatch: fillBatch, CacheBytes: -1, SweepInterval: -1})
	if err != nil {
		return "", err
	}
	err = Fill(ctx, s, w, 0, w.Keys.Len(), 0)
	if err == nil && e.Settle != nil {
		err = e.Settle(ctx, engine.Of(s))
	}
	if err := errors.Join(err, s.Close()); err != nil {
		return "", err
	}
	f.made[name] = dir
	return dir, nil
}
