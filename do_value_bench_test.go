package idem_test

import (
	"context"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/memory"
)

// BenchmarkDoValue is what a value costs to record, and to replay.
func BenchmarkDoValue(b *testing.B) {
	b.Run("bytes", func(b *testing.B) { benchmarkValue(b, make([]byte, 16<<10)) })
	b.Run("struct", func(b *testing.B) { benchmarkValue(b, receipt{"r1", 1999, []string{"tea", "milk"}}) })
	b.Run("string", func(b *testing.B) { benchmarkValue(b, "charged") })
	b.Run("map", func(b *testing.B) { benchmarkValue(b, map[string]any{"id": "r1", "cents": 1999}) })
}

func benchmarkValue[T any](b *testing.B, v T) {
	fn := func(context.Context, idem.Claim) (T, error) { return v, nil }
	b.Run("first", func(b *testing.B) {
		s := open(b, memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
		b.ReportAllocs()
		for i := 0; b.Loop(); i++ {
			r := idem.Request{Key: strconv.Itoa(i % 1000)}
			_, replayed, err := idem.Do(b.Context(), s, r, fn)
			if replayed || err != nil {
				b.Fatal(replayed, err)
			}
			if err := s.Forget(b.Context(), idem.Token{Key: r.Key}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("replay", func(b *testing.B) {
		s := open(b, memory.New(memory.Options{}), idem.Options{SweepInterval: -1})
		_, _, err := idem.Do(b.Context(), s, k, fn)
		require.NoError(b, err)
		b.ReportAllocs()
		for b.Loop() {
			if _, replayed, err := idem.Do(b.Context(), s, k, fn); !replayed || err != nil {
				b.Fatal(replayed, err)
			}
		}
	})
}
