package pebble

import (
	"context"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// A table that is damaged cannot be compacted, and one day Pebble takes no more writes
// for it, without end and without a word. A commit then waits for damagedBound from when
// the damage is known, and the store says that it is broken, and why. Damage alone
// breaks nothing, and neither does a commit that takes long. What Pebble still holds of
// the commit is left to it: the race detector watches.
func TestC5CommitsThatWaitBesideDamage(t *testing.T) {
	t.Parallel()
	for name, known := range map[string]bool{"known before": true, "found meanwhile": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := context.Background()
			f := newFaulty()
			s := f.open(t)
			e := s.Backend().(*Backend).engine
			require.Equal(t, damagedBound, e.damagedBound)
			e.damagedBound = 50 * time.Millisecond
			tell := e.fatal.listener().BackgroundError
			stick, reached, release := f.sticky(func(op errorfs.Op) bool { return isLog(op) && isSync(op) })
			if known {
				tell(pebble.ErrCorruption)
			}
			_, err := s.Claim(ctx, idem.Request{Key: "first"})
			require.NoError(t, err)
			stick()
			claimed := make(chan error, 1)
			go func() {
				_, err := s.Claim(ctx, idem.Request{Key: "second"})
				claimed <- err
			}()
			<-reached
			if !known {
				for range 1000 {
					runtime.Gosched()
				}
				require.Empty(t, claimed)
				tell(pebble.ErrCorruption)
			}
			within(t, "a commit beside damage", func() { err = <-claimed })
			require.ErrorIs(t, err, idem.ErrBroken)
			require.ErrorIs(t, err, idem.ErrCorrupt)
			require.ErrorContains(t, err, "cannot compact a damaged table")
			_, err = s.Claim(ctx, idem.Request{Key: "first"})
			require.ErrorIs(t, err, idem.ErrBroken)
			release()
			within(t, "Close", func() { _ = s.Close() })
		})
	}
}
