package codec

import (
	"encoding/binary"
	"math"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// docs/FORMAT.md is read here, and what its tables say is looked for in the bytes
// that the code writes.

// table returns the rows below the comment "table: name" of docs/FORMAT.md, each a
// list of cells, without the head.
func table(t *testing.T, name string) [][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/FORMAT.md")
	require.NoError(t, err)
	lines := strings.Split(strings.ReplaceAll(string(text), "\r\n", "\n"), "\n")
	var rows [][]string
	found, inside := false, false
	for _, line := range lines {
		switch {
		case line == "<!-- table: "+name+" -->":
			require.False(t, found, "table %s is there twice", name)
			found = true
		case found && strings.HasPrefix(line, "|"):
			inside = true
			cells := strings.Split(strings.Trim(line, "|"), "|")
			for i := range cells {
				cells[i] = strings.TrimSpace(cells[i])
			}
			rows = append(rows, cells)
		case inside:
			require.Greater(t, len(rows), 2, "table %s has no rows", name)
			return rows[2:]
		}
	}
	t.Fatalf("docs/FORMAT.md has no table %s", name)
	return nil
}

// sum evaluates "120+c+r", given the letters.
func sum(t *testing.T, expr string, letters map[string]int) int {
	t.Helper()
	total := 0
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

// fields cuts value as a table says, and checks that the rows cover all of it, one
// after the other.
func fields(t *testing.T, name string, value []byte, letters map[string]int) map[string][]byte {
	t.Helper()
	got := map[string][]byte{}
	at := 0
	for _, row := range table(t, name) {
		require.Len(t, row, 4)
		require.Equal(t, at, sum(t, row[0], letters), "table %s: offset of %q", name, row[2])
		n := sum(t, row[1], letters)
		require.LessOrEqual(t, at+n, len(value), "table %s: %q", name, row[2])
		require.NotContains(t, got, row[2])
		got[row[2]] = value[at : at+n]
		at += n
	}
	require.Equal(t, len(value), at, "table %s does not cover the value", name)
	return got
}

func TestRecordIsAsDocumented(t *testing.T) {
	t.Parallel()
	const key = "the key"
	e := &engine.Entry{
		State: idem.Held, HoldUnknown: true, Bound: true, Attempt: 0x01020304, Fence: 0x1112131415161718, Epoch: 0x2122232425262728,
		ClaimedAt: 0x3132333435363738, LeaseUntil: 0x4142434445464748, FinishedAt: 0x5152535455565758,
		ExpiresAt: 0x6162636465666768, Due: 0x7172737475767778, Lease: 0x0182838485868788, Retention: 0x0192939495969798,
		Fingerprint: idem.FingerprintOf([]byte("request")), Checkpoint: []byte("point"), Result: []byte("the result"),
	}
	value := AppendRecord(nil, key, e)
	f := fields(t, "record", value, map[string]int{"c": len(e.Checkpoint), "r": len(e.Result)})
	le := binary.LittleEndian
	require.Len(t, f, 20)
	require.Equal(t, []byte{Version}, f["version"])
	require.Equal(t, []byte{byte(idem.Held)}, f["state"])
	require.Equal(t, []byte{1 | 4 | 8 | 16}, f["flags"])
	require.Equal(t, []byte{0}, f["reserved"])
	require.Equal(t, e.Attempt, le.Uint32(f["attempt"]))
	for name, want := range map[string]uint64{
		"fence": e.Fence, "opening": e.Epoch, "claimed at": uint64(e.ClaimedAt), "lease until": uint64(e.LeaseUntil),
		"finished at": uint64(e.FinishedAt), "expires at": uint64(e.ExpiresAt), "due": uint64(e.Due),
		"lease": uint64(e.Lease), "retention": uint64(e.Retention),
	} {
		require.Len(t, f[name], 8, name)
		require.Equal(t, want, le.Uint64(f[name]), name)
	}
	require.Equal(t, e.Fingerprint[:], f["fingerprint"])
	require.EqualValues(t, len(e.Checkpoint), le.Uint32(f["checkpoint length"]))
	require.Equal(t, e.Checkpoint, f["checkpoint"])
	require.EqualValues(t, len(e.Result), le.Uint32(f["result length"]))
	require.Equal(t, e.Result, f["result"])
	require.Equal(t, checksum(key, value[:len(value)-4]), le.Uint32(f["checksum"]))

	require.Len(t, AppendRecord(nil, key, &engine.Entry{State: idem.InFlight}), 124, "the least size that the document names")
}

func TestStatesAndFlagsAreAsDocumented(t *testing.T) {
	t.Parallel()
	states := table(t, "state")
	require.Len(t, states, int(idem.Failed))
	for _, row := range states {
		n, err := strconv.Atoi(row[0])
		require.NoError(t, err)
		require.Equal(t, strings.ReplaceAll(row[1], " ", "_"), idem.State(n).String())
		require.EqualValues(t, n, AppendRecord(nil, "k", &engine.Entry{State: idem.State(n)})[1])
	}
	entries := map[string]engine.Entry{
		"hold unknown": {HoldUnknown: true}, "result dropped": {ResultDropped: true},
		"there is a checkpoint": {Checkpoint: []byte{}}, "there is a result": {Result: []byte{}}, "bound": {Bound: true},
	}
	all := 0
	for _, row := range table(t, "flags") {
		n, err := strconv.Atoi(row[0])
		require.NoError(t, err)
		all |= n
		name, _, _ := strings.Cut(strings.ReplaceAll(row[1], ":", ","), ",")
		require.Contains(t, entries, name)
		e := entries[name]
		require.EqualValues(t, n, AppendRecord(nil, "k", &e)[2], name)
		delete(entries, name)
	}
	require.Empty(t, entries)
	require.Equal(t, flagsKnown, all)
}

func TestPlaceIsAsDocumented(t *testing.T) {
	t.Parallel()
	d := engine.Due{At: 0x0102030405060708, Key: "the key"}
	f := fields(t, "place", AppendPlace(nil, d), map[string]int{"k": len(d.Key)})
	require.Len(t, f, 2)
	require.EqualValues(t, d.At, binary.BigEndian.Uint64(f["due"]))
	require.Equal(t, d.Key, string(f["key"]))
}

func TestMetaIsAsDocumented(t *testing.T) {
	t.Parallel()
	m := engine.Meta{
		Time: 0x0102030405060708, Wall: 0x1112131415161718, Fence: 0x2122232425262728, Epoch: 0x3132333435363738,
		LostUntil: 0x4142434445464748, Secret: [16]byte([]byte("sixteen bytes so")),
	}
	value := AppendMeta(nil, m)
	f := fields(t, "meta", value, nil)
	le := binary.LittleEndian
	require.Len(t, f, 8)
	require.Equal(t, []byte{Version}, f["version"])
	require.EqualValues(t, m.Time, le.Uint64(f["time"]))
	require.EqualValues(t, m.Wall, le.Uint64(f["wall"]))
	require.Equal(t, m.Fence, le.Uint64(f["fence"]))
	require.Equal(t, m.Epoch, le.Uint64(f["opening"]))
	require.EqualValues(t, m.LostUntil, le.Uint64(f["lost until"]))
	m.Importing = true
	require.EqualValues(t, ^m.LostUntil, le.Uint64(fields(t, "meta", AppendMeta(nil, m), nil)["lost until"]))
	m.Importing = false
	require.Equal(t, m.Secret[:], f["secret"])
	require.Equal(t, checksum("meta", value[:len(value)-4]), le.Uint32(f["checksum"]))
}

// The document's constants are the code's.
func TestNumbersAreAsDocumented(t *testing.T) {
	t.Parallel()
	require.EqualValues(t, 2, Version)
	require.Equal(t, engine.Instant(math.MaxInt64), engine.Never)
	require.Equal(t, time.Duration(1<<63-1), idem.Forever)
	require.Equal(t, 1024, idem.MaxKey)
}

var call = regexp.MustCompile("^`(\\w+)\\((.*)\\)`$")

// The recipes are frozen with the format: callers and downstream services keep
// what they made.
func TestRecipesAreAsDocumented(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, row := range table(t, "recipes") {
		parts := call.FindStringSubmatch(row[0])
		require.NotNil(t, parts, row[0])
		var args []string
		if parts[2] != "" {
			for _, arg := range strings.Split(parts[2], ", ") {
				if s, err := strconv.Unquote(arg); err == nil {
					arg = s
				}
				args = append(args, arg)
			}
		}
		seen[parts[1]] = true
		require.Equal(t, strings.Trim(row[1], "`"), recipe(t, parts[1], args), row[0])
	}
	require.Len(t, seen, 5)
}

func recipe(t *testing.T, name string, args []string) string {
	t.Helper()
	switch name {
	case "FingerprintOf":
		raw := make([][]byte, len(args))
		for i, a := range args {
			raw[i] = []byte(a)
		}
		return idem.FingerprintOf(raw...).String()
	case "JoinKey":
		return idem.JoinKey(args...)
	case "DownstreamKey":
		return idem.DownstreamKey(args[0], args[1])
	case "ContentKey":
		raw := make([][]byte, len(args))
		for i, a := range args {
			raw[i] = []byte(a)
		}
		return idem.ContentKey(raw...)
	case "Token":
		fence, err := strconv.ParseUint(args[1], 10, 64)
		require.NoError(t, err)
		want := idem.Token{Key: args[0], Fence: fence}
		text, err := want.MarshalText()
		require.NoError(t, err)
		var got idem.Token
		require.NoError(t, got.UnmarshalText(text))
		require.Equal(t, want, got)
		return string(text)
	}
	t.Fatalf("no recipe %s", name)
	return ""
}
