package txbackend_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/txbackend"
)

// handles counts what is open, and gives each its number.
type handles struct {
	opened, closed atomic.Int64
	err            error
}

func (h *handles) readers() *txbackend.Readers[int64] {
	rs := &txbackend.Readers[int64]{}
	rs.Init(func() (int64, error) {
		if h.err != nil {
			return 0, h.err
		}
		return h.opened.Add(1), nil
	}, func(int64) { h.closed.Add(1) })
	return rs
}

func get(t *testing.T, rs *txbackend.Readers[int64]) *txbackend.Reader[int64] {
	t.Helper()
	r, err := rs.Get()
	require.NoError(t, err)
	return r
}

// A reader is used again until the next commit, and then never.
func TestReadersAreKeptUntilACommit(t *testing.T) {
	t.Parallel()
	h := &handles{}
	rs := h.readers()
	for range 5 {
		r := get(t, rs)
		require.EqualValues(t, 1, r.R)
		rs.Put(r)
	}
	two, three := get(t, rs), get(t, rs)
	require.NotEqual(t, two.R, three.R, "one reader is nobody else's while it is in use")
	rs.Put(two)
	rs.Put(three)
	require.EqualValues(t, 2, h.opened.Load())
	require.Zero(t, h.closed.Load())

	rs.Hold()
	require.EqualValues(t, 2, h.closed.Load(), "what is idle is closed when a commit begins")
	rs.Renew()
	r := get(t, rs)
	require.EqualValues(t, 3, r.R, "what was opened before does not see the commit")
	rs.Put(r)
	require.Same(t, r, get(t, rs))
}

// While a commit is under way none is kept: bbolt would wait for it.
func TestReadersAreNotKeptInACommit(t *testing.T) {
	t.Parallel()
	h := &handles{}
	rs := h.readers()
	before := get(t, rs)
	rs.Hold()
	rs.Put(before)
	require.EqualValues(t, 1, h.closed.Load(), "it was in use when the commit began")
	rs.Put(get(t, rs))
	require.EqualValues(t, 2, h.closed.Load(), "it was opened while the commit was under way")
	across := get(t, rs)
	rs.Renew()
	rs.Put(across)
	require.EqualValues(t, 3, h.closed.Load(), "it may not have seen the commit")
	rs.Hold()
	rs.Hold()
	rs.Put(get(t, rs))
	require.Equal(t, h.opened.Load(), h.closed.Load(), "held twice, as by closing after a commit that never ended")
}

func TestReadersDropAndErrors(t *testing.T) {
	t.Parallel()
	h := &handles{}
	rs := h.readers()
	rs.Drop(get(t, rs))
	require.EqualValues(t, 1, h.closed.Load())
	h.err = errors.New("no")
	_, err := rs.Get()
	require.ErrorIs(t, err, h.err)
}

// However look-ups and commits fall together: a look-up that begins after a commit
// sees it, nobody shares a reader, and in the end all are closed.
func TestReadersRace(t *testing.T) {
	t.Parallel()
	type view struct {
		commit int64
		used   atomic.Bool
		closed atomic.Bool
	}
	var committed, open atomic.Int64
	rs := &txbackend.Readers[*view]{}
	rs.Init(func() (*view, error) {
		open.Add(1)
		return &view{commit: committed.Load()}, nil
	}, func(v *view) {
		if v.closed.Swap(true) || v.used.Load() {
			t.Error("closed twice, or in use")
		}
		open.Add(-1)
	})
	var all sync.WaitGroup
	var told atomic.Int64 // commits that somebody may know of
	for range 4 {
		all.Go(func() {
			for range 5000 {
				known := told.Load()
				r, err := rs.Get()
				if err != nil {
					t.Error(err)
					return
				}
				if r.R.used.Swap(true) || r.R.closed.Load() {
					t.Error("shared, or closed")
				}
				if r.R.commit < known {
					t.Errorf("a look-up sees commit %d, and %d was told of before it began", r.R.commit, known)
				}
				r.R.used.Store(false)
				rs.Put(r)
			}
		})
	}
	for n := range int64(2000) {
		rs.Hold()
		committed.Store(n + 1)
		rs.Renew()
		told.Store(n + 1)
	}
	all.Wait()
	rs.Hold()
	require.Zero(t, open.Load())
}
