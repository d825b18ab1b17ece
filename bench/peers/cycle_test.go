package peers

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dgraph-io/badger/v4"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bench"
	"github.com/idemkv/idem/internal/codec"
)

func cycleWorkload(callers int) bench.Workload {
	return bench.Workload{Group: bench.CycleDurable, ResultBytes: 256, Procs: 2, Callers: callers}
}

// A reader opens what a contender has left in dir, and returns the result under a
// key, nil if there is none.
type reader func(t *testing.T, dir string) (get func(key string) []byte)

// readers are by the beginning of a contender's name.
var readers = map[string]reader{
	"limit/log":  readLog,
	"raw-bbolt":  readBolt,
	"raw-pebble": readPebble,
	"badger":     readBadger,
	"sqlite":     readSQLite,
	"redis":      readRedis,
}

func readerOf(t *testing.T, c bench.Contender) reader {
	t.Helper()
	for prefix, r := range readers {
		if strings.HasPrefix(c.Name, prefix) {
			return r
		}
	}
	t.Fatalf("no test knows how to read what %s writes", c.Name)
	return nil
}

// A cycle leaves its result on the disk, also when callers share commits: it is
// there after closing and opening again, for every one of them.
func TestCyclesAreThereAfterReopen(t *testing.T) {
	t.Parallel()
	const perCaller = 3
	for _, callers := range []int{1, 16} {
		w := cycleWorkload(callers)
		for _, c := range Contenders(w) {
			t.Run(bench.Label(c.Name), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				in := open(t, c, dir, w)
				work(t, w, in, perCaller)
				require.NoError(t, in.Close())
				get := readerOf(t, c)(t, dir)
				for caller := range callers {
					for n := range uint64(perCaller) {
						require.Equal(t, w.Result(), get(bench.Fresh(caller, n)))
					}
				}
				require.Nil(t, get(bench.Fresh(0, perCaller)), "nobody wrote this one")
			})
		}
	}
}

// blind contenders write without a look: they are limits, not ways to claim.
func blind(name string) bool {
	for _, limit := range []string{bench.LimitLog, bench.RawBoltGroup, bench.RawPebbleGroup, bench.RawBoltTwo, bench.RawPebbleTwo} {
		if strings.HasPrefix(name, limit) {
			return true
		}
	}
	return false
}

// Whoever can be used to claim refuses a key that is taken, and says so, alone
// and in a group.
func TestClaimsAreRefused(t *testing.T) {
	t.Parallel()
	w := cycleWorkload(4)
	for _, c := range Contenders(w) {
		if blind(c.Name) {
			continue
		}
		t.Run(bench.Label(c.Name), func(t *testing.T) {
			t.Parallel()
			in := open(t, c, t.TempDir(), w)
			defer func() { require.NoError(t, in.Close()) }()
			require.NoError(t, in.Op(0, 0))
			require.ErrorIs(t, in.Op(0, 0), errTaken)
			// In a group, the refusal is the answer to its own caller alone.
			work(t, w, bench.Instance{Op: func(worker int, n uint64) error {
				if worker == 0 {
					if err := in.Op(0, 0); !errors.Is(err, errTaken) {
						return fmt.Errorf("a second claim was answered with %w", err)
					}
					return nil
				}
				return in.Op(worker, n)
			}}, 5)
		})
	}
}

// An operation that cannot write does not answer as if it had.
func TestCyclesFailAloud(t *testing.T) {
	t.Parallel()
	w := cycleWorkload(1)
	for _, c := range Contenders(w) {
		t.Run(bench.Label(c.Name), func(t *testing.T) {
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

// result decodes a record and returns its result if it is completed.
func result(t *testing.T, key string, value []byte) []byte {
	t.Helper()
	if value == nil {
		return nil
	}
	e, err := codec.DecodeRecord(key, value)
	require.NoError(t, err)
	require.Equal(t, idem.Completed, e.State)
	return e.Result
}

func readBolt(t *testing.T, dir string) func(string) []byte {
	db, err := openBolt(filepath.Join(dir, "raw.db"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return func(key string) (got []byte) {
		require.NoError(t, db.View(func(tx *bbolt.Tx) error {
			got = result(t, key, tx.Bucket(boltRecords).Get([]byte(key)))
			return nil
		}))
		return got
	}
}

func readPebble(t *testing.T, dir string) func(string) []byte {
	db, err := openPebble(filepath.Join(dir, "raw"))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return func(key string) []byte {
		value, err := pebbleGet(db, nil, []byte(pebbleRecords+key))
		require.NoError(t, err)
		return result(t, key, value)
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

func readLog(t *testing.T, dir string) func(string) []byte {
	records := map[string]string{}
	for _, p := range logPairs(t, dir) {
		records[p.key] = p.value
	}
	return func(key string) []byte {
		if value, found := records[key]; found {
			return result(t, key, []byte(value))
		}
		return nil
	}
}

func readBadger(t *testing.T, dir string) func(string) []byte {
	db, err := badger.Open(badgerOptions(dir))
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	return func(key string) (got []byte) {
		err := db.View(func(tx *badger.Txn) error {
			item, err := tx.Get([]byte(key))
			if err != nil {
				return err
			}
			require.NotZero(t, item.ExpiresAt(), "it has a TTL")
			got, err = item.ValueCopy(nil)
			return err
		})
		if !errors.Is(err, badger.ErrKeyNotFound) {
			require.NoError(t, err)
		}
		return got
	}
}

func readSQLite(t *testing.T, dir string) func(string) []byte {
	db, err := openSQLite(dir, 1, false)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, db.Close()) })
	stmt, err := db.Prepare(`SELECT state, result FROM claims WHERE key = ?`)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, stmt.Close()) })
	return func(key string) (got []byte) {
		rows, err := stmt.Query([]byte(key))
		require.NoError(t, err)
		for rows.Next() {
			var state int
			require.NoError(t, rows.Scan(&state, &got))
			require.Equal(t, 2, state)
		}
		require.NoError(t, errors.Join(rows.Err(), rows.Close()))
		return got
	}
}

func readRedis(t *testing.T, dir string) func(string) []byte {
	p, err := openRedis(dir, 1)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, p.close()) })
	ctx := context.Background()
	return func(key string) []byte {
		got, err := p.client.Get(ctx, key).Bytes()
		if err != nil {
			require.ErrorContains(t, err, "nil")
			return nil
		}
		ttl, err := p.client.PTTL(ctx, key).Result()
		require.NoError(t, err)
		require.Positive(t, ttl, "it has a TTL")
		require.LessOrEqual(t, ttl, retention)
		return got
	}
}
