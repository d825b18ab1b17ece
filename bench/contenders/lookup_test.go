package contenders

import (
	"errors"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// open opens a contender for a test, which is skipped if it is absent.
func open(t *testing.T, c Contender, dir string, w Workload) Instance {
	t.Helper()
	in, err := c.Open(dir, w)
	if errors.Is(err, ErrAbsent) {
		t.Skip(err)
	}
	require.NoError(t, err)
	return in
}

// work has every caller of w run n operations.
func work(t *testing.T, w Workload, in Instance, n uint64) {
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

func lookupWorkload(t *testing.T, group string, keys int) Workload {
	return Workload{Group: group, Keys: NewKeys(keys), ResultBytes: 256, Procs: 2, Callers: 4, Filled: filledFor(t)}
}

func filledFor(t *testing.T) *Filled { return &Filled{Dir: t.TempDir()} }

// rivals are all in a group but idem.
func rivals(group string) []Contender { return All(group)[len(Idem(group)):] }

func TestContendersAreNamedAndDescribed(t *testing.T) {
	t.Parallel()
	for group, least := range map[string]int{
		GetHit: 17, GetMiss: 17, CycleDurable: 17, SweepUnloaded: 5, CycleMemory: 1, ClaimReplay: 6, DoSameCommit: 8,
	} {
		seen := map[string]bool{}
		for _, c := range All(group) {
			require.False(t, seen[c.Name], "%s has %s twice", group, c.Name)
			seen[c.Name] = true
			require.NotContains(t, c.Name, "/", "a slash ends a part of a benchmark's name")
			require.NotEmpty(t, c.Does, c.Name)
		}
		require.GreaterOrEqual(t, len(seen), least, group)
	}
}

// NewKeys(2*storedKeys) begins with the keys of NewKeys(storedKeys), and goes on
// with those that are absent from it.
const storedKeys = 1000

func TestKeysAreAsTheTestsBelieve(t *testing.T) {
	t.Parallel()
	few, many := NewKeys(storedKeys), NewKeys(2*storedKeys)
	for n := range uint64(storedKeys) {
		require.Equal(t, few.Hit(0, n), many.Hit(0, n))
		require.Equal(t, few.Miss(0, n), many.Hit(0, n+storedKeys))
	}
}

// Hits hit: every key that was stored is there with its result, and an operation on
// one that was not stored is an error.
func TestHits(t *testing.T) {
	t.Parallel()
	for _, c := range rivals(GetHit) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			w := lookupWorkload(t, GetHit, storedKeys)
			in := open(t, c, t.TempDir(), w)
			defer func() { require.NoError(t, in.Close()) }()
			work(t, w, in, storedKeys)
			*w.Keys = *NewKeys(2 * storedKeys)
			require.NoError(t, in.Op(0, 0))
			require.ErrorIs(t, in.Op(0, storedKeys), errMissing)
		})
	}
}

// Misses miss, and a miss that finds something is an error.
func TestMisses(t *testing.T) {
	t.Parallel()
	for _, c := range rivals(GetMiss) {
		t.Run(c.Name, func(t *testing.T) {
			t.Parallel()
			w := lookupWorkload(t, GetMiss, 2*storedKeys)
			in := open(t, c, t.TempDir(), w)
			defer func() { require.NoError(t, in.Close()) }()
			work(t, w, in, storedKeys)
			*w.Keys = *NewKeys(storedKeys)
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
		{GetHit, 256 + 7, nil, nil},
		{GetHit, 256 + 6, nil, errShort},
		{GetHit, 0, nil, errShort},
		{GetHit, absent, nil, errMissing},
		{GetHit, 256 + 7, boom, boom},
		{GetMiss, absent, nil, nil},
		{GetMiss, 0, nil, errUnlooked},
		{GetMiss, 256 + 7, nil, errUnlooked},
		{GetMiss, absent, boom, boom},
	} {
		in, err := lookups(lookupWorkload(t, c.group, 1), 7, nil, func(int, string) (int, error) { return c.size, c.err })
		require.NoError(t, err)
		require.Equal(t, c.want, in.Op(0, 0), c)
	}
	require.NoError(t, judgeHit(&idem.Record{Result: make([]byte, 256)}, 256))
	require.Equal(t, errShort, judgeHit(&idem.Record{Result: make([]byte, 255)}, 256))
	require.Len(t, codec.AppendRecord(nil, "key", &engine.Entry{Result: make([]byte, 256)}), recordHead+256)
}
