package idem_test

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
)

// uuid returns 16 random bytes, as hexadecimal; with ordered the first six are the
// time in milliseconds, as in a UUIDv7.
func uuid(ordered bool) string {
	var b [16]byte
	_, _ = rand.Read(b[:])
	if ordered {
		binary.BigEndian.PutUint64(b[:8], uint64(time.Now().UnixMilli())<<16|uint64(binary.BigEndian.Uint16(b[6:])))
	}
	return hex.EncodeToString(b[:])
}

// written returns what this process has written, in bytes, on Linux.
func written() (n int64, ok bool) {
	b, err := os.ReadFile("/proc/self/io")
	if m := regexp.MustCompile(`(?m)^wchar: (\d+)$`).FindSubmatch(b); err == nil && m != nil {
		n, err = strconv.ParseInt(string(m[1]), 10, 64)
		return n, err == nil
	}
	return 0, false
}

// BenchmarkKeyOrder claims and completes on a bolt store of 200,000 records, for 64
// callers, with keys that begin with the time and with keys that do not.
func BenchmarkKeyOrder(b *testing.B) {
	for _, ordered := range []bool{false, true} {
		b.Run(fmt.Sprintf("ordered=%t", ordered), func(b *testing.B) {
			backend, err := bolt.Open(filepath.Join(b.TempDir(), "idem.db"), bolt.Options{})
			require.NoError(b, err)
			s := open(b, backend, idem.Options{SweepInterval: -1})
			ctx := context.Background()
			for range 200 {
				rs := make([]idem.Request, 1000)
				for i := range rs {
					rs[i].Key = uuid(ordered)
				}
				for _, r := range s.ClaimMany(ctx, rs) {
					require.NoError(b, r.Err)
				}
			}
			var failed atomic.Pointer[error]
			b.SetParallelism(64)
			before, ok := written()
			b.ResetTimer()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					c, err := s.Claim(ctx, idem.Request{Key: uuid(ordered)})
					if err == nil {
						err = s.Complete(ctx, c.Token, []byte("ok"))
					}
					if err != nil {
						failed.Store(&err)
						return
					}
				}
			})
			b.StopTimer()
			if err := failed.Load(); err != nil {
				b.Fatal(*err)
			}
			if after, _ := written(); ok {
				b.ReportMetric(float64(after-before)/1024/float64(b.N), "KB-written/op")
			}
		})
	}
}
