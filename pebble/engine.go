package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cockroachdb/pebble/v2"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/callback"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/diskspace"
	"github.com/idemkv/idem/internal/txbackend"
)

// reserved begins every key of the store; docs/FORMAT.md. The byte after it names
// the space.
const reserved = "idem\x00"

var spaces = [...]byte{txbackend.Records: 'r', txbackend.Expiry: 'x', txbackend.Meta: 'm'}

// scanBytes is where a page of a scan ends although it has fewer pairs than asked.
const scanBytes = 4 << 20

// closeBound is how long a broken Pebble is given to close. Where a write has
// failed it never does.
const closeBound = 500 * time.Millisecond

// damagedBound is how long a commit may take once damage is known of: Pebble waits
// without end for compactions that cannot be done.
const damagedBound = 10 * time.Second

// driver is the database under the txbackend.Backend.
type driver struct {
	db    *pebble.DB
	dir   string
	opts  Options
	fatal *fatal
	lock  *dbLock
	files *guardedFS

	readers  txbackend.Readers[*reader]
	expiring sync.Mutex
	ending   bool           // readers are kept no more
	soon     sync.WaitGroup // expireSoon

	compactions scheduler

	damagedBound time.Duration // the constant, but in tests

	// afterCommit is of tests: it runs where a commit can be seen and has not
	// returned yet.
	afterCommit atomic.Pointer[func() error]
}

var _ txbackend.Engine = (*driver)(nil)

func (e *driver) Name() string { return e.dir }

// Close waits no longer than closeBound for a Pebble that is, or comes to be, broken:
// it is left behind with the lock of its directory, so that no other is at the same
// files while parts of it still run.
func (e *driver) Close() error {
	done := make(chan error, 1)
	go func() {
		e.endReaders()
		err := e.flush()
		whole, closeErr := e.closeDB()
		e.soon.Wait()
		if err = errors.Join(err, closeErr); whole {
			err = errors.Join(err, e.lock.Close())
		}
		done <- redact(err)
	}()
	select {
	case err := <-done:
		return err
	case <-e.fatal.heard:
	}
	timer := time.NewTimer(closeBound)
	defer timer.Stop()
	select {
	case err := <-done:
		return errors.Join(e.fatal.err(), err)
	case <-timer.C:
		return fmt.Errorf("%w; it takes a new process to open %s again", e.fatal.err(), e.dir)
	}
}

// flush writes what is in the log into tables. Of a log that was not closed in order
// Pebble takes the first damage for the end, as a power cut may have left it, and what
// lies behind would be gone without a word: a store that was closed has nothing there.
// Beside damage it is left in the log: Pebble may wait for compactions without end.
func (e *driver) flush() error {
	select {
	case <-e.fatal.heard:
		return nil
	case <-e.fatal.damaged:
		return nil
	default:
	}
	done := make(chan error, 1)
	go func() {
		defer e.recovered(done)
		done <- e.db.Flush()
	}()
	return e.await(done)
}

// recovered tells of a panic in Pebble, which may go on with half of its work.
func (e *driver) recovered(done chan<- error) {
	if v := recover(); v != nil {
		err := callback.Caught("panic in Pebble", v)
		e.fatal.set(err)
		done <- err
	}
}

// closeDB closes the database, and reports whether all of it that writes has ended. An
// iterator of DB that was left open makes Pebble panic, or return an error of many lines,
// at the very end.
func (e *driver) closeDB() (whole bool, err error) {
	const open = "iterators, snapshots or values of DB are still open, close them before the store"
	defer func() {
		if v := recover(); v != nil {
			whole = e.files.open.Load() == 0 && e.fatal.err() == nil
			if err = fmt.Errorf("panic in Pebble: %v", v); whole {
				err = fmt.Errorf("%s: %w", open, err)
			}
		}
	}()
	if err = e.db.Close(); err != nil && strings.Contains(err.Error(), "leaked") {
		line, _, _ := strings.Cut(err.Error(), "\n")
		err = fmt.Errorf("%s: %s", open, line)
	}
	return true, err
}

func appendKey[K string | []byte](dst []byte, space txbackend.Space, key K) []byte {
	dst = append(dst, reserved...)
	dst = append(dst, spaces[space])
	return append(dst, key...)
}

func (e *driver) Read(key string) (*engine.Entry, error) {
	r, err := e.readers.Get()
	if err != nil {
		return nil, damaged(err)
	}
	whole := false // not after an error, nor a panic
	defer func() {
		if whole {
			e.readers.Put(r)
		} else {
			e.readers.Drop(r)
		}
	}()
	value, err := r.R.find(txbackend.Records, unsafe.Slice(unsafe.StringData(key), len(key))) // read only
	if err != nil {
		return nil, damaged(err)
	}
	whole = true
	if value == nil {
		return nil, nil
	}
	return codec.DecodeRecord(key, value)
}

