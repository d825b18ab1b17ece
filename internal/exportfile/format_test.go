package exportfile_test

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"math"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/exportfile"
)

// docs/FORMAT.md is read here, and what it says of an export is looked for in the bytes of
// one.

// table returns the rows below the comment "table: name" of docs/FORMAT.md, each a list of
// cells, without the head.
func table(t *testing.T, name string) (rows [][]string) {
	t.Helper()
	text, err := os.ReadFile("../../docs/FORMAT.md")
	require.NoError(t, err)
	_, after, found := strings.Cut(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n<!-- table: "+name+" -->\n\n")
	require.True(t, found, "docs/FORMAT.md has no table %s", name)
	table, _, _ := strings.Cut(after, "\n\n")
	for _, line := range strings.Split(table, "\n")[2:] {
		cells := strings.Split(strings.Trim(line, "|"), "|")
		for i := range cells {
			cells[i] = strings.TrimSpace(cells[i])
		}
		rows = append(rows, cells)
	}
	require.NotEmpty(t, rows)
	return rows
}

// sum evaluates "104+k+c", given the letters.
func sum(t *testing.T, expr string, letters map[string]int) (total int) {
	t.Helper()
	for _, term := range strings.Split(expr, "+") {
		n, isLetter := letters[term]
		if !isLetter {
			var err error
			n, err = strconv.Atoi(term)
			require.NoError(t, err, expr)
		}
		total += n
	}
	return total
}

// fields cuts b as a table says, and checks that the rows cover all of it, one after the
// other.
func fields(t *testing.T, name string, b []byte, letters map[string]int) map[string][]byte {
	t.Helper()
	got := map[string][]byte{}
	at := 0
	for _, row := range table(t, name) {
		require.Equal(t, at, sum(t, row[0], letters), "table %s: offset of %q", name, row[2])
		n := sum(t, row[1], letters)
		require.LessOrEqual(t, at+n, len(b), "table %s: %q", name, row[2])
		require.NotContains(t, got, row[2])
		got[row[2]] = b[at : at+n]
		at += n
	}
	require.Equal(t, len(b), at, "table %s does not cover the bytes", name)
	return got
}

func TestExportIsAsDocumented(t *testing.T) {
	t.Parallel()
	e := &engine.Entry{
		State: engine.Held, HoldUnknown: true, Bound: true, Attempt: 0x01020304, Fence: 0x1112131415161718,
		ClaimedAt: now - 5, LeaseUntil: now + 6, ExpiresAt: engine.Never,
		Lease: 0x0182838485868788, Retention: 0x0192939495969798,
		Fingerprint: engine.Fingerprint{1, 31: 2}, Checkpoint: []byte("point"), Result: []byte("the result"),
	}
	h := exportfile.Header{Wall: 0x2122232425262728, LostUntil: 0x3132333435363738, Secret: [16]byte{1, 15: 9}, Fence: 0x1142434445464748}
	const key = "the key"
	var out bytes.Buffer
	w, err := exportfile.NewWriter(&out, h)
	require.NoError(t, err)
	require.NoError(t, w.Record(key, e, now))
	require.NoError(t, w.Close(exportfile.Trailer{Fence: 0x5152535455565758, Stopped: true}))

	const begins = "idem export\n\x01"
	rest, ok := bytes.CutPrefix(out.Bytes(), []byte(begins))
	require.True(t, ok)
	le := binary.LittleEndian
	covered := []byte(begins) // by the checksum of the next frame
	frame := func(kind string) (payload []byte) {
		n := int(le.Uint32(rest[1:]))
		f := fields(t, "frame", rest[:5+n+4], map[string]int{"n": n})
		require.Equal(t, kind, string(f["kind"]))
		covered = append(covered, rest[:5+n]...)
		require.Equal(t, crc32.Checksum(covered, crc32.MakeTable(crc32.Castagnoli)), le.Uint32(f["checksum"]))
		rest = rest[5+n+4:]
		return f["payload"]
	}
	check := func(f map[string][]byte, want map[string]uint64) {
		t.Helper()
		for name, n := range want {
			got := make([]byte, 8)
			require.NotEmpty(t, f[name], name)
			copy(got, f[name])
			require.Equal(t, n, le.Uint64(got), name)
		}
	}

	f := fields(t, "export header", frame("H"), nil)
	check(f, map[string]uint64{"wall": uint64(h.Wall), "lost until": uint64(h.LostUntil), "fence": h.Fence})
	require.Equal(t, h.Secret[:], f["secret"])

	f = fields(t, "export record", frame("R"), map[string]int{"k": len(key), "c": len(e.Checkpoint), "r": len(e.Result)})
	ago, notSet := int64(-5), int64(math.MinInt64)
	check(f, map[string]uint64{
		"state": uint64(e.State), "flags": 1 | 4 | 8 | 16, "attempt": uint64(e.Attempt), "fence": e.Fence,
		"claimed at": uint64(ago), "lease until": 6, "finished at": uint64(notSet), "expires at": math.MaxInt64,
		"lease": uint64(e.Lease), "retention": uint64(e.Retention),
		"key length": uint64(len(key)), "checkpoint length": uint64(len(e.Checkpoint)), "result length": uint64(len(e.Result)),
	})
	require.Equal(t, e.Fingerprint[:], f["fingerprint"])
	require.Equal(t, key+"pointthe result", string(f["key"])+string(f["checkpoint"])+string(f["result"]))

	f = fields(t, "export trailer", frame("T"), nil)
	check(f, map[string]uint64{"records": 1, "fence": 0x5152535455565758, "flags": 1})
	require.Empty(t, rest)
}

func TestExportFlagsAreAsDocumented(t *testing.T) {
	t.Parallel()
	entries := map[string]engine.Entry{
		"hold unknown": {HoldUnknown: true}, "result dropped": {ResultDropped: true}, "bound": {Bound: true},
		"there is a checkpoint, perhaps an empty one": {Checkpoint: []byte{}}, "there is a result, perhaps an empty one": {Result: []byte{}},
	}
	rows := table(t, "export flags")
	require.Len(t, rows, len(entries))
	for _, row := range rows {
		e, ok := entries[row[1]]
		require.True(t, ok, row[1])
		var out bytes.Buffer
		w, err := exportfile.NewWriter(&out, header())
		require.NoError(t, err)
		e.State = engine.InFlight
		require.NoError(t, w.Record("k", &e, now))
		require.NoError(t, w.Close(exportfile.Trailer{}))
		const frames = len("idem export\n\x01") + 5 + 40 + 4
		require.Equal(t, row[0], strconv.Itoa(int(out.Bytes()[frames+5+1])), row[1])
	}
}
