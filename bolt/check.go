package bolt

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"strings"
)

// treeCheck walks the trees of a bbolt file and returns an error if they are damaged. With
// report it goes on past damage.
//
// It runs before every opening for writing. bbolt then finds the free pages by a walk in a
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
	reached  int64    // the bits set

	// A walk that reads everything sets these; see fileView.
	stop   func() error                           // asked before each page
	report func(error)                            // told of damage, which is then passed over
	pair   func(bucket string, key, value []byte) // called for each pair of a bucket of the root
	bucket string                                 // the one being walked
	nested int                                    // how many buckets deep

	levels [maxDepth + 2]struct {
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
	if err := m.plausible(); err != nil {
		return err
	}
	return newTreeCheck(f, m).tree(m.root, nil, nil, 0)
}

// plausible returns an error if m cannot be the meta page of a store.
func (m *metaPage) plausible() error {
	if m.pageSize < 512 || m.pageSize > 64<<10 || m.pages < 4 || m.root < 2 || m.root >= m.pages {
		return fmt.Errorf("meta page: page size %d, %d pages, root %d", m.pageSize, m.pages, m.root)
	}
	return nil
}

func newTreeCheck(f io.ReaderAt, m *metaPage) *treeCheck {
	return &treeCheck{f: f, pageSize: m.pageSize, pages: m.pages, seen: make([]uint64, (m.pages+63)/64)}
}

// tree checks page id and everything below it. Its first key must be low and all its
// keys below high (nil: no bound). The first key must be exactly the one in the branch
// page. bbolt looks for it there when it rewrites the page, and if it does not find it,
// the old entry stays next to the new one.
func (c *treeCheck) tree(id uint64, low, high []byte, depth int) error {
	if c.stop != nil {
		if err := c.stop(); err != nil {
			return err
		}
	}
	n, err := c.page(id, depth)
	if err != nil {
		return c.damaged(err)
	}
	return c.node(n, low, high, depth)
}

// page is read, of a page that another one refers to.
func (c *treeCheck) page(id uint64, depth int) (*node, error) {
	if id < 2 || id >= c.pages || depth > maxDepth {
		return nil, fmt.Errorf("page %d is referred to, of %d, at depth %d", id, c.pages, depth)
	}
	return c.read(id, depth)
}

// damaged returns err, or nil if the walk goes on past it.
func (c *treeCheck) damaged(err error) error {
	if c.report == nil {
		return err
	}
	c.report(err)
	return nil
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
	if c.seen != nil {
		for i := id; i <= id+overflow; i++ {
			if !c.see(i) {
				return nil, fmt.Errorf("page %d is referred to twice", i)
			}
		}
	}
	n.size = (1 + overflow) * c.pageSize
	if overflow == 0 {
		return n, nil
	}
	if c.pair != nil {
		return n, c.extend(n, n.size, depth)
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

// see marks page id. It returns false if it was marked before.
func (c *treeCheck) see(id uint64) bool {
	word, bit := &c.seen[id/64], uint64(1)<<(id%64)
	if *word&bit != 0 {
		return false
	}
	*word |= bit
	c.reached++
	return true
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
	if err := n.shape(); err != nil {
		return c.damaged(err)
	}
	var before []byte
	for i := range n.count() {
		key, err := n.key(i)
		if err != nil && c.report != nil {
			continue // below meets it too
		}
		if err != nil {
			return err
		}
		first := i == 0 && low != nil && !bytes.Equal(key, low)
		if first || i > 0 && bytes.Compare(key, before) <= 0 || high != nil && bytes.Compare(key, high) >= 0 {
			if err := c.damaged(fmt.Errorf("%v: element %d is out of order", n, i)); err != nil {
				return err
			}
		}
		before = key
	}
	for i := range n.count() {
		if err := c.below(n, i, high, depth); err != nil {
			return err
		}
	}
	return nil
}

// shape returns an error if n cannot be a page of a tree.
func (n *node) shape() error {
	if len(n.data) < pageHeader {
		return fmt.Errorf("%v has %d bytes", n, len(n.data))
	}
	flags, count := n.flags(), n.count()
	if flags != branchPage && flags != leafPage || flags == branchPage && count == 0 ||
		pageHeader+count*elementSize > len(n.data) {
		return fmt.Errorf("%v has flags %x and %d elements", n, flags, count)
	}
	return nil
}

// below checks what element i refers to. The keys of n are known to lie within it.
func (c *treeCheck) below(n *node, i int, high []byte, depth int) error {
	e, err := n.element(i)
	if err != nil {
		return c.damaged(err)
	}
	if n.flags() == branchPage {
		if i+1 < n.count() {
			next, err := n.key(i + 1)
			if err != nil && c.report == nil {
				return err
			}
			if err == nil {
				high = next
			}
		}
		return c.tree(n.child(i), n.data[e.key:e.value], high, depth+1)
	}
	if !e.bucket {
		if c.pair != nil && c.nested == 1 {
			c.pair(c.bucket, n.data[e.key:e.value], n.data[e.value:e.end])
		}
		return nil
	}
	if c.nested == 0 && c.pair != nil {
		c.bucket = string(n.data[e.key:e.value])
	}
	c.nested++
	defer func() { c.nested-- }()
	root, in, err := c.bucketOf(n, i, e, depth)
	switch {
	case err != nil:
		return c.damaged(err)
	case in != nil:
		return c.node(in, nil, nil, depth+1)
	}
	return c.tree(root, nil, nil, depth+1)
}

// child returns the page that element i of a branch page refers to.
func (n *node) child(i int) uint64 {
	return binary.NativeEndian.Uint64(n.data[pageHeader+i*elementSize+8:])
}

// bucketOf returns the bucket that element i of a leaf page is: its root page, or, if it
// is small, the page inside its value.
func (c *treeCheck) bucketOf(n *node, i int, e element, depth int) (root uint64, in *node, err error) {
	value := n.data[e.value:e.end]
	if len(value) < bucketSize {
		return 0, nil, fmt.Errorf("%v: element %d is a bucket of %d bytes", n, i, len(value))
	}
	if root := binary.NativeEndian.Uint64(value); root != 0 {
		return root, nil, nil
	}
	if depth > maxDepth {
		return 0, nil, fmt.Errorf("%v: buckets nest too deep", n)
	}
	page := value[bucketSize:]
	in = &c.levels[depth+1].node
	*in = node{id: n.id, inside: n.inside + 1, data: page, size: uint64(len(page))}
	return 0, in, nil
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
