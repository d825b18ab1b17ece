package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// treeCheck walks the trees of a bbolt file and returns an error if they are damaged.
//
// It runs before every opening. bbolt then finds the free pages by a walk in a
// goroutine of its own, where a page number or offset changed by a flipped bit ends the
// process. treeCheck reads the file through calls, not a map, so nothing it meets can
// fault. Like bbolt's walk, it reads every page that holds keys; of overflow pages it
// reads no further than the last key. It allocates a bit for each page of the file and
// a buffer for each level of the tree.
//
// Layout: page header {id u64, flags u16, count u16, overflow u32}, then elements of
// 16 bytes, then keys and values.
type treeCheck struct {
	f        io.ReaderAt
	pageSize uint64
	pages    uint64   // in use: the file's high-water mark
	seen     []uint64 // one bit per page: set once a page refers to it
	levels   [maxDepth + 2]struct {
		node   node
		buffer []byte
	}
}

const (
	branchPage  = 1
	leafPage    = 2
	elementSize = 16
	bucketLeaf  = 1 // flag of a leaf element that is a bucket
	bucketSize  = 16
	maxDepth    = 64
)

// node is a page with its overflow pages, or the page inside the value of a small
// bucket.
type node struct {
	id     uint64
	inside int    // how many buckets deep it lies within page id
	data   []byte // the part that was read, from the start: it covers all keys and buckets
	size   uint64
}

func (n *node) String() string {
	return fmt.Sprintf("%spage %d", strings.Repeat("the bucket in ", n.inside), n.id)
}

func (n *node) flags() uint16 { return binary.NativeEndian.Uint16(n.data[8:]) }
func (n *node) count() int    { return int(binary.NativeEndian.Uint16(n.data[10:])) }

// checkFile checks the trees below the newest meta page of f.
func checkFile(f io.ReaderAt, m *metaPage) error {
	if m.pageSize < 512 || m.pageSize > 64<<10 || m.pages < 4 || m.root < 2 || m.root >= m.pages {
		return fmt.Errorf("meta page: page size %d, %d pages, root %d", m.pageSize, m.pages, m.root)
	}
	return newTreeCheck(f, m).tree(m.root, nil, nil, 0)
}

func newTreeCheck(f io.ReaderAt, m *metaPage) *treeCheck {
	return &treeCheck{f: f, pageSize: m.pageSize, pages: m.pages, seen: make([]uint64, (m.pages+63)/64)}
}

// tree checks page id and everything below it. Its first key must be low and all its
// keys below high (nil: no bound). The first key must be exactly the one in the branch
// page. bbolt looks for it there when it rewrites the page, and if it does not find it,
// the old entry stays next to the new one.
func (c *treeCheck) tree(id uint64, low, high []byte, depth int) error {
	if id < 2 || id >= c.pages || depth > maxDepth {
		return fmt.Errorf("page %d is referred to, of %d, at depth %d", id, c.pages, depth)
	}
	n, err := c.read(id, depth)
	if err != nil {
		return err
	}
	return c.node(n, low, high, depth)
}

// read reads page id, and as much of its overflow pages as the check needs. The result
// is valid until the next page at the same depth is read.
func (c *treeCheck) read(id uint64, depth int) (*node, error) {
	ne := binary.NativeEndian
	n := &c.levels[depth].node
	*n = node{id: id}
	if err := c.extend(n, c.pageSize, depth); err != nil {
		return nil, err
	}
	overflow := uint64(ne.Uint32(n.data[12:]))
	if ne.Uint64(n.data) != id || id+overflow >= c.pages {
		return nil, fmt.Errorf("page %d says it is page %d with %d more", id, ne.Uint64(n.data), overflow)
	}
	for i := id; i <= id+overflow; i++ {
		bit := uint64(1) << (i % 64)
		if c.seen[i/64]&bit != 0 {
			return nil, fmt.Errorf("page %d is referred to twice", i)
		}
		c.seen[i/64] |= bit
	}
	n.size = (1 + overflow) * c.pageSize
	if overflow == 0 {
		return n, nil
	}
	elements := uint64(pageHeader + n.count()*elementSize)
	if elements > n.size {
		return nil, fmt.Errorf("%v has %d elements", n, n.count())
	}
	if err := c.extend(n, elements, depth); err != nil {
		return nil, err
	}
	far := uint64(0)
	for i := range n.count() {
		e, err := n.element(i)
		if err != nil {
			return nil, err
		}
		end := e.value
		if e.bucket {
			end = e.end
		}
		far = max(far, end)
	}
	return n, c.extend(n, far, depth)
}

