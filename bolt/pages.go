package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/txbackend"
)

// fileView reads a bbolt file through calls, not a map, so nothing in a damaged one can
// fault or end the process. Nobody changes the pages of meta during its life.
type fileView struct {
	f     io.ReaderAt
	meta  *metaPage
	name  string
	still bool // nobody writes to the file at all
}

var _ txbackend.View = (*fileView)(nil)

// Walk implements txbackend.View.
func (v *fileView) Walk(ctx context.Context, pair func(space txbackend.Space, key, value []byte), damaged func(what string, err error)) error {
	page := func(err error) { damaged("page", fmt.Errorf("%w: %s: %w", engine.ErrCorrupt, v.name, err)) }
	if err := v.meta.plausible(); err != nil {
		page(err)
		return nil
	}
	progress, total := engine.Progress(ctx), int64(v.meta.pages*v.meta.pageSize)
	c := newTreeCheck(v.f, v.meta)
	c.report = page
	told := int64(0)
	c.stop = func() error {
		if c.reached-told >= progressPages {
			told = c.reached
			progress(told*int64(v.meta.pageSize), total)
		}
		return ctx.Err()
	}
	c.pair = func(bucket string, key, value []byte) {
		for space, name := range buckets {
			if bucket == string(name) {
				pair(txbackend.Space(space), key, value)
			}
		}
	}
	if err := c.tree(v.meta.root, nil, nil, 0); err != nil {
		return err
	}
	if err := c.freeList(v.meta); err != nil {
		page(err)
	}
	if v.still {
		v.metaPages(page)
	}
	for space := range buckets {
		if _, _, err := v.Get(txbackend.Space(space), []byte{0}); errors.Is(err, errNoBucket) {
			damaged("bucket", err)
		}
	}
	progress(total, total)
	return nil
}

// metaPages calls damaged for each of the two meta pages that cannot be read. One is enough
// to open the file. But each commit writes one of them, in turn, and if that was the other,
// opening goes back to the state before.
func (v *fileView) metaPages(damaged func(error)) {
	for id := range int64(2) {
		var b [metaBytes]byte
		if _, err := v.f.ReadAt(b[:], id*int64(v.meta.pageSize)+pageHeader); err != nil {
			damaged(fmt.Errorf("page %d: %w", id, err))
		} else if decodeMeta(b[:]) == nil {
			damaged(fmt.Errorf("page %d, one of the two meta pages, fails its checksum: the last commit may be missing, unless a power cut came before it was answered", id))
		}
	}
}

// progressPages is how many pages are read between two reports of progress.
const progressPages = 256

// Get implements txbackend.View.
func (v *fileView) Get(space txbackend.Space, key []byte) (value []byte, found bool, err error) {
	err = v.scan(space, key, append(bytes.Clone(key), 0), func(_, stored []byte) bool {
		value, found = stored, true
		return false
	})
	return value, found, err
}

// scan calls fn with the pairs of a space from from up to to (nil: no bound), in order,
// until fn returns false. It stops at the first damage with an error that wraps
// idem.ErrCorrupt.
func (v *fileView) scan(space txbackend.Space, from, to []byte, fn func(key, value []byte) bool) error {
	if err := v.meta.plausible(); err != nil {
		return v.corrupt(err)
	}
	c := &treeCheck{f: v.f, pageSize: v.meta.pageSize, pages: v.meta.pages}
	root, err := c.page(v.meta.root, 0)
	if err != nil {
		return v.corrupt(err)
	}
	name, found := buckets[space], false
	var below error
	_, err = c.each(root, name, append(bytes.Clone(name), 0), 0, func(n *node, i int, e element, depth int) bool {
		if found = e.bucket; !found {
			return false
		}
		var id uint64
		var in *node
		if id, in, below = c.bucketOf(n, i, e, depth); below == nil && in == nil {
			in, below = c.page(id, depth+1)
		}
		if below == nil {
			_, below = c.each(in, from, to, depth+1, func(n *node, _ int, e element, _ int) bool {
				return fn(n.data[e.key:e.value], n.data[e.value:e.end])
			})
		}
		return false
	})
	if err == nil {
		err = below
	}
	if err == nil && !found {
		err = errNoBucket
	}
	return v.corrupt(err)
}

