package robustness

import (
	"bytes"
	"encoding/binary"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// boltKinds tells the bytes of a bbolt file apart. See docs/FORMAT.md and bbolt's
// internal/common/page.go for what lies where.
func boltKinds(t *testing.T, path string) map[string][]flip {
	b, err := os.ReadFile(path)
	require.NoError(t, err)
	const header, size = 16, 16
	ne := binary.NativeEndian
	page := os.Getpagesize()
	meta := func(n int) []byte { return b[n*page+header:] }
	txid := func(n int) uint64 { return ne.Uint64(meta(n)[48:]) }
	newer := 0
	if txid(1) > txid(0) {
		newer = 1
	}
	pages := int(ne.Uint64(meta(newer)[40:]))
	kinds := make([]string, pages*page)
	mark := func(from, n int, kind string) {
		for i := from; i < from+n; i++ {
			kinds[i] = kind
		}
	}
	mark(0, len(kinds), "a free page")
	mark(newer*page, header+64, "the newer meta page")
	mark((1-newer)*page, header+64, "the older meta page")
	for _, n := range []int{0, 1} {
		mark(n*page+header+64, page-header-64, "the rest of a meta page")
	}
	var tree func(id int, of string)
	tree = func(id int, of string) {
		at := id * page
		flags, count, overflow := ne.Uint16(b[at+8:]), int(ne.Uint16(b[at+10:])), int(ne.Uint32(b[at+12:]))
		mark(at, (1+overflow)*page, "unused bytes of a page")
		mark(at, header, "a page header")
		for i := range count {
			e := at + header + i*size
			if flags == 1 {
				pos, n := int(ne.Uint32(b[e:])), int(ne.Uint32(b[e+4:]))
				mark(e, size, "an element of a branch page")
				mark(e+pos, n, "a key of a branch page")
				tree(int(ne.Uint64(b[e+8:])), of)
				continue
			}
			pos, key, value := int(ne.Uint32(b[e+4:])), int(ne.Uint32(b[e+8:])), int(ne.Uint32(b[e+12:]))
			mark(e, size, "an element of a leaf page"+of)
			mark(e+pos, key, "a key of a leaf page"+of)
			kind := "a value" + of
			if overflow > 0 {
				kind = "a value on overflow pages" + of
			}
			mark(e+pos+key, value, kind)
			if ne.Uint32(b[e:])&1 != 0 {
				mark(e+pos+key, value, "a bucket")
				if root := int(ne.Uint64(b[e+pos+key:])); root != 0 {
					tree(root, " of "+string(b[e+pos:e+pos+key]))
				}
			}
		}
	}
	tree(int(ne.Uint64(meta(newer)[16:])), "")
	out := map[string][]flip{}
	for at, kind := range kinds {
		out[kind] = append(out[kind], flip{Offset: at})
	}
	for _, kind := range []string{
		"a free page", "the newer meta page", "a page header", "an element of a branch page", "a bucket",
		"a key of a branch page", "an element of a leaf page of idem.records", "a key of a leaf page of idem.records",
		"a value of idem.records", "a value on overflow pages of idem.records", "a key of a leaf page of idem.expiry",
	} {
		require.NotEmpty(t, out[kind], kind)
	}
	return out
}

// isRecordsValue: what lies there is covered by a record's checksum and by nothing else
// that is looked at.
func isRecordsValue(kind string) bool {
	return kind == "a value of idem.records" || kind == "a value on overflow pages of idem.records"
}

// boltLoses is what docs/GUARANTEES.md says of bbolt, which has no checksum of its own.
func boltLoses(kind string) bool {
	return slices.Contains([]string{
		"the newer meta page",         // as of the commit before
		"an element of a branch page", // a page as it was
		"a bucket",                    // all of it as it was
		"a page header", "an element of a leaf page of idem.records", "a key of a leaf page of idem.records",
	}, kind)
}

// pebbleKinds tells the bytes of a Pebble store apart, by the sort of file; the last
// block of the last log, and the last record of the manifest in use, by themselves.
func pebbleKinds(t *testing.T, path string) map[string][]flip {
	const block = 32 << 10
	sizes := map[string]int{}
	latest := map[string]string{} // file of a sort
	sortOf := func(name string) string {
		switch base := filepath.Base(name); {
		case base == "IDEM":
			return "marker"
		case base == "IDEM.log":
			return "note"
		case strings.HasSuffix(base, ".log"), strings.HasSuffix(base, ".sst"):
			return base[len(base)-3:]
		default:
			sort, _, _ := strings.Cut(base, "-")
			return sort
		}
	}
	require.NoError(t, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		name = strings.TrimPrefix(name, path+"/")
		sizes[name] = int(info.Size())
		latest[sortOf(name)] = max(latest[sortOf(name)], name)
		return nil
	}))
	manifest, err := os.ReadFile(filepath.Join(path, latest["MANIFEST"]))
	require.NoError(t, err)
	last := 0 // where its last record begins: they are small, and of one chunk each
	for at := 0; at+7 <= len(manifest); {
		last, at = at, at+7+int(binary.LittleEndian.Uint16(manifest[at+4:]))
	}
	require.Positive(t, last)
	log, err := os.ReadFile(filepath.Join(path, latest["log"]))
	require.NoError(t, err)
	end := len(bytes.TrimRight(log, "\x00")) // zeros are written ahead of a log
	require.Positive(t, end)
	synced := lastSync(log[:end])
	out := map[string][]flip{}
	for name, size := range sizes {
		for at := range size {
			kind := sortOf(name)
			switch {
			case name != latest["log"]:
			case at >= end:
				kind = behindLog
			case at/block == (end-1)/block:
				kind = lastBlock
			case at >= synced:
				kind = lastCommit
			}
			if name == latest["MANIFEST"] && at >= last {
				kind = lastRecord
			}
			out[kind] = append(out[kind], flip{File: name, Offset: at})
		}
	}
	for _, kind := range []string{lastBlock, "sst", "MANIFEST", lastRecord, "OPTIONS", "marker", "note"} {
		require.NotEmpty(t, out[kind], "%s: %v", kind, sizes)
	}
	return out
}

// lastSync is up to where a log says that it was synced. Each chunk of it says so of the
// time when it was written; damage before that is told from a torn end, if a later block
// of 32 KiB says so. See Pebble's record/record.go.
func lastSync(log []byte) (synced int) {
	const block, header = 32 << 10, 19
	for at := 0; at+header <= len(log); {
		if log[at+6] < 9 || log[at+6] > 12 { // the rest of a block
			at += block - at%block
			continue
		}
		synced = max(synced, int(binary.LittleEndian.Uint64(log[at+11:])))
		at += header + int(binary.LittleEndian.Uint16(log[at+4:]))
	}
	return synced
}

const (
	lastBlock  = "the last block of the last log"
	lastCommit = "the last commit of the last log"
	behindLog  = "behind the last log"
	lastRecord = "the last record of the manifest"
)

// pebbleLoses is what docs/GUARANTEES.md says of a Pebble store that was not closed:
// there it cannot be told from what a power cut leaves.
func pebbleLoses(kind string) bool { return kind == lastBlock || kind == lastCommit }