// damaged marks errors of Pebble's own checksums: they are about the keys of one
// block, and must not take the others along.
func damaged(err error) error {
	if err != nil && pebble.IsCorruptionError(err) {
		return fmt.Errorf("%w: %w", idem.ErrCorrupt, redact(err))
	}
	return redact(err)
}

func (e *driver) Scan(space txbackend.Space, from, to []byte, limit int) (pairs []txbackend.Pair, err error) {
	lower := appendKey(nil, space, string(from))
	upper := append([]byte(reserved), spaces[space]+1)
	if to != nil {
		upper = appendKey(nil, space, string(to))
	}
	it, err := e.db.NewIter(&pebble.IterOptions{LowerBound: lower, UpperBound: upper})
	if err != nil {
		return nil, err
	}
	defer func() {
		// What was read before the damage is good; the next call meets it at once.
		if err = damaged(errors.Join(err, it.Close())); errors.Is(err, idem.ErrCorrupt) && len(pairs) > 0 {
			err = nil
		}
	}()
	size := 0
	for ok := it.First(); ok && len(pairs) < limit && size < scanBytes; ok = it.Next() {
		value, err := it.ValueAndErr()
		if err != nil {
			return pairs, err
		}
		key := it.Key()[len(reserved)+1:]
		pairs = append(pairs, txbackend.Pair{Key: bytes.Clone(key), Value: bytes.Clone(value)})
		size += len(key) + len(value)
	}
	return pairs, it.Error()
}

func (e *driver) Room() error { return diskspace.Room(e.dir, e.opts.MinFree) }

func (e *driver) Size() (int64, error) {
	return int64(e.db.Metrics().DiskSpaceUsage()), nil
}

func (e *driver) Update(fn func(txbackend.Tx) error) (err error) {
	t := &tx{e: e, batch: e.db.NewBatch()}
	defer func() {
		if closeErr := t.close(); closeErr != nil {
			err = errors.Join(err, closeErr)
		}
	}()
	err = fn(t)
	if t.whole = true; err != nil {
		return err
	}
	if err := e.apply(t.batch, true); err != nil {
		return err
	}
	t.batch = nil
	if after := e.afterCommit.Load(); after != nil {
		return (*after)()
	}
	return nil
}

// Moved returns an error, and ends Pebble's writing, if the directory is not any more
// what was opened: another process may open what is there now, or make a store, and
// grant the same keys.
func (e *driver) Moved() error {
	err := e.lock.moved()
	if err != nil {
		e.fatal.set(err)
	}
	return err
}

// apply commits batch and closes it if that went well. It runs in a goroutine of
// its own, because a Pebble that cannot write to its disk waits for ever for room
// in its memtables: that must not hold the callers, who then hear that the store
// is broken. The hop is nothing beside the sync.
func (e *driver) apply(batch *pebble.Batch, sync bool) error {
	done := make(chan error, 1)
	go func() {
		defer e.recovered(done) // it may still hold the batch
		if !sync {
			err := errors.Join(e.db.Apply(batch, pebble.NoSync), batch.Close())
			e.expireReaders()
			done <- err
			return
		}
		// Apply would report a failed sync to the logger and not to us.
		err := e.db.ApplyNoSyncWait(batch, pebble.Sync)
		if err == nil {
			e.expireReaders() // while the sync is under way
			err = batch.SyncWait()
		}
		if err == nil {
			err = batch.Close()
		}
		done <- err
	}()
	return e.await(done)
}

// await waits for what Pebble does, no longer than until the store is broken. Once damage
// is known of, that is after damagedBound.
func (e *driver) await(done <-chan error) error {
	select {
	case err := <-done:
		return redact(errors.Join(err, e.fatal.err()))
	case <-e.fatal.heard:
		return e.fatal.err()
	case <-e.fatal.damaged:
	}
	timer := time.NewTimer(e.damagedBound)
	defer timer.Stop()
	select {
	case err := <-done:
		return redact(errors.Join(err, e.fatal.err()))
	case <-e.fatal.heard:
		return e.fatal.err()
	case <-timer.C:
		// What was asked for is still Pebble's: nobody is to go on with it.
		e.fatal.set(fmt.Errorf("%w: Pebble takes no writes: it cannot compact a damaged table; restore %s from a backup", idem.ErrCorrupt, e.dir))
		return e.fatal.err()
	}
}

