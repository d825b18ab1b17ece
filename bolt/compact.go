package bolt

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/callback"
	"github.com/idemkv/idem/internal/diskspace"
	"github.com/idemkv/idem/internal/txbackend"
)

// Compact rewrites the store's file at path, which nobody has open, without the space that
// removed records have left. A file of bbolt never shrinks by itself; new records take the
// space first. Compact needs room for a second file. That one is checked, made durable, and
// then takes the place of the first; until then nothing has changed, and if Compact fails,
// nothing will have. engine.WithProgress tells how far it is.
//
// Errors are those of Open, and ctx's. A store that does not exist is an error.
func Compact(ctx context.Context, path string, o Options) (err error) {
	return compact(ctx, path, o, rewriteBytes)
}

// compact is Compact. A transaction takes so many bytes.
func compact(ctx context.Context, path string, o Options, bytes int) (err error) {
	if o, err = o.withDefaults(); err != nil {
		return err
	}
	if o.ReadOnly {
		return fmt.Errorf("%w: a store cannot be compacted read-only", idem.ErrInvalid)
	}
	info, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("idem: compacting %s: %w", path, err)
	}
	e, err := open(path, o)
	if err != nil {
		return err
	}
	o.FileMode = info.Mode().Perm()
	if path, err = filepath.EvalSymlinks(path); err == nil { // or the new file would replace the link
		err = e.compact(ctx, path, o, bytes)
	}
	if err = errors.Join(err, e.Close()); err != nil {
		return fmt.Errorf("idem: compacting %s: %w", e.path, withCause(err))
	}
	return nil
}

func (e *driver) compact(ctx context.Context, path string, o Options, bytes int) (err error) {
	temp := fmt.Sprintf("%s.new-%08x", path, rand.Uint32())
	db, err := bbolt.Open(temp, o.FileMode, &bbolt.Options{
		Timeout: o.LockTimeout, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType, NoSync: true, NoGrowSync: true,
	})
	if err != nil {
		return err
	}
	defer func() {
		err = errors.Join(err, db.Close()) // Close does nothing the second time
		_ = os.Remove(temp)                // it has its name by then, or never will
	}()
	if err := sameOwner(temp, e.file); err != nil {
		return err
	}
	if err := os.Chmod(temp, o.FileMode); err != nil { // the umask may have taken from it
		return err
	}
	if err := e.rewrite(ctx, db, bytes); err != nil {
		return err
	}
	if err := db.Sync(); err != nil {
		return err
	}
	if err := checkRewritten(ctx, temp); err != nil {
		return err
	}
	if err := errors.Join(ctx.Err(), e.Moved()); err != nil {
		return err
	}
	// The new file is locked before it gets the name. Whoever was waiting for the lock of the
	// old one finds that its place was taken, and tries again.
	if runtime.GOOS == "windows" { // an open file can be neither renamed nor replaced
		if err := errors.Join(db.Close(), e.db.Close()); err != nil {
			return err
		}
	}
	if err := os.Rename(temp, path); err != nil {
		return err
	}
	return diskspace.SyncDir(filepath.Dir(path))
}

// rewrite copies every bucket to db.
func (e *driver) rewrite(ctx context.Context, db *bbolt.DB, bytes int) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if v := recover(); v != nil { // the file cannot be read
			err = callback.Caught("panic in bbolt", v)
		}
	}()
	return e.db.View(func(from *bbolt.Tx) error {
		c := &rewriter{db: db, most: bytes, progress: engine.Progress(ctx), total: from.Size()}
		if err := c.begin(); err != nil {
			return err
		}
		defer func() { // after Commit it does nothing; db would wait for it when it is closed
			if c.tx != nil {
				_ = c.tx.Rollback()
			}
		}()
		err := from.ForEach(func(name []byte, b *bbolt.Bucket) error {
			if _, err := c.tx.CreateBucket(name); err != nil {
				return err
			}
			return c.bucket(ctx, [][]byte{name}, b)
		})
		if err == nil {
			err = c.tx.Commit()
		}
		if err != nil {
			return err
		}
		c.progress(c.total, c.total)
		return nil
	})
}

// rewriteBytes is how much one transaction of a rewriter takes.
const rewriteBytes = 16 << 20

// rewriteFill is how full the pages are made. Records come in no order, and each that goes
// into a full page splits it.
const rewriteFill = 0.9

// rewriter copies buckets in several transactions.
type rewriter struct {
	db       *bbolt.DB
	tx       *bbolt.Tx
	most     int   // bytes in a transaction
	size     int   // of tx
	done     int64 // bytes copied
	total    int64
	progress func(done, total int64)
}

// at returns the bucket at path in the current transaction.
func (c *rewriter) at(path [][]byte) *bbolt.Bucket {
	b := c.tx.Bucket(path[0])
	for _, name := range path[1:] {
		b = b.Bucket(name)
	}
	b.FillPercent = rewriteFill
	return b
}

// bucket copies from to the empty bucket at path.
func (c *rewriter) bucket(ctx context.Context, path [][]byte, from *bbolt.Bucket) error {
	to := c.at(path)
	if err := to.SetSequence(from.Sequence()); err != nil {
		return err
	}
	return from.ForEach(func(k, v []byte) error {
		if v == nil {
			if _, err := to.CreateBucket(k); err != nil {
				return err
			}
			err := c.bucket(ctx, append(slices.Clip(path), k), from.Bucket(k))
			to = c.at(path) // the transaction may be another one now
			return err
		}
		if err := to.Put(k, v); err != nil {
			return err
		}
		if c.size += len(k) + len(v); c.size < c.most {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := c.next(); err != nil {
			return err
		}
		to = c.at(path)
		return nil
	})
}

func (c *rewriter) begin() (err error) {
	c.tx, err = c.db.Begin(true)
	return err
}

// next commits the transaction and begins another.
func (c *rewriter) next() error {
	if err := c.tx.Commit(); err != nil {
		return err
	}
	c.done += int64(c.size)
	c.size = 0
	c.progress(min(c.done, c.total), c.total)
	return c.begin()
}

// checkRewritten reads the file that Compact has written.
func checkRewritten(ctx context.Context, path string) (err error) {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	newest, _, err := readMetas(f)
	if err == nil && newest == nil {
		err = errors.New("what was written cannot be read")
	}
	if err != nil {
		return err
	}
	damage := error(nil)
	err = (&fileView{f: f, meta: newest, name: path, still: true}).Walk(engine.WithProgress(ctx, nil),
		func(txbackend.Space, []byte, []byte) {},
		func(_ string, err error) { damage = err })
	return errors.Join(err, damage)
}
