package bench

import (
	"context"
	"errors"
	"fmt"
	"time"

	cdb "github.com/cockroachdb/pebble/v2"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/pebble"
)

// Idem returns idem itself on each of its engines, for one group. f makes the stores
// that are full.
func Idem(group string, f *Filled) (out []Contender) {
	for _, e := range Engines() {
		switch group {
		case GetHit, GetMiss, ClaimReplay:
			out = append(out, lookups(group, e, f)...)
		case CycleMemory, CycleDurable:
			if e.Durable == (group == CycleDurable) {
				out = append(out, Contender{
					Name: IdemPrefix + e.Name, Does: "Claim, Complete" + syncsOf[e.Name],
					Open: opener(e, idem.Options{}, cycle),
				})
			}
		case DoSameCommit:
			out = append(out, effects(e)...)
		case SweepUnloaded:
			out = append(out, Contender{
				Name: IdemPrefix + e.Name, Does: "Store.Sweep of one batch, all of them expired" + syncsOf[e.Name],
				Open: func(dir string, w Workload) (Instance, error) { return openExpired(e, dir, w) },
			})
		}
	}
	return out
}

// What a commit syncs; the bench counts it with strace (the rows of Syncs).
var syncsOf = map[string]string{
	"bolt":   "; a commit is 2 fdatasyncs of the file, shared by all who wait",
	"pebble": "; a commit is 1 fdatasync of the log, shared by all who wait",
	"memory": "; nothing is synced",
}

var errAnswer = errors.New("bench: not the answer that was expected")

// unexpected is an answer that ends a contender.
func unexpected(what string, err error) error {
	if err == nil {
		return fmt.Errorf("%w: %s", errAnswer, what)
	}
	return fmt.Errorf("%w: %s: %w", errAnswer, what, err)
}

// lookups are an engine's stores for Get and for replays: with a cache that has room
// for everything, and without one.
func lookups(group string, e Engine, f *Filled) []Contender {
	open := func(cacheBytes func(Workload) int64, op func(*idem.Store, Workload) func(int, uint64) error) func(string, Workload) (Instance, error) {
		return func(dir string, w Workload) (Instance, error) {
			s, err := f.Open(context.Background(), e, dir, w, idem.Options{CacheBytes: cacheBytes(w)})
			if err != nil {
				return Instance{}, err
			}
			for i := range w.Keys.Len() { // fills the cache
				if _, err := s.Get(context.Background(), w.Keys.Fill(i)); err != nil {
					return Instance{}, errors.Join(unexpected("Get", err), s.Close())
				}
			}
			return Instance{Op: op(s, w), Close: s.Close}, nil
		}
	}
	off := func(Workload) int64 { return -1 }
	op, does := map[string]func(*idem.Store, Workload) func(int, uint64) error{
		GetHit: getHit, GetMiss: getMiss, ClaimReplay: replay,
	}[group], map[string]string{
		GetHit:      "Store.Get of a completed record",
		GetMiss:     "Store.Get of a key that is not there",
		ClaimReplay: "Store.Claim of a completed key: ErrCompleted and the record",
	}[group]
	name := IdemPrefix + e.Name
	if !e.Durable {
		out := []Contender{{Name: name, Does: does, Open: open(off, op)}}
		if group == ClaimReplay { // what a replay is measured by
			out = append(out, Contender{Name: name + "/get", Does: "Store.Get of a completed record", Open: open(off, getHit)})
		}
		return out
	}
	return []Contender{
		{Name: name, Does: does + "; the cache has room for all records", Open: open(cacheFor, op)},
		{Name: name + Uncached, Does: does + "; no cache", Open: open(off, op)},
	}
}

func getHit(s *idem.Store, w Workload) func(int, uint64) error {
	ctx := context.Background()
	return func(worker int, n uint64) error {
		r, err := s.Get(ctx, w.Keys.Hit(worker, n))
		if err != nil || len(r.Result) != w.ResultBytes {
			return unexpected("Get of a stored key", err)
		}
		return nil
	}
}

func getMiss(s *idem.Store, w Workload) func(int, uint64) error {
	ctx := context.Background()
	return func(worker int, n uint64) error {
		if _, err := s.Get(ctx, w.Keys.Miss(worker, n)); err != idem.ErrNotFound {
			return unexpected("Get of a key that is not there", err)
		}
		return nil
	}
}

func replay(s *idem.Store, w Workload) func(int, uint64) error {
	ctx := context.Background()
	return func(worker int, n uint64) error {
		c, err := s.Claim(ctx, idem.Request{Key: w.Keys.Hit(worker, n)})
		if err != idem.ErrCompleted || len(c.Record.Result) != w.ResultBytes {
			return unexpected("Claim of a completed key", err)
		}
		return nil
	}
}

// opener opens an empty store.
func opener(e Engine, o idem.Options, op func(*idem.Store, Workload) func(int, uint64) error) func(string, Workload) (Instance, error) {
	return func(dir string, w Workload) (Instance, error) {
		s, err := OpenStore(e, dir, o)
		if err != nil {
			return Instance{}, err
		}
		return Instance{Op: op(s, w), Close: s.Close}, nil
	}
}