// tx is one commit in the making: a batch, or several where same-commit functions
// each have their own, the last of which is synced for all.
type tx struct {
	e      *driver
	batch  *pebble.Batch
	reader *txbackend.Reader[*reader]
	whole  bool // no panic has been met
}

func (t *tx) close() error {
	var err error
	switch {
	case t.reader == nil:
	case t.whole:
		t.e.readers.Put(t.reader)
	default:
		t.e.readers.Drop(t.reader)
	}
	if t.batch != nil && t.e.fatal.err() == nil { // a broken Pebble may still be at it
		err = errors.Join(err, t.batch.Close())
	}
	return redact(err)
}

func (t *tx) Get(space txbackend.Space, key []byte) (value []byte, err error) {
	if t.reader == nil {
		if t.reader, err = t.e.readers.Get(); err != nil {
			return nil, damaged(err)
		}
	}
	if value, err = t.reader.R.find(space, key); err != nil {
		t.e.readers.Drop(t.reader)
		t.reader = nil
	}
	return value, damaged(err)
}

func (t *tx) Set(space txbackend.Space, key, value []byte) error {
	op := t.batch.SetDeferred(len(reserved)+1+len(key), len(value))
	appendKey(op.Key[:0], space, key)
	copy(op.Value, value)
	return op.Finish()
}

func (t *tx) Delete(space txbackend.Space, key []byte) error {
	op := t.batch.DeleteDeferred(len(reserved) + 1 + len(key))
	appendKey(op.Key[:0], space, key)
	return op.Finish()
}

// Effect gives fn an indexed batch of its own. An indexed batch reads the database
// and itself but no other batch: so what comes before is applied first, unsynced,
// and the sync of the last batch covers it. If fn fails its batch is dropped.
func (t *tx) Effect(ctx context.Context, fn any) (result []byte, spoiled bool, err error) {
	f, ok := fn.(func(context.Context, *pebble.Batch) ([]byte, error))
	if !ok {
		return nil, false, fmt.Errorf("%w: %T is not a same-commit function of the Pebble engine", idem.ErrInvalid, fn)
	}
	if !t.batch.Empty() {
		if err := t.e.apply(t.batch, false); err != nil {
			t.batch = nil
			return nil, false, &callback.Fault{Err: err}
		}
	} else if err := t.batch.Close(); err != nil {
		t.batch = nil
		return nil, false, &callback.Fault{Err: err}
	}
	t.batch = t.e.db.NewBatch()
	result, err = t.run(ctx, f)
	return result, false, err
}

// run runs f with a batch of its own, and adds what f wrote to the commit. f may have
// done with its batch what it must not. That cannot be kept from it, but it is found out:
// it is f's caller's alone, and what is committed with others is another batch.
func (t *tx) run(ctx context.Context, f func(context.Context, *pebble.Batch) ([]byte, error)) ([]byte, error) {
	batch := t.e.db.NewIndexedBatch()
	// As long as it is held, a Close by f does not give it to somebody else to use.
	batch.Ref()
	defer batch.Unref()
	result, err := callback.Run(func() ([]byte, error) { return f(ctx, batch) })
	misuse := misused(batch)
	if err == nil && misuse == nil {
		err = foreign(batch)
	}
	if err == nil && misuse == nil {
		err = t.batch.Apply(batch, nil)
	}
	if closed := batch.Close(); misuse == nil && closed != nil { // f did
		misuse = closed
		_ = t.batch.Close()
		t.batch = t.e.db.NewBatch()
	}
	if err == nil && misuse != nil {
		err = fmt.Errorf("%w: a same-commit function committed or closed its batch, which is not its to do: %w", idem.ErrInvalid, misuse)
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

// misused returns an error if nothing can be written to batch any more, because it was
// committed.
func misused(batch *pebble.Batch) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%v", v)
		}
	}()
	return batch.LogData(nil, nil)
}

// foreign returns an error if a caller's batch touches keys of the store.
func foreign(batch *pebble.Batch) error {
	for r := batch.Reader(); ; {
		kind, key, value, ok, err := r.Next()
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		touches := bytes.HasPrefix(key, []byte(reserved))
		if kind == pebble.InternalKeyKindRangeDelete || kind == pebble.InternalKeyKindRangeKeySet {
			touches = string(key) < reserved+"\xff" && string(value) > reserved
		}
		if touches {
			return fmt.Errorf("%w: a same-commit function wrote to keys that begin with %q, which are the store's", idem.ErrInvalid, reserved)
		}
	}
}
