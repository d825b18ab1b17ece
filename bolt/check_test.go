package bolt

import (
	"bytes"
	"context"
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
)

// grown is a file with branch pages, overflow pages, and buckets in buckets, small
// and large.
func grown(t *testing.T) []byte {
	path := filepath.Join(t.TempDir(), fileName)
	filled(t, path, 900)
	b := mustOpen(t, path, Options{})
	s := storetest.Open(t, b, idem.Options{})
	c := storetest.Claim(t, s, "large")
	require.NoError(t, s.Complete(context.Background(), c.Token, make([]byte, 20_000)))
	require.NoError(t, b.Update(context.Background(), func(tx *bbolt.Tx) error {
		outer, err := tx.CreateBucket(own)
		require.NoError(t, err)
		_, err = outer.CreateBucket([]byte("small"))
		require.NoError(t, err)
		return outer.Put([]byte("z"), []byte("value"))
	}))
	require.NoError(t, s.Close())
	content, err := os.ReadFile(path)
	require.NoError(t, err)
	return content
}

// Each byte of every fifth page's header and first elements, changed in turn: the check
// finds it or it does no harm, and it never fails itself.
func TestCheckOfEachByte(t *testing.T) {
	t.Parallel()
	content := grown(t)
	meta, _, err := readMetas(bytes.NewReader(content))
	require.NoError(t, err)
	require.NoError(t, checkFile(bytes.NewReader(content), meta))
	found := 0
	for page := uint64(2); page < meta.pages; page += 5 {
		for at := page * meta.pageSize; at < page*meta.pageSize+pageHeader+3*elementSize; at++ {
			for _, bits := range []byte{0x01, 0x80} {
				content[at] ^= bits
				if checkFile(bytes.NewReader(content), meta) != nil {
					found++
				}
				content[at] ^= bits
			}
		}
	}
	require.Greater(t, found, 100)
	require.NoError(t, checkFile(bytes.NewReader(content), meta), "put back")
}

func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	content := grown(t)
	good, _, err := readMetas(bytes.NewReader(content))
	require.NoError(t, err)
	for name, m := range map[string]metaPage{
		"a page size":           {pageSize: 3, root: good.root, pages: good.pages},
		"a root out of bounds":  {pageSize: good.pageSize, root: good.pages, pages: good.pages},
		"a root that is a meta": {pageSize: good.pageSize, root: 1, pages: good.pages},
		"too few pages":         {pageSize: good.pageSize, root: good.root, pages: 3},
	} {
		require.Error(t, checkFile(bytes.NewReader(content), &m), name)
	}
	require.Error(t, checkFile(bytes.NewReader(content[:good.pageSize*3]), good), "the file ends")

	c := newTreeCheck(bytes.NewReader(content), good)
	page := func(data, low, high []byte, depth int) error {
		return c.node(&node{id: 7, data: data, size: uint64(len(data))}, low, high, depth)
	}
	require.Error(t, c.tree(good.root, nil, nil, maxDepth+1), "too deep")
	require.Error(t, page(make([]byte, 3), nil, nil, 0), "a page without a header")

	leaf := func(flags uint32, key, value string) []byte {
		ne := binary.NativeEndian
		p := make([]byte, pageHeader+elementSize, 200)
		ne.PutUint16(p[8:], leafPage)
		ne.PutUint16(p[10:], 1)
		ne.PutUint32(p[pageHeader:], flags)
		ne.PutUint32(p[pageHeader+4:], elementSize)
		ne.PutUint32(p[pageHeader+8:], uint32(len(key)))
		ne.PutUint32(p[pageHeader+12:], uint32(len(value)))
		return append(append(p, key...), value...)
	}
	require.NoError(t, page(leaf(0, "k", "v"), nil, nil, 0))
	require.Error(t, page(leaf(bucketLeaf, "k", "short"), nil, nil, 0), "a bucket too short")
	require.Error(t, page(leaf(bucketLeaf, "k", string(make([]byte, bucketSize))), nil, nil, maxDepth+1), "buckets too deep")
	require.Error(t, page(leaf(0, "k", "v"), []byte("m"), nil, 0), "a key below its parent's")
	require.Error(t, page(leaf(0, "z", "v"), []byte("m"), nil, 0), "it begins with another key than its parent says")
	require.Error(t, page(leaf(0, "k", "v"), nil, []byte("k"), 0), "a key of the next page")
}
