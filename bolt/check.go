package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
)

// treeCheck walks the trees of a bbolt file and returns an error if they are not whole.
//
// It is run before every opening, because bbolt then finds the free pages by a walk
// of its own, in a goroutine of its own, where a page number or an offset that a
// flipped bit has changed ends the process. It reads the file by calls, not through
// a map, so that nothing it meets can fault. It costs one read of the file, as
// bbolt's own walk does. Layout: page header {id u64, flags u16, count u16,
// overflow u32}, then elements of 16 bytes, then keys and values.
type treeCheck struct {
	f        io.ReaderAt
	pageSize uint64
	pages    uint64 // in use: the file's high-water mark
	seen     []bool // referenced by a page, each once
}

const (
	branchPage  = 1
	leafPage    = 2
	elementSize = 16
	bucketLeaf  = 1 // flag of a leaf element that is a bucket
	bucketSize  = 16
	maxDepth    = 64
)

// checkFile checks the trees below the newest meta page of f.
func checkFile(f io.ReaderAt, m *metaPage) error {
	if m.pageSize < 512 || m.pageSize > 64<<10 || m.pages < 4 || m.root < 2 || m.root >= m.pages {
		return fmt.Errorf("meta page: page size %d, %d pages, root %d", m.pageSize, m.pages, m.root)
	}
	c := &treeCheck{f: f, pageSize: m.pageSize, pages: m.pages, seen: make([]bool, m.pages)}
	return c.tree(m.root, nil, nil, 0)
}

// tree checks page id and all below it, whose first key is low and whose keys are
// below high (nil: no bound). That a page begins with the very key by which its branch
// page knows it, matters: bbolt looks for its first key there when the page is written
// anew, and where it finds none leaves the old entry standing, beside the new one.
func (c *treeCheck) tree(id uint64, low, high []byte, depth int) error {
	if id < 2 || id >= c.pages || depth > maxDepth {
		return fmt.Errorf("page %d is referred to, of %d, at depth %d", id, c.pages, depth)
	}
	page, err := c.read(id)
	if err != nil {
		return err
	}
	return c.page(fmt.Sprintf("page %d", id), page, low, high, depth)
}

// read reads page id with its overflow pages.
func (c *treeCheck) read(id uint64) ([]byte, error) {
	ne := binary.NativeEndian
	page := make([]byte, c.pageSize)
	if _, err := c.f.ReadAt(page, int64(id*c.pageSize)); err != nil {
		return nil, fmt.Errorf("page %d: %w", id, err)
	}
	overflow := uint64(ne.Uint32(page[12:]))
	if ne.Uint64(page) != id || id+overflow >= c.pages {
		return nil, fmt.Errorf("page %d says it is page %d with %d more", id, ne.Uint64(page), overflow)
	}
	for i := id; i <= id+overflow; i++ {
		if c.seen[i] {
			return nil, fmt.Errorf("page %d is referred to twice", i)
		}
		c.seen[i] = true
	}
	if overflow > 0 {
		page = make([]byte, (1+overflow)*c.pageSize)
		if _, err := c.f.ReadAt(page, int64(id*c.pageSize)); err != nil {
			return nil, fmt.Errorf("page %d: %w", id, err)
		}
	}
	return page, nil
}

// page checks one page, or the page inside the value of a small bucket.
func (c *treeCheck) page(name string, page, low, high []byte, depth int) error {
	ne := binary.NativeEndian
	if len(page) < pageHeader {
		return fmt.Errorf("%s has %d bytes", name, len(page))
	}
	flags, count := ne.Uint16(page[8:]), int(ne.Uint16(page[10:]))
	if flags != branchPage && flags != leafPage || flags == branchPage && count == 0 ||
		pageHeader+count*elementSize > len(page) {
		return fmt.Errorf("%s has flags %x and %d elements", name, flags, count)
	}
	keys := make([][]byte, count)
	for i := range count {
		key, _, err := element(page, i, flags)
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		first := i == 0 && low != nil && !bytes.Equal(key, low)
		if first || i > 0 && bytes.Compare(key, keys[i-1]) <= 0 || high != nil && bytes.Compare(key, high) >= 0 {
			return fmt.Errorf("%s: element %d is out of order", name, i)
		}
		keys[i] = key
	}
	for i := range count {
		if err := c.below(name, page, i, flags, keys, high, depth); err != nil {
			return err
		}
	}
	return nil
}

// below checks what element i refers to.
func (c *treeCheck) below(name string, page []byte, i int, flags uint16, keys [][]byte, high []byte, depth int) error {
	ne := binary.NativeEndian
	at := pageHeader + i*elementSize
	if flags == branchPage {
		if i+1 < len(keys) {
			high = keys[i+1]
		}
		return c.tree(ne.Uint64(page[at+8:]), keys[i], high, depth+1)
	}
	if ne.Uint32(page[at:])&bucketLeaf == 0 {
		return nil
	}
	_, value, err := element(page, i, flags)
	if err != nil || len(value) < bucketSize {
		return fmt.Errorf("%s: element %d is a bucket of %d bytes", name, i, len(value))
	}
	if root := ne.Uint64(value); root != 0 {
		return c.tree(root, nil, nil, depth+1)
	}
	if depth > maxDepth {
		return fmt.Errorf("%s: buckets nest too deep", name)
	}
	return c.page(fmt.Sprintf("the bucket in %s", name), value[bucketSize:], nil, nil, depth+1)
}

// element returns the key and, on a leaf, the value of element i.
func element(page []byte, i int, flags uint16) (key, value []byte, err error) {
	ne := binary.NativeEndian
	at := uint64(pageHeader + i*elementSize)
	e := page[at:]
	var pos, keySize, valueSize uint64
	if flags == branchPage {
		pos, keySize = uint64(ne.Uint32(e)), uint64(ne.Uint32(e[4:]))
	} else {
		pos, keySize, valueSize = uint64(ne.Uint32(e[4:])), uint64(ne.Uint32(e[8:])), uint64(ne.Uint32(e[12:]))
	}
	start := at + pos
	if start+keySize+valueSize > uint64(len(page)) {
		return nil, nil, fmt.Errorf("element %d reaches past the page", i)
	}
	return page[start : start+keySize], page[start+keySize : start+keySize+valueSize], nil
}
