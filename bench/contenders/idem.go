package contenders

import (
	"context"
	"errors"
	"fmt"
	"time"

	cdb "github.com/cockroachdb/pebble/v2"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/pebble"
)

// operation makes an Instance.Op on a store.
type operation func(Store, Workload) func(worker int, n uint64) error

// What a commit syncs. The bench counts it with strace.
var syncsOf = map[string]string{
	"bolt":   "; a commit is 2 fdatasyncs of the file, shared by all who wait",
	"pebble": "; a commit is 1 fdatasync of the log, shared by all who wait",
	"memory": "; nothing is synced",
}

// Idem returns idem itself on each of its engines, for one group.
func Idem(group string) (out []Contender) {
	for _, engine := range Engines {
		durable := engine != "memory"
		add := func(suffix, does string, open func(string, Workload) (Instance, error)) {
			out = append(out, Contender{Name: engine + suffix, Does: does, Open: open})
		}
		switch group {
		case GetHit, GetMiss, ClaimReplay:
			op, does := lookupOf(group)
			if durable {
				add("", does+"; the cache has room for all records", openFilled(engine, true, op))
				add("-uncached", does+"; no cache", openFilled(engine, false, op))
				continue
			}
			add("", does, openFilled(engine, false, op))
			if group == ClaimReplay { // what a replay is measured by
				op, does = lookupOf(GetHit)
				add("-get", does, openFilled(engine, false, op))
			}
		case CycleMemory, CycleDurable:
			if durable == (group == CycleDurable) {
				add("", "Claim, Complete"+syncsOf[engine], openEmpty(engine, Cycle))
			}
		case DoSameCommit:
			if durable {
				add("", "Do: the claim, a write of the caller's own and the completion in one commit", openEmpty(engine, sameCommit))
				add("-claim-complete", "Claim, Complete; no write of the caller's own", openEmpty(engine, Cycle))
				add("-claim-write-complete", "Claim, the caller's own write by Update, Complete: three commits, and a crash may part them",
					openEmpty(engine, threeCommits))
			}
		case SweepUnloaded:
			add("", "Store.Sweep of one batch, all of them expired"+syncsOf[engine],
				func(dir string, w Workload) (Instance, error) { return openExpired(engine, dir, w) })
		}
	}
	return out
}