// extend reads n up to size.
func (c *treeCheck) extend(n *node, size uint64, depth int) error {
	have := uint64(len(n.data))
	if size <= have {
		return nil
	}
	buffer := &c.levels[depth].buffer
	b := (*buffer)[:have]
	if size > uint64(cap(b)) {
		b = append(make([]byte, 0, max(size, 2*uint64(cap(b)))), b...)
	}
	b = b[:size]
	*buffer, n.data = b, b
	if _, err := c.f.ReadAt(b[have:], int64(n.id*c.pageSize+have)); err != nil {
		return fmt.Errorf("page %d: %w", n.id, err)
	}
	return nil
}

// node checks n and everything it refers to.
func (c *treeCheck) node(n *node, low, high []byte, depth int) error {
	if len(n.data) < pageHeader {
		return fmt.Errorf("%v has %d bytes", n, len(n.data))
	}
	flags, count := n.flags(), n.count()
	if flags != branchPage && flags != leafPage || flags == branchPage && count == 0 ||
		pageHeader+count*elementSize > len(n.data) {
		return fmt.Errorf("%v has flags %x and %d elements", n, flags, count)
	}
	var before []byte
	for i := range count {
		key, err := n.key(i)
		if err != nil {
			return err
		}
		first := i == 0 && low != nil && !bytes.Equal(key, low)
		if first || i > 0 && bytes.Compare(key, before) <= 0 || high != nil && bytes.Compare(key, high) >= 0 {
			return fmt.Errorf("%v: element %d is out of order", n, i)
		}
		before = key
	}
	for i := range count {
		if err := c.below(n, i, high, depth); err != nil {
			return err
		}
	}
	return nil
}

// below checks what element i refers to. The keys of n are known to lie within it.
func (c *treeCheck) below(n *node, i int, high []byte, depth int) error {
	ne := binary.NativeEndian
	e, err := n.element(i)
	if err != nil {
		return err
	}
	if n.flags() == branchPage {
		if i+1 < n.count() {
			if high, err = n.key(i + 1); err != nil {
				return err
			}
		}
		return c.tree(ne.Uint64(n.data[pageHeader+i*elementSize+8:]), n.data[e.key:e.value], high, depth+1)
	}
	if !e.bucket {
		return nil
	}
	value := n.data[e.value:e.end]
	if len(value) < bucketSize {
		return fmt.Errorf("%v: element %d is a bucket of %d bytes", n, i, len(value))
	}
	if root := ne.Uint64(value); root != 0 {
		return c.tree(root, nil, nil, depth+1)
	}
	if depth > maxDepth {
		return fmt.Errorf("%v: buckets nest too deep", n)
	}
	page := value[bucketSize:]
	in := &c.levels[depth+1].node
	*in = node{id: n.id, inside: n.inside + 1, data: page, size: uint64(len(page))}
	return c.node(in, nil, nil, depth+1)
}

// element holds where an element's key and value begin and where the value ends. A
// branch page has no values.
type element struct {
	key, value, end uint64
	bucket          bool
}

func (n *node) element(i int) (element, error) {
	ne := binary.NativeEndian
	at := uint64(pageHeader + i*elementSize)
	b := n.data[at:]
	var e element
	if n.flags() == branchPage {
		e.key = at + uint64(ne.Uint32(b))
		e.value = e.key + uint64(ne.Uint32(b[4:]))
		e.end = e.value
	} else {
		e.bucket = ne.Uint32(b)&bucketLeaf != 0
		e.key = at + uint64(ne.Uint32(b[4:]))
		e.value = e.key + uint64(ne.Uint32(b[8:]))
		e.end = e.value + uint64(ne.Uint32(b[12:]))
	}
	if e.end > n.size {
		return e, fmt.Errorf("%v: element %d reaches past the page", n, i)
	}
	return e, nil
}

func (n *node) key(i int) ([]byte, error) {
	e, err := n.element(i)
	if err != nil {
		return nil, err
	}
	return n.data[e.key:e.value], nil
}