func (v *fileView) corrupt(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%w: %s: %w", engine.ErrCorrupt, v.name, err)
}

// each calls fn with the elements of the leaf pages below n whose keys are from from up to
// to (nil: no bound), in order. more is false if fn returned false or to was reached.
func (c *treeCheck) each(n *node, from, to []byte, depth int, fn func(n *node, i int, e element, depth int) bool) (more bool, err error) {
	if err := n.shape(); err != nil {
		return false, err
	}
	for i := range n.count() {
		key, err := n.key(i)
		if err != nil {
			return false, err
		}
		branch := n.flags() == branchPage
		switch {
		case to != nil && bytes.Compare(key, to) >= 0:
			return false, nil
		case branch && i+1 < n.count():
			next, err := n.key(i + 1)
			if err != nil {
				return false, err
			}
			if bytes.Compare(next, from) <= 0 {
				continue
			}
		case !branch && bytes.Compare(key, from) < 0:
			continue
		}
		if branch {
			child, err := c.page(n.child(i), depth+1)
			if err != nil {
				return false, err
			}
			if more, err := c.each(child, from, to, depth+1, fn); !more || err != nil {
				return more, err
			}
			continue
		}
		e, err := n.element(i)
		if err != nil {
			return false, err
		}
		if n.inside == 0 {
			if err := c.extend(n, e.end, depth); err != nil {
				return false, err
			}
		}
		if !fn(n, i, e, depth) {
			return false, nil
		}
	}
	return true, nil
}

// freeList checks the list of free pages, if the file has one. The store writes none, but
// bbolt's own tools do. Without a list every page that no other refers to is free.
func (c *treeCheck) freeList(m *metaPage) error {
	if m.freelist == noFreelist {
		return nil
	}
	if m.freelist < 2 || m.freelist >= m.pages {
		return fmt.Errorf("the list of free pages is said to be page %d, of %d", m.freelist, m.pages)
	}
	header := make([]byte, pageHeader+8)
	at := int64(m.freelist * m.pageSize)
	if _, err := c.f.ReadAt(header, at); err != nil {
		return fmt.Errorf("page %d: %w", m.freelist, err)
	}
	ne := binary.NativeEndian
	overflow, count, first := uint64(ne.Uint32(header[12:])), uint64(ne.Uint16(header[10:])), int64(pageHeader)
	if count == manyFree {
		count, first = ne.Uint64(header[pageHeader:]), pageHeader+8
	}
	size := (1 + overflow) * m.pageSize
	if ne.Uint64(header) != m.freelist || ne.Uint16(header[8:]) != freelistPage || m.freelist+overflow >= m.pages ||
		count > (size-uint64(first))/8 {
		return fmt.Errorf("page %d is no list of free pages", m.freelist)
	}
	for id := m.freelist; id <= m.freelist+overflow; id++ {
		if !c.see(id) {
			return fmt.Errorf("page %d is referred to twice", id)
		}
	}
	list := make([]byte, 8*count)
	if _, err := c.f.ReadAt(list, at+first); err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("page %d: %w", m.freelist, err)
	}
	for ; len(list) > 0; list = list[8:] {
		if id := ne.Uint64(list); id < 2 || id >= m.pages || !c.see(id) {
			return fmt.Errorf("page %d is listed as free, and is in use or listed twice", id)
		}
	}
	if never := int64(m.pages) - 2 - c.reached; never > 0 {
		return fmt.Errorf("%d pages are neither in use nor free: their space is lost", never)
	}
	return nil
}

const (
	freelistPage = 0x10
	manyFree     = 0xffff     // as the count of a list: the true one follows
	noFreelist   = ^uint64(0) // as its page: there is none
)
