package contenders

import (
	"errors"

	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
)

// Badger is configured as its documentation advises for speed, with the one thing
// that it leaves off and a claim needs: SyncWrites. Metrics and compression, which
// cost and help nothing here, are off; and so is the block cache, which without
// compression only stands between a read and the mapped file. The values lie in the
// tree, as is the default for values of this size. Conflict detection has to stay
// on: without it two claims of one key at once would both be granted. Entries carry
// a TTL, which takes the place of idem's expiry index.

func badgerOptions(dir string) badger.Options {
	return badger.DefaultOptions(dir).
		WithLogger(nil).
		WithMetricsEnabled(false).
		WithCompression(options.None).
		WithBlockCacheSize(0).
		WithSyncWrites(true)
}

// inFlight is what rivals without a record of their own store for a claim.
const inFlight = "in flight"

// errNotClaimed is returned by a contender that finds no claim to complete.
var errNotClaimed = errors.New("the claim to be completed is not there")

func openBadger(dir string, _ Workload) (*badger.DB, error) { return badger.Open(badgerOptions(dir)) }

// badgerCycle makes each step a transaction. Badger writes those that wait together,
// and syncs its log for each.
func badgerCycle() Contender {
	return Contender{
		Name: "badger",
		Does: "each step a transaction with a TTL, SyncWrites on: it looks, checks and sets; Badger syncs its logs with msync",
		Open: opened(openBadger, func(db *badger.DB, w Workload) (Instance, error) {
			return claimsAndCompletions(w, db.Close, func(key string) error {
				return db.Update(func(tx *badger.Txn) error { return badgerClaim(tx, []byte(key)) })
			}, func(key string, result []byte) error {
				return db.Update(func(tx *badger.Txn) error { return badgerComplete(tx, []byte(key), result) })
			})
		}),
	}
}

func badgerClaim(tx *badger.Txn, key []byte) error {
	if _, err := tx.Get(key); err == nil {
		return errTaken
	} else if !errors.Is(err, badger.ErrKeyNotFound) {
		return err
	}
	return tx.SetEntry(badger.NewEntry(key, []byte(inFlight)).WithTTL(lease))
}

func badgerComplete(tx *badger.Txn, key, result []byte) error {
	item, err := tx.Get(key)
	if errors.Is(err, badger.ErrKeyNotFound) {
		return errNotClaimed
	} else if err != nil {
		return err
	}
	ours := false
	if err := item.Value(func(v []byte) error { ours = string(v) == inFlight; return nil }); err != nil {
		return err
	}
	if !ours {
		return errNotClaimed
	}
	return tx.SetEntry(badger.NewEntry(key, result).WithTTL(retention))
}

// grouped is a step of a caller that shares a transaction, and its answer.
type grouped struct {
	key    []byte
	result []byte // nil: a claim
	err    error
}

// badgerGrouped is what one can build on Badger to have callers share a sync: one
// transaction for all that wait. It is not what people do, but what Badger can do.
func badgerGrouped() Contender {
	return Contender{
		Name: "badger-grouped",
		Does: "callers share a transaction, SyncWrites on, made by the group commit of the limits, the best that can be built on Badger",
		Open: opened(openBadger, func(db *badger.DB, w Workload) (Instance, error) {
			return groupedCycles(w, func(all *[]*grouped) error {
				err := db.Update(func(tx *badger.Txn) error {
					for _, c := range *all {
						if c.result == nil {
							c.err = badgerClaim(tx, c.key)
						} else {
							c.err = badgerComplete(tx, c.key, c.result)
						}
						if c.err != nil && !errors.Is(c.err, errTaken) && !errors.Is(c.err, errNotClaimed) {
							return c.err
						}
					}
					return nil
				})
				*all = (*all)[:0]
				return err
			}, db.Close)
		}),
	}
}

// groupedCycles is an instance for CycleDurable over a rival whose callers share its
// transactions.
func groupedCycles(w Workload, commit func(*[]*grouped) error, closing func() error) (Instance, error) {
	g := newGroup(func(all *[]*grouped, c *grouped) { *all = append(*all, c) }, commit)
	share := func(key string, result []byte) error {
		c := &grouped{key: []byte(key), result: result}
		return errors.Join(g.do(c), c.err)
	}
	return claimsAndCompletions(w, closing, func(key string) error { return share(key, nil) }, share)
}

// badgerReads looks keys up in a database that was filled in batches and then flushed to
// its tables by closing it.
func badgerReads() Contender {
	return Contender{
		Name: "badger",
		Does: "View and Get of the result, copied out into the caller's buffer",
		Open: opened(fillBadger, func(db *badger.DB, w Workload) (Instance, error) {
			buffers := newBuffers(w)
			return lookups(w, 0, db.Close, func(worker int, key string) (size int, err error) {
				b := &buffers[worker]
				b.key = append(b.key[:0], key...)
				err = db.View(func(tx *badger.Txn) error {
					item, err := tx.Get(b.key)
					if errors.Is(err, badger.ErrKeyNotFound) {
						size = absent
						return nil
					} else if err != nil {
						return err
					}
					b.b, err = item.ValueCopy(b.b[:0])
					size = len(b.b)
					return err
				})
				return size, err
			})
		}),
	}
}

func fillBadger(dir string, w Workload) (*badger.DB, error) {
	db, err := badger.Open(badgerOptions(dir).WithSyncWrites(false))
	if err != nil {
		return nil, err
	}
	batch, result := db.NewWriteBatch(), w.Result()
	for i := 0; i < w.Keys.Len() && err == nil; i++ {
		err = batch.SetEntry(badger.NewEntry([]byte(w.Keys.Fill(i)), result).WithTTL(retention))
	}
	if err == nil {
		err = batch.Flush()
	}
	if err == nil {
		err = db.Flatten(2)
	}
	if err := errors.Join(err, db.Close()); err != nil {
		return nil, err
	}
	return openBadger(dir, w)
}
