package peers

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bench"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// open opens a contender for a test, which is skipped if it is absent.
func open(t *testing.T, c bench.Contender, dir string, w bench.Workload) bench.Instance {
	t.Helper()
	in, err := c.Open(dir, w)
	if errors.Is(err, bench.ErrAbsent) {
		t.Skip(err)
	}
	require.NoError(t, err)
	return in
}

// work has every caller of w run n operations.
func work(t *testing.T, w bench.Workload, in bench.Instance, n uint64) {
	t.Helper()
	var workers sync.WaitGroup
	errs := make([]error, w.Callers)
	for i := range w.Callers {
		workers.Go(func() {
			for j := uint64(0); j < n && errs[i] == nil; j++ {
				errs[i] = in.Op(i, j)
			}
		})
	}
	workers.Wait()
	require.NoError(t, errors.Join(errs...))
}

func lookupWorkload(group string, keys int) bench.Workload {
	return bench.Workload{Group: group, Keys: bench.NewKeys(keys), ResultBytes: 256, Procs: 2, Callers: 4}
}

func TestContendersAreNamedAndDescribed(t *testing.T) {
	t.Parallel()
	for group, least := range map[string]int{
		bench.GetHit: 12, bench.GetMiss: 12, bench.CycleDurable: 15, bench.SweepUnloaded: 2,
		bench.CycleMemory: 0, bench.ClaimReplay: 0, bench.DoSameCommit: 2,
	} {
		seen := map[string]bool{}
		for _, c := range Contenders(bench.Workload{Group: group}) {
			require.False(t, seen[c.Name], "%s has %s twice", group, c.Name)
			seen[c.Name] = true
			require.NotEmpty(t, c.Does, c.Name)
			require.NotNil(t, c.Open, c.Name)
		}
		require.GreaterOrEqual(t, len(seen), least, group)
	}
	names := map[string]bool{}
	for _, group := range []string{bench.GetHit, bench.CycleDurable, bench.DoSameCommit, bench.SweepUnloaded} {
		for _, c := range Contenders(bench.Workload{Group: group}) {
			names[c.Name] = true
		}
	}
	// What the table of ratios looks for.
	for _, name := range []string{
		bench.RawBoltView, bench.RawPebbleGet, bench.RawPebbleSeek, bench.RawBoltTwo, bench.RawPebbleTwo,
		bench.RawBoltGroup, bench.RawPebbleGroup, bench.RawBoltUpdate, bench.RawBoltBatch, bench.RawPebblePerOp,
		bench.RawBoltOne, bench.RawBoltHalves, bench.LimitLog, bench.RawBoltDelete, bench.RawPebbleDelete, bench.FloorMaps + "/xsync", bench.RawMaps + "/sync.Map",
	} {
		require.Contains(t, names, name)
	}
}

// NewKeys(2*storedKeys) begins with the keys of NewKeys(storedKeys), and goes on
// with those that are absent from it.
const storedKeys = 1000

func TestKeysAreAsTheTestsBelieve(t *testing.T) {
	t.Parallel()
	few, many := bench.NewKeys(storedKeys), bench.NewKeys(2*storedKeys)
	for n := range uint64(storedKeys) {
		require.Equal(t, few.Hit(0, n), many.Hit(0, n))
		require.Equal(t, few.Miss(0, n), many.Hit(0, n+storedKeys))
	}
}

// Hits hit: every key that was stored is there with its result, and an operation on
// one that was not stored is an error.
func TestHits(t *testing.T) {
	t.Parallel()
	for _, c := range Contenders(lookupWorkload(bench.GetHit, 1)) {
		t.Run(bench.Label(c.Name), func(t *testing.T) {
			t.Parallel()
			w := lookupWorkload(bench.GetHit, storedKeys)
			in := open(t, c, t.TempDir(), w)
			defer func() { require.NoError(t, in.Close()) }()
			work(t, w, in, storedKeys)
			*w.Keys = *bench.NewKeys(2 * storedKeys)
			require.NoError(t, in.Op(0, 0))
			require.ErrorIs(t, in.Op(0, storedKeys), errMissing)
		})
	}
}

// Misses miss, and a miss that finds something is an error.
func TestMisses(t *testing.T) {
	t.Parallel()
	for _, c := range Contenders(lookupWorkload(bench.GetMiss, 1)) {
		t.Run(bench.Label(c.Name), func(t *testing.T) {
			t.Parallel()
			w := lookupWorkload(bench.GetMiss, 2*storedKeys)
			in := open(t, c, t.TempDir(), w)
			defer func() { require.NoError(t, in.Close()) }()
			work(t, w, in, storedKeys)
			*w.Keys = *bench.NewKeys(storedKeys)
			require.ErrorIs(t, in.Op(0, 0), errUnlooked)
		})
	}
}

// A value that is shorter than what was stored is no hit, and an error of the
// contender is the operation's.
func TestLookupsJudge(t *testing.T) {
	t.Parallel()
	boom := errors.New("boom")
	for _, c := range []struct {
		group     string
		size      int
		err, want error
	}{
		{bench.GetHit, 256 + 7, nil, nil},
		{bench.GetHit, 256 + 6, nil, errShort},
		{bench.GetHit, 0, nil, errShort},
		{bench.GetHit, absent, nil, errMissing},
		{bench.GetHit, 256 + 7, boom, boom},
		{bench.GetMiss, absent, nil, nil},
		{bench.GetMiss, 0, nil, errUnlooked},
		{bench.GetMiss, 256 + 7, nil, errUnlooked},
		{bench.GetMiss, absent, boom, boom},
	} {
		in := lookups(lookupWorkload(c.group, 1), 7, nil, func(int, string) (int, error) { return c.size, c.err })
		require.Equal(t, c.want, in.Op(0, 0), c)
	}
	require.NoError(t, judgeHit(&idem.Record{Result: make([]byte, 256)}, 256))
	require.Equal(t, errShort, judgeHit(&idem.Record{Result: make([]byte, 255)}, 256))
	require.Len(t, codec.AppendRecord(nil, "key", &engine.Entry{Result: make([]byte, 256)}), recordHead+256)
}
