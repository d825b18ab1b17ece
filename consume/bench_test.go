package consume_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/memory"
)

// BenchmarkHandle is what consume adds to the handler, which does nothing here.
func BenchmarkHandle(b *testing.B) {
	s, err := idem.New(memory.New(memory.Options{MaxRecords: 1 << 30, MaxBytes: 1 << 40}), idem.Options{})
	require.NoError(b, err)
	defer s.Close()
	c, err := consume.New(s, "billing", func(context.Context, message) error { return nil }, messages())
	require.NoError(b, err)
	ctx, n := context.Background(), 0
	fresh := func() message {
		n++
		return message{strconv.Itoa(n), "12.50"}
	}
	want := func(b *testing.B, r consume.Reason, vs ...consume.Verdict) {
		for _, v := range vs {
			if v.Reason != r {
				b.Fatal(v)
			}
		}
	}
	b.Run("duplicate", func(b *testing.B) {
		m := fresh()
		c.Handle(ctx, m)
		b.ReportAllocs()
		for b.Loop() {
			want(b, consume.Duplicate, c.Handle(ctx, m))
		}
	})
	b.Run("first", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			want(b, consume.Processed, c.Handle(ctx, fresh()))
		}
	})
	for _, size := range []int{10, 100} {
		b.Run(fmt.Sprintf("batch=%d", size), func(b *testing.B) {
			batch := make([]message, size)
			b.ReportAllocs()
			for b.Loop() {
				for i := range batch {
					batch[i] = fresh()
				}
				want(b, consume.Processed, c.HandleBatch(ctx, batch)...)
			}
		})
	}
}
