package pebble

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/txbackend"
)

// Inspect implements txbackend.Inspector.
func (e *driver) Inspect(fn func(txbackend.View) error) error {
	snap := e.db.NewSnapshot()
	v := &view{e: e, snap: snap}
	defer func() {
		v.release()
		_ = snap.Close()
	}()
	return fn(v)
}

// view is a snapshot of the database.
type view struct {
	e     *driver
	snap  *pebble.Snapshot
	value io.Closer // of the last Get
}

var _ txbackend.View = (*view)(nil)

func (v *view) release() {
	if v.value != nil {
		_ = v.value.Close()
		v.value = nil
	}
}

// Get implements txbackend.View.
func (v *view) Get(space txbackend.Space, key []byte) (value []byte, found bool, err error) {
	v.release()
	value, v.value, err = v.snap.Get(appendKey(nil, space, key))
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, false, nil
	}
	return value, err == nil, damaged(err)
}

// Walk implements txbackend.View. It reads the tables block by block, and then all keys.
func (v *view) Walk(ctx context.Context, pair func(space txbackend.Space, key, value []byte), damage func(what string, err error)) error {
	tables, size, err := v.tables()
	if err != nil {
		return damaged(err)
	}
	progress, done, total := engine.Progress(ctx), int64(0), 2*size
	for _, t := range tables {
		if err := ctx.Err(); err != nil {
			return err
		}
		if err := v.checkTable(ctx, t); err != nil {
			damage("table", fmt.Errorf("%w: table %s of %s: %w", idem.ErrCorrupt, t.name, v.e.dir, redact(err)))
		}
		done += t.size
		progress(done, total)
	}
	read := int64(0)
	err = v.keys(ctx, func(key, value []byte) error {
		if before := read; before>>progressShift != (before+int64(len(key)+len(value)))>>progressShift {
			progress(min(done+before, total), total)
		}
		read += int64(len(key) + len(value))
		space, own, err := spaceOf(key)
		switch {
		case err != nil:
			damage("database", fmt.Errorf("%w: %s: %w", idem.ErrCorrupt, v.e.dir, err))
		case own != nil:
			pair(space, own, value)
		}
		return nil
	}, func(key []byte, err error) {
		damage("database", fmt.Errorf("%w: %s: %w", idem.ErrCorrupt, v.e.dir, redact(err)))
	})
	if err != nil {
		return err
	}
	progress(total, total)
	return nil
}

// progressShift is how many bytes are read between two reports of progress, as a power of
// two.
const progressShift = 20

// spaceOf returns the space of a key of the database and the rest of it, nil if the key is
// the caller's own.
func spaceOf(key []byte) (space txbackend.Space, own []byte, err error) {
	if !bytes.HasPrefix(key, []byte(reserved)) {
		return 0, nil, nil
	}
	if len(key) > len(reserved) {
		for i, b := range spaces {
			if b == key[len(reserved)] {
				return txbackend.Space(i), key[len(reserved)+1:], nil
			}
		}
	}
	return 0, nil, errors.New("a key begins like the store's own and is in none of its spaces")
}

// table is a file of the database.
type table struct {
	name string
	size int64
}

// tables returns the tables that are in use, and the size of all.
func (v *view) tables() (list []table, size int64, err error) {
	levels, err := v.e.db.SSTables()
	if err != nil {
		return nil, 0, err
	}
	seen := map[string]bool{}
	for _, level := range levels {
		for i := range level {
			t := table{name: fmt.Sprintf("%s.sst", level[i].BackingSSTNum), size: int64(level[i].Size)}
			if !seen[t.name] {
				seen[t.name] = true
				list = append(list, t)
				size += t.size
			}
		}
	}
	return list, size, nil
}

// checkTable reads each block of a table. A table that is gone because a compaction has
// replaced it is no damage.
func (v *view) checkTable(ctx context.Context, t table) error {
	err := v.readTable(ctx, t.name)
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	now, _, listErr := v.tables()
	if listErr != nil {
		return err
	}
	for _, other := range now {
		if other.name == t.name {
			return err
		}
	}
	return nil
}

func (v *view) readTable(ctx context.Context, name string) (err error) {
	disk := v.e.opts.fs
	f, err := disk.Open(disk.PathJoin(v.e.dir, dbName, name))
	if err != nil {
		return err
	}
	readable, err := sstable.NewSimpleReadable(f)
	if err != nil {
		return errors.Join(err, f.Close())
	}
	po := &pebble.Options{}
	po.EnsureDefaults()
	r, err := sstable.NewReader(ctx, readable, po.MakeReaderOptions())
	if err != nil {
		return errors.Join(err, readable.Close())
	}
	return errors.Join(r.ValidateBlockChecksums(), r.Close())
}

// keys calls pair with each key and its value, in order. A block that is damaged costs the
// keys in it: keys calls damage with the last key before it and goes on behind it.
func (v *view) keys(ctx context.Context, pair func(key, value []byte) error, damage func(last []byte, err error)) error {
	var last []byte
	for from := []byte(nil); ; {
		err := v.keysFrom(ctx, from, &last, pair, damage)
		if err == nil || !pebble.IsCorruptionError(err) {
			return err
		}
		damage(last, err)
		if from = v.behind(last); from == nil {
			return nil
		}
	}
}

func (v *view) keysFrom(ctx context.Context, from []byte, last *[]byte, pair func(key, value []byte) error, damage func(last []byte, err error)) (err error) {
	it, err := v.snap.NewIterWithContext(ctx, &pebble.IterOptions{LowerBound: from})
	if err != nil {
		return err
	}
	defer closeIter(it, &err)
	*last = append((*last)[:0], from...)
	for ok := it.First(); ok; ok = it.Next() {
		if err := ctx.Err(); err != nil {
			return err
		}
		*last = append((*last)[:0], it.Key()...)
		value, err := it.ValueAndErr()
		if err != nil {
			return err
		}
		if err := pair(it.Key(), value); err != nil {
			return err
		}
	}
	return it.Error()
}

// maxSkip is the length of the longest key that behind looks at.
const maxSkip = 1 << 16

// behind returns the first key behind a damaged block that was met right behind last; nil
// if there is none. Pebble does not say where a block ends, but a seek to a key tells
// whether it ends before: it then meets no damage. So behind finds the last key of the block
// byte by byte. (Of two damaged blocks near each other it may find the end of the second.
// What is between them is then read by way of the index alone.)
func (v *view) behind(last []byte) []byte {
	covered := func(key []byte) bool { return bytes.Compare(key, last) <= 0 || v.fails(key) }
	for p := []byte(nil); len(p) < maxSkip; {
		b := 0
		if len(p) < len(last) && bytes.HasPrefix(last, p) {
			b = int(last[len(p)])
		}
		p = append(p, byte(b))
		if !covered(p) {
			return p
		}
		for p[len(p)-1] < 0xff {
			p[len(p)-1]++
			if !covered(p) {
				p[len(p)-1]--
				break
			}
		}
	}
	return nil
}

// fails reports whether looking for key meets damage.
func (v *view) fails(key []byte) bool {
	it, err := v.snap.NewIter(nil)
	if err != nil {
		return true
	}
	defer func() { _ = it.Close() }() // it repeats what Error says
	it.SeekGE(key)
	return it.Error() != nil
}
