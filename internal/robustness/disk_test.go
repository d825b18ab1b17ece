package robustness

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
)

// sector is what a disk writes whole or not at all.
const sector = 512

// loggedDisk is what a power cut may leave of one file, given the calls that changed
// it in their order.
type loggedDisk struct {
	path   string
	file   *loggedFile // under path; nil: there is none
	synced bool        // the name is durable
	others map[string]*loggedFile

	ignores func(c *call) bool // syncs that are taken for lies; nil: none
}

// loggedFile is a file as the last sync left it, and what has been done since.
type loggedFile struct {
	durable []byte
	pending []*call // in the order in which they began
}

// apply adds what c did. All calls must be given, in the order in which they began.
func (d *loggedDisk) apply(c *call) {
	switch c.name {
	case "pwrite64", "ftruncate":
		f := d.find(c.path)
		if f == nil {
			f = &loggedFile{}
			d.others[c.path] = f
		}
		f.pending = append(f.pending, c)
	case "fdatasync", "fsync":
		if d.ignores != nil && d.ignores(c) {
			return
		}
		if f := d.find(c.path); f != nil {
			f.sync(c)
		} else if d.file != nil && c.path == filepath.Dir(d.path) {
			d.synced = true
		}
	case "link", "linkat", "rename", "renameat", "renameat2":
		if c.to == d.path {
			d.file = d.others[c.path]
		}
	}
}

func (d *loggedDisk) find(path string) *loggedFile {
	if path == d.path {
		return d.file
	}
	return d.others[path]
}

// sync makes durable what had ended when c began.
func (f *loggedFile) sync(c *call) {
	left := f.pending[:0:0]
	for _, p := range f.pending {
		if p.ended > 0 && p.ended < c.begun {
			p.do(&f.durable, func() bool { return true })
		} else {
			left = append(left, p)
		}
	}
	f.pending = left
}

// do does to b what c did, sector by sector where keep says so.
func (c *call) do(b *[]byte, keep func() bool) {
	if c.name == "ftruncate" {
		if keep() {
			resize(b, int(c.offset))
		}
		return
	}
	for at := 0; at < len(c.data); {
		offset := int(c.offset) + at
		n := min(sector-offset%sector, len(c.data)-at)
		if keep() {
			if offset+n > len(*b) {
				resize(b, offset+n)
			}
			copy((*b)[offset:], c.data[at:at+n])
		}
		at += n
	}
}

func resize(b *[]byte, size int) {
	if size <= len(*b) {
		*b = (*b)[:size]
		return
	}
	*b = append(*b, make([]byte, size-len(*b))...)
}

// crash returns what is left of the file: what was synced and some of the rest. nil
// means that there is no file of the name.
func (d *loggedDisk) crash(rng *rand.Rand) []byte {
	if d.file == nil || !d.synced && rng.IntN(2) == 0 {
		return nil
	}
	b := slices.Clone(d.file.durable)
	if b == nil {
		b = []byte{}
	}
	kept := []float64{0, 0.1, 0.5, 0.9, 1}[rng.IntN(5)]
	pending := d.file.pending
	if rng.IntN(3) == 0 { // nothing of what came last
		pending = pending[:rng.IntN(len(pending)+1)]
	}
	for _, p := range pending {
		p.do(&b, func() bool { return rng.Float64() < kept })
	}
	return b
}
