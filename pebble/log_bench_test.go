package pebble

import (
	"bytes"
	"context"
	"os"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// writeBytes is what Linux has counted for this process as written to disks.
func writeBytes(b *testing.B) (n int64, known bool) {
	text, err := os.ReadFile("/proc/self/io")
	if err != nil {
		return 0, false
	}
	_, text, known = bytes.Cut(text, []byte("\nwrite_bytes: "))
	text, _, _ = bytes.Cut(text, []byte("\n"))
	if known {
		n, err = strconv.ParseInt(string(text), 10, 64)
		require.NoError(b, err)
	}
	return n, known
}

// One caller claims and completes. written-B/op is what Linux counts as written; it
// counts nothing on a file system in memory.
func BenchmarkCycle(b *testing.B) {
	ctx := context.Background()
	s, _ := newStore(b, Options{}, idem.Options{SweepInterval: -1})
	result := bytes.Repeat([]byte("result"), 20)
	before, _ := writeBytes(b)
	n := 0
	for b.Loop() {
		n++
		c, err := s.Claim(ctx, idem.Request{Key: strconv.Itoa(n)})
		require.NoError(b, err)
		require.NoError(b, s.Complete(ctx, c.Token, result))
	}
	if after, known := writeBytes(b); known {
		b.ReportMetric(float64(after-before)/float64(b.N), "written-B/op")
	}
	require.NoError(b, s.Close())
}