func cycle(s *idem.Store, w Workload) func(int, uint64) error {
	ctx, result := context.Background(), w.Result()
	return func(worker int, n uint64) error {
		c, err := s.Claim(ctx, idem.Request{Key: Fresh(worker, n)})
		if err != nil {
			return unexpected("Claim of a new key", err)
		}
		return s.Complete(ctx, c.Token, result)
	}
}

// effects are an engine's ways to have the caller's own write and the completion
// both on disk: in the same commit, and what the same commit saves.
func effects(e Engine) []Contender {
	if !e.Durable {
		return nil
	}
	name := IdemPrefix + e.Name
	same, own := boltEffect, boltWrite
	if e.Name == "pebble" {
		same, own = pebbleEffect, pebbleWrite
	}
	return []Contender{
		{Name: name, Does: "Do: the claim, a write of the caller's own and the completion in one commit", Open: opener(e, idem.Options{}, same)},
		{Name: name + "/claim-complete", Does: "Claim, Complete; no write of the caller's own", Open: opener(e, idem.Options{}, cycle)},
		{Name: name + "/claim-write-complete", Does: "Claim, the caller's own write by Update, Complete: three commits, and a crash may part them", Open: opener(e, idem.Options{}, own)},
	}
}

var ledger = []byte("ledger")

func putBolt(tx *bbolt.Tx, key string, value []byte) error {
	b, err := tx.CreateBucketIfNotExists(ledger)
	if err != nil {
		return err
	}
	return b.Put([]byte(key), value)
}

func putPebble(batch *cdb.Batch, key string, value []byte) error {
	return batch.Set(append([]byte("ledger/"), key...), value, nil)
}

func boltEffect(s *idem.Store, w Workload) func(int, uint64) error {
	ctx, result := context.Background(), w.Result()
	return func(worker int, n uint64) error {
		key := Fresh(worker, n)
		_, replayed, err := bolt.Do(ctx, s, idem.Request{Key: key}, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
			return result, putBolt(tx, key, result)
		})
		return ran(replayed, err)
	}
}

func pebbleEffect(s *idem.Store, w Workload) func(int, uint64) error {
	ctx, result := context.Background(), w.Result()
	return func(worker int, n uint64) error {
		key := Fresh(worker, n)
		_, replayed, err := pebble.Do(ctx, s, idem.Request{Key: key}, func(_ context.Context, batch *cdb.Batch) ([]byte, error) {
			return result, putPebble(batch, key, result)
		})
		return ran(replayed, err)
	}
}

func ran(replayed bool, err error) error {
	if err != nil || replayed {
		return unexpected("Do of a new key", err)
	}
	return nil
}

func boltWrite(s *idem.Store, w Workload) func(int, uint64) error {
	b := engine.Of(s).(*bolt.Backend)
	return threeCommits(s, w, func(ctx context.Context, key string, result []byte) error {
		return b.Update(ctx, func(tx *bbolt.Tx) error { return putBolt(tx, key, result) })
	})
}

func pebbleWrite(s *idem.Store, w Workload) func(int, uint64) error {
	b := engine.Of(s).(*pebble.Backend)
	return threeCommits(s, w, func(ctx context.Context, key string, result []byte) error {
		return b.Update(ctx, func(batch *cdb.Batch) error { return putPebble(batch, key, result) })
	})
}

func threeCommits(s *idem.Store, w Workload, write func(ctx context.Context, key string, result []byte) error) func(int, uint64) error {
	ctx, result := context.Background(), w.Result()
	return func(worker int, n uint64) error {
		c, err := s.Claim(ctx, idem.Request{Key: Fresh(worker, n)})
		if err != nil {
			return unexpected("Claim of a new key", err)
		}
		if err := write(ctx, c.Token.Key, result); err != nil {
			return err
		}
		return s.Complete(ctx, c.Token, result)
	}
}

// openExpired opens a store on which all keys of w are expired and none is removed.
func openExpired(e Engine, dir string, w Workload) (Instance, error) {
	ctx, clock := context.Background(), newJumpClock()
	s, err := OpenStore(e, dir, idem.Options{
		MaxBatch: fillBatch, SweepInterval: -1, SweepSlice: w.Batch, CacheBytes: -1, Retention: time.Hour, Clock: clock,
	})
	if err != nil {
		return Instance{}, err
	}
	if err := Fill(ctx, s, w, 0, w.Keys.Len(), 0); err != nil {
		return Instance{}, errors.Join(err, s.Close())
	}
	clock.Jump(2 * time.Hour)
	return Instance{
		Op: func(int, uint64) error {
			removed, err := s.Sweep(ctx, w.Batch)
			switch {
			case err != nil:
				return err
			case removed == 0:
				return ErrDone
			}
			return nil
		},
		Close: s.Close,
	}, nil
}