// unexpected is an answer that ends a contender.
func unexpected(what string, err error) error {
	if err == nil {
		return fmt.Errorf("%s: not the answer that was expected", what)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func openEmpty(engine string, op operation) func(string, Workload) (Instance, error) {
	return func(dir string, w Workload) (Instance, error) {
		s, err := OpenStore(engine, dir, idem.Options{})
		if err != nil {
			return Instance{}, err
		}
		return Instance{Op: op(s, w), Close: s.Close}, nil
	}
}

// openFilled opens a store that holds the keys of w, all of them in its cache if it has
// one.
func openFilled(engine string, cached bool, op operation) func(string, Workload) (Instance, error) {
	return func(dir string, w Workload) (_ Instance, err error) {
		o := idem.Options{CacheBytes: -1, MaxBatch: FillBatch}
		if cached { // whatever its shards are handed
			o.CacheBytes = 2 * int64(w.Keys.Len()+1000) * int64(1024+w.ResultBytes)
		}
		if engine != "memory" {
			if err := w.Filled.Into(dir, engine, w); err != nil {
				return Instance{}, err
			}
			o.MaxBatch = 0
		}
		s, err := OpenStore(engine, dir, o)
		if err != nil {
			return Instance{}, err
		}
		ctx := context.Background()
		if engine == "memory" {
			err = Fill(ctx, s.Store, w, 0, w.Keys.Len(), 0)
		}
		for i := 0; i < w.Keys.Len() && err == nil; i++ { // fills the cache
			_, err = s.Get(ctx, w.Keys.Fill(i))
		}
		if err != nil {
			return Instance{}, errors.Join(err, s.Close())
		}
		return Instance{Op: op(s, w), Close: s.Close}, nil
	}
}

func lookupOf(group string) (operation, string) {
	switch group {
	case GetHit:
		return Hit, "Store.Get of a completed record"
	case GetMiss:
		return Miss, "Store.Get of a key that is not there"
	}
	return replay, "Store.Claim of a completed key: ErrCompleted and the record"
}

// Hit is the operation of GetHit.
func Hit(s Store, w Workload) func(int, uint64) error {
	ctx, store := context.Background(), s.Store
	return func(worker int, n uint64) error {
		r, err := store.Get(ctx, w.Keys.Hit(worker, n))
		if err != nil || len(r.Result) != w.ResultBytes {
			return unexpected("Get of a stored key", err)
		}
		return nil
	}
}

// Miss is the operation of GetMiss.
func Miss(s Store, w Workload) func(int, uint64) error {
	ctx, store := context.Background(), s.Store
	return func(worker int, n uint64) error {
		if _, err := store.Get(ctx, w.Keys.Miss(worker, n)); err != idem.ErrNotFound {
			return unexpected("Get of a key that is not there", err)
		}
		return nil
	}
}

func replay(s Store, w Workload) func(int, uint64) error {
	ctx, store := context.Background(), s.Store
	return func(worker int, n uint64) error {
		c, err := store.Claim(ctx, idem.Request{Key: w.Keys.Hit(worker, n)})
		if err != idem.ErrCompleted || len(c.Record.Result) != w.ResultBytes {
			return unexpected("Claim of a completed key", err)
		}
		return nil
	}
}

// Cycle is the operation of CycleDurable and CycleMemory.
func Cycle(s Store, w Workload) func(int, uint64) error {
	return claimAndComplete(s, w, func(context.Context, string, []byte) error { return nil })
}

// threeCommits commits a claim, a write of the caller's own, and the completion.
func threeCommits(s Store, w Workload) func(int, uint64) error {
	return claimAndComplete(s, w, func(ctx context.Context, key string, result []byte) error {
		if s.Bolt != nil {
			return s.Bolt.Update(ctx, func(tx *bbolt.Tx) error { return putBolt(tx, key, result) })
		}
		return s.Pebble.Update(ctx, func(batch *cdb.Batch) error { return putPebble(batch, key, result) })
	})
}

func claimAndComplete(s Store, w Workload, between func(ctx context.Context, key string, result []byte) error) func(int, uint64) error {
	ctx, result := context.Background(), w.Result()
	return func(worker int, n uint64) error {
		c, err := s.Claim(ctx, idem.Request{Key: Fresh(worker, n)})
		if err != nil {
			return unexpected("Claim of a new key", err)
		}
		if err := between(ctx, c.Token.Key, result); err != nil {
			return err
		}
		return s.Complete(ctx, c.Token, result)
	}
}

func sameCommit(s Store, w Workload) func(int, uint64) error {
	ctx, result := context.Background(), w.Result()
	return func(worker int, n uint64) error {
		key := Fresh(worker, n)
		var replayed bool
		var err error
		if s.Bolt != nil {
			_, replayed, err = bolt.Do(ctx, s.Store, idem.Request{Key: key}, func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
				return result, putBolt(tx, key, result)
			})
		} else {
			_, replayed, err = pebble.Do(ctx, s.Store, idem.Request{Key: key}, func(_ context.Context, batch *cdb.Batch) ([]byte, error) {
				return result, putPebble(batch, key, result)
			})
		}
		if err != nil || replayed {
			return unexpected("Do of a new key", err)
		}
		return nil
	}
}

// ledger is where the caller's own writes go.
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

// openExpired opens a store on which all keys of w have expired and none is removed.
func openExpired(engine, dir string, w Workload) (Instance, error) {
	ctx, clock := context.Background(), NewJumpClock()
	s, err := OpenStore(engine, dir, idem.Options{
		MaxBatch: FillBatch, SweepInterval: -1, SweepSlice: w.Batch, CacheBytes: -1, Retention: time.Hour, Clock: clock,
	})
	if err != nil {
		return Instance{}, err
	}
	if err := Fill(ctx, s.Store, w, 0, w.Keys.Len(), 0); err != nil {
		return Instance{}, errors.Join(err, s.Close())
	}
	clock.Skip(2 * time.Hour)
	return Instance{
		Op: func(int, uint64) error {
			removed, err := s.Sweep(ctx, w.Batch)
			if err == nil && removed == 0 {
				err = ErrDone
			}
			return err
		},
		Close: s.Close,
	}, nil
}
