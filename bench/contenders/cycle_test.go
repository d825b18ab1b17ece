package contenders

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/codec"
)

func cycleWorkload(callers int) Workload {
	return Workload{Group: CycleDurable, ResultBytes: 256, Procs: 2, Callers: callers}
}

// blind contenders write without a look: they are limits, not ways to claim. What they
// write is compared with what idem writes.
var blind = []string{"limit-log", "raw-bbolt-grouped", "raw-pebble-grouped", "raw-bbolt-two", "raw-pebble-two"}

// Whoever can be used to claim refuses a key that is taken, alone and in a group, and
// still does after closing and opening again: what callers shared is on the disk.
func TestClaimsAreRefused(t *testing.T) {
	t.Parallel()
	const perCaller = 3
	w := cycleWorkload(16)
	for _, c := range rivals(w.Group) {
		if slices.Contains(blind, c.Name) {
			continue
		}
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			in := open(t, c, dir, w)
			work(t, w, in, perCaller)
			require.ErrorIs(t, in.Op(0, 0), errTaken)
			// In a group, the refusal is the answer to its own caller alone.
			work(t, w, Instance{Op: func(worker int, n uint64) error {
				if worker > 0 {
					return in.Op(worker, perCaller+n)
				}
				if err := in.Op(0, 0); !errors.Is(err, errTaken) {
					return errors.Join(errors.New("a second claim was granted"), err)
				}
				return nil
			}}, perCaller)
			require.NoError(t, in.Close())
			in = open(t, c, dir, w)
			defer func() { require.NoError(t, in.Close()) }()
			for caller := range w.Callers {
				for n := range uint64(perCaller) {
					require.ErrorIs(t, in.Op(caller, n), errTaken, "caller %d, cycle %d", caller, n)
				}
			}
			require.NoError(t, in.Op(0, perCaller), "nobody claimed this one")
		})
	}
}

// An operation that cannot write does not answer as if it had.
func TestCyclesFailAloud(t *testing.T) {
	t.Parallel()
	w := cycleWorkload(1)
	for _, c := range rivals(w.Group) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			in := open(t, c, t.TempDir(), w)
			require.NoError(t, in.Op(0, 0))
			require.NoError(t, in.Close())
			require.Error(t, func() (err error) {
				defer func() {
					if v := recover(); v != nil { // Pebble's way
						err = errors.New("panic")
					}
				}()
				return in.Op(0, 1)
			}())
		})
	}
}

// logPairs goes through the log as a recovery would: it ends at the first frame that
// is not whole or not the next one.
func logPairs(t *testing.T, dir string) []pair { return logPairsFrom(t, dir, 1) }

// logPairsFrom does so when the first frame has that number.
func logPairsFrom(t *testing.T, dir string, number uint64) (out []pair) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(dir, "log"))
	require.NoError(t, err)
	le := binary.LittleEndian
	for ; len(log) >= frameHead; number++ {
		n := int(le.Uint32(log[4:]))
		if le.Uint64(log[8:]) != number || frameHead+n > len(log) ||
			le.Uint32(log) != crc32.Checksum(log[4:frameHead+n], castagnoli) {
			break
		}
		for body := log[frameHead : frameHead+n]; len(body) > 0; {
			var got [2][]byte
			for i := range got {
				size, head := binary.Uvarint(body)
				require.Positive(t, head)
				got[i], body = body[head:head+int(size)], body[head+int(size):]
			}
			p := pair{"records", string(got[0]), string(got[1])}
			switch {
			case p.key == codec.MetaKey:
				p.space = "meta"
			case p.value == "":
				p.space = "expiry"
			}
			out = append(out, p)
		}
		log = log[frameHead+n:]
	}
	return out
}
