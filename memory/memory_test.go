package memory_test

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestConformance(t *testing.T) {
	t.Parallel()
	idemtest.Run(t, idemtest.Harness{
		Open:     func(testing.TB, string) engine.Backend { return memory.New(memory.Options{}) },
		Volatile: true,
		OpenBounded: func(_ testing.TB, _ string, records int) engine.Backend {
			return memory.New(memory.Options{MaxRecords: int64(records)})
		},
	})
}

// The bound on bytes is for every claim, not only for new keys: records that are
// claimed again grow too.
func TestMaxBytesHoldsForClaimsOfRecordsThatAreThere(t *testing.T) {
	t.Parallel()
	ctx := context.Background()
	b := memory.New(memory.Options{MaxBytes: 10 << 10})
	s, err := idem.New(b, idem.Options{SweepInterval: -1})
	require.NoError(t, err)
	defer func() { _ = s.Close() }()
	var keys []string
	for i := range 20 {
		keys = append(keys, fmt.Sprint("k", i))
		c, err := s.Claim(ctx, idem.Request{Key: keys[i]})
		require.NoError(t, err)
		require.NoError(t, s.Release(ctx, c.Token, nil))
	}
	granted := 0
	for _, key := range keys {
		c, err := s.Claim(ctx, idem.Request{Key: key})
		if err != nil {
			require.ErrorIs(t, err, idem.ErrFull)
			continue
		}
		granted++
		require.NoError(t, s.Complete(ctx, c.Token, make([]byte, 1<<20)))
	}
	require.Equal(t, 1, granted)
	size, err := b.Size()
	require.NoError(t, err)
	require.Less(t, size, int64(2<<20))
}
