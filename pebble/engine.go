package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
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

// reserved begins every key of the store; see docs/FORMAT.md. The next byte names the
// space.
const reserved = "idem\x00"

var spaces = [...]byte{txbackend.Records: 'r', txbackend.Expiry: 'x', txbackend.Meta: 'm'}

// scanBytes ends a page of a scan early, before it has the number of pairs asked for.
const scanBytes = 4 << 20

// closeBound is how long a broken Pebble may take to close. After a failed write it
// never does.
const closeBound = 500 * time.Millisecond

// damagedBound is how long a commit may take once damage has been found. Pebble would
// wait forever for compactions that cannot be done.
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
	ending   bool           // no more readers are kept
	soon     sync.WaitGroup // goroutines of expireSoon

	compactions scheduler

	damagedBound time.Duration // the constant, except in tests
	tableBytes   uint64        // likewise

	// afterCommit is for tests. It runs when a commit is visible but has not returned
	// yet.
	afterCommit atomic.Pointer[func() error]
}

var _ txbackend.Engine = (*driver)(nil)

func (e *driver) Name() string { return e.dir }

// Close waits no longer than closeBound for a Pebble that is or becomes broken. It then
// leaves Pebble behind, still holding the lock of its directory. Nobody else can open
// the files while parts of it still run.
func (e *driver) Close() error {
	done := make(chan error, 1)
	e.fatal.leave()
	go func() {
		e.endReaders()
		err := error(nil)
		if !e.opts.ReadOnly {
			err = e.flush()
		}
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

// flush writes the content of the log into tables. If a log was not closed properly,
// Pebble takes the first damage in it for the end, as a power cut may leave one, and
// would silently drop everything after it. A closed store has nothing in the log to
// lose. After damage, however, flush leaves the log as it is, because Pebble may wait
// for compactions forever.
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

// recovered reports a panic in Pebble, which may go on with half of its work done.
func (e *driver) recovered(done chan<- error) {
	if v := recover(); v != nil {
		err := callback.Caught("panic in Pebble", v)
		e.fatal.set(err)
		done <- err
	}
}

// closeDB closes the database. whole reports whether everything in it that writes has
// ended. If an iterator of DB was left open, Pebble panics at the very end, or returns
// an error of many lines.
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
		fresh, err := e.findAgain(txbackend.Records, []byte(key), err)
		if fresh == nil || err != nil {
			return nil, damaged(err)
		}
		return codec.DecodeRecord(key, fresh)
	}
	whole = true
	if value == nil {
		return nil, nil
	}
	return codec.DecodeRecord(key, value)
}

// findAgain looks a key up with a reader of its own, after one of the pool has failed with
// err. A reader that was used before may step to the key from where it stands, through a
// damaged block that the key is not in.
func (e *driver) findAgain(space txbackend.Space, key []byte, err error) ([]byte, error) {
	if !pebble.IsCorruptionError(err) {
		return nil, err
	}
	r, err := e.openReader()
	if err != nil {
		return nil, err
	}
	defer r.close()
	value, err := r.find(space, key)
	return bytes.Clone(value), err
}

// damaged marks errors of Pebble's own checksums. They concern the keys of one block
// and must not affect the others.
func damaged(err error) error {
	if inOneBlock(err) {
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
		// What was read before the damage is good. The next call meets the damage at
		// once.
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

// Size adds up the files. Pebble's Metrics would tell as well, but it waits while the list
// of files is being written: forever, if that write never returns.
func (e *driver) Size() (n int64, err error) {
	disk := e.opts.fs
	path := disk.PathJoin(e.dir, dbName)
	names, err := disk.List(path)
	for _, name := range names {
		info, err := disk.Stat(disk.PathJoin(path, name))
		switch {
		case err == nil:
			n += info.Size()
		case !errors.Is(err, fs.ErrNotExist): // Pebble removes files
			return 0, err
		}
	}
	return n, err
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

// Moved returns an error, and stops Pebble's writing, if the directory is no longer the
// one that was opened. Another process may open what is there now, or create a store,
// and grant the same keys.
func (e *driver) Moved() error {
	err := e.lock.moved()
	if err != nil {
		e.fatal.set(err)
	}
	return err
}

// apply commits batch and closes it on success. It runs in its own goroutine: a Pebble
// that cannot write to its disk waits forever for room in its memtables. That must not
// block the callers, who then learn that the store is broken. The extra goroutine costs
// nothing next to the sync.
func (e *driver) apply(batch *pebble.Batch, sync bool) error {
	done := make(chan error, 1)
	go func() {
		defer e.recovered(done) // Pebble may still hold the batch
		if !sync {
			err := errors.Join(e.db.Apply(batch, pebble.NoSync), batch.Close())
			e.expireReaders()
			done <- err
			return
		}
		// Apply would report a failed sync to the logger, not here.
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

// await waits for Pebble until the store is broken. Once damage has been found, it
// waits no longer than damagedBound.
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
		// Pebble still owns what it was given. Nobody may continue to use it.
		e.fatal.set(fmt.Errorf("%w: Pebble takes no writes: it cannot compact a damaged table; restore %s from a backup", idem.ErrCorrupt, e.dir))
		return e.fatal.err()
	}
}

// tx is one commit in the making. It is one batch, or several where same-commit
// functions have their own; the sync of the last one covers all.
type tx struct {
	e      *driver
	batch  *pebble.Batch
	reader *txbackend.Reader[*reader]
	whole  bool // no panic so far
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
	if t.batch != nil && t.e.fatal.err() == nil { // a broken Pebble may still use it
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
		value, err = t.e.findAgain(space, key, err)
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

// Effect gives fn its own indexed batch. An indexed batch reads the database and itself
// but no other batch. So earlier changes are applied first, unsynced, and the sync of
// the last batch covers them. If fn fails, its batch is dropped.
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

// run runs f with its own batch, and adds what f wrote to the commit. f may do
// something forbidden with its batch. That cannot be prevented, but it is detected and
// affects only f's caller: what is committed with others is another batch.
func (t *tx) run(ctx context.Context, f func(context.Context, *pebble.Batch) ([]byte, error)) ([]byte, error) {
	batch := t.e.db.NewIndexedBatch()
	// While this reference is held, a Close by f does not hand the batch to anyone else.
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
		err = fmt.Errorf("%w: a same-commit function committed or closed its batch, which it must not do: %w", idem.ErrInvalid, misuse)
	}
	if err != nil {
		return nil, err
	}
	return result, nil
}

// misused returns an error if batch can no longer be written to because it was
// committed.
func misused(batch *pebble.Batch) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = fmt.Errorf("%v", v)
		}
	}()
	return batch.LogData(nil, nil)
}

// foreign returns an error if a caller's batch touches the store's keys.
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
