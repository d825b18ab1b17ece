package bolt

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"

	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/diskspace"
	"github.com/idemkv/idem/internal/txbackend"
)

// Backup writes a copy of the store to the new file path, with your own data, as of one
// commit: everything that was answered before Backup was called is in it. Calls go on
// meanwhile, and none waits for it; the store's file may grow by up to the size of the copy,
// because bbolt reuses no page that Backup still has to read. The copy is checked, made
// durable, and only then gets its name. If Backup fails, or ctx ends, it leaves nothing. (A
// process that is killed may leave path.new-….) engine.WithProgress tells how far it is.
//
// To restore, stop the process, put the copy in the store's place, and open it with the
// same Options. What was done after the backup is then unknown to the store, and would run
// again. So the copy has a mark, which its first opening for writing replaces with the time:
// a claim whose Request.IssuedAt is not later gets idem.ErrTooLate if there is no record. A
// snapshot of the volume, or a cp of a stopped store, has no mark: restore those with the
// command idem restore, which adds it.
//
// idem.ErrInvalid is returned when path exists, idem.ErrCorrupt when the store is damaged
// (see Verify), idem.ErrBroken and idem.ErrClosed as by idem.Store. Other errors are ctx's
// or come from the operating system.
func (b *Backend) Backup(ctx context.Context, path string) error {
	if err := b.outside(ctx, "Backup"); err != nil {
		return err
	}
	return b.Visit(ctx, func(ctx context.Context) error {
		if err := b.backup(ctx, path); err != nil {
			return fmt.Errorf("idem: backing up %s to %s: %w", b.engine.path, path, withCause(err))
		}
		return nil
	})
}

func (b *Backend) backup(ctx context.Context, path string) (err error) {
	if b.engine.damage != nil {
		return b.engine.damage
	}
	if err := absent(path); err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.new-%08x", path, rand.Uint32())
	f, err := os.OpenFile(temp, os.O_CREATE|os.O_EXCL|os.O_RDWR, b.engine.opts.FileMode)
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(temp) }()
	if err = b.copyTo(ctx, f); err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if err := markRestored(temp, b.engine.opts); err != nil {
		return err
	}
	if err := errors.Join(ctx.Err(), b.Intact()); err != nil {
		return err
	}
	if err := publish(temp, path, os.Link); err != nil {
		if errors.Is(err, fs.ErrExist) {
			return absent(path)
		}
		return err
	}
	if err := diskspace.SyncDir(filepath.Dir(path)); err != nil {
		return errors.Join(err, os.Remove(path)) // a power cut might take it away later
	}
	return nil
}

// absent returns an error if there is something at path.
func absent(path string) error {
	if path == "" {
		return fmt.Errorf("%w: the path is empty; name a new file", idem.ErrInvalid)
	}
	_, err := os.Lstat(path)
	if err == nil {
		return fmt.Errorf("%w: it exists; name a new file", idem.ErrInvalid)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// copyTo writes the pages of one commit to f and checks what was written.
func (b *Backend) copyTo(ctx context.Context, f *os.File) error {
	progress := engine.Progress(ctx)
	size, err := b.engine.writeTo(ctx, f, progress)
	if err != nil {
		return err
	}
	newest, _, err := readMetas(f)
	if err == nil && newest == nil {
		err = errors.New("what was written cannot be read")
	}
	if err != nil {
		return err
	}
	checking := engine.WithProgress(ctx, func(done, _ int64) { progress(size+min(done, size), 2*size) })
	return b.Whole(checking, &fileView{f: f, meta: newest, name: b.engine.path, still: true})
}

// writeTo writes the pages of one commit to f, which is half of the work. It returns their
// size.
func (e *driver) writeTo(ctx context.Context, f *os.File, progress func(done, total int64)) (size int64, err error) {
	tx, unpin, err := e.pin()
	if err != nil {
		return 0, err
	}
	defer unpin() // also after a panic, or its pages would never be free again
	size = tx.Size()
	written, failed := int64(0), error(nil) // bbolt returns some errors as a text
	_, err = tx.WriteTo(writer(func(p []byte) (n int, err error) {
		if failed = ctx.Err(); failed != nil {
			return 0, failed
		}
		n, failed = f.Write(p)
		written += int64(n)
		progress(written, 2*size)
		return n, failed
	}))
	return size, cmp.Or(failed, err)
}

type writer func(p []byte) (int, error)

func (w writer) Write(p []byte) (int, error) { return w(p) }

// markRestored marks the copy at path, for its next opening.
func markRestored(path string, o Options) error {
	o.MapSize = 0
	db, _, err := openDB(path, o, false)
	if err != nil {
		return err
	}
	return closing(db, db.Update(func(tx *bbolt.Tx) error {
		b := tx.Bucket(buckets[txbackend.Meta])
		if b == nil {
			return errNoBucket
		}
		marked, err := codec.MarkBackup(b.Get([]byte(codec.MetaKey)))
		if err != nil {
			return err
		}
		return b.Put([]byte(codec.MetaKey), marked)
	}))
}
