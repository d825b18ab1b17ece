package idem

import (
	"context"
	"iter"
	"strings"
	"time"

	"github.com/idemkv/idem/engine"
)

// Filter selects records. Zero fields match all.
type Filter struct {
	// State is the stored state wanted.
	State State
	// Prefix is what the key begins with.
	Prefix string
	// KeyHash is the key's hash by Store.KeyHash, as found in a log or an event. Two
	// keys may share one.
	KeyHash string
	// Unsettled: only records that a claim would answer with ErrHeld. These are the Held
	// ones, and those of Request.HoldUnknown whose lease no longer holds (see also
	// Options.LapseOnOpen). Someone who knows the outcome must settle them.
	Unsettled bool
}

// chooses reports whether f matches the live entry e, given that it matches its key.
func (s *Store) chooses(f *Filter, e *engine.Entry, now engine.Instant) bool {
	if f.State != 0 && e.State != f.State {
		return false
	}
	asked := action{kind: actClaim, leasesFrom: s.leasesFrom}
	return !f.Unsettled || refuseClaim(e, &asked, now) == ErrHeld
}

// Records yields the live records that f matches, in no particular order. A record that
// is live throughout is seen exactly once. One that comes or goes during the loop may
// or may not be seen. The loop body may use the store: no lock or transaction is held
// across it.
//
// A record that cannot be read yields its key and ErrCorrupt or ErrVersion, and the
// loop goes on. Any other error ends it. ErrInvalid is yielded when the engine cannot
// list its records. The records' slices are shared: do not change them.
func (s *Store) Records(ctx context.Context, f Filter) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for sc, err := range s.scan(ctx, f.Prefix) {
			if err != nil {
				yield(Record{}, err)
				return
			}
			if l, ok := s.pick(&f, &sc); ok && !yield(l.Record, l.Err) {
				return
			}
		}
	}
}

// pick returns what a list shows of sc, and whether f matches it at all.
func (s *Store) pick(f *Filter, sc *scanned) (l Listed, ok bool) {
	switch {
	case f.KeyHash != "" && s.KeyHash(sc.Key) != f.KeyHash:
		return l, false
	case sc.Err != nil:
		return Listed{Record{Key: sc.Key}, sc.Err}, true
	case !live(sc.Entry, sc.now) || !s.chooses(f, sc.Entry, sc.now):
		return l, false
	}
	return Listed{s.record(sc.Key, sc.Entry, sc.now, sc.toWall), nil}, true
}

// scanned is an entry with the time from before its page was read. As in Get, the time
// comes first. The loop may take long over a page, and a record extended in that time
// must not be called gone.
type scanned struct {
	engine.Scanned
	now    engine.Instant
	toWall int64
}

// scan yields every entry whose key begins with prefix, expired ones included.
func (s *Store) scan(ctx context.Context, prefix string) iter.Seq2[scanned, error] {
	return func(yield func(scanned, error) bool) {
		sc, ok := s.backend.(engine.Scanner)
		if !ok {
			yield(scanned{}, invalid("%T cannot list its records", s.backend))
			return
		}
		for cursor := ""; ; {
			if err := s.admit(ctx); err != nil {
				yield(scanned{}, err)
				return
			}
			now, toWall := s.time.now()
			page, next, err := s.page(ctx, sc, prefix, cursor)
			if err != nil {
				yield(scanned{}, err)
				return
			}
			for _, e := range page {
				if strings.HasPrefix(e.Key, prefix) && !yield(scanned{e, now, toWall}, nil) {
					return
				}
			}
			if next == "" {
				return
			}
			cursor = next
		}
	}
}

func (s *Store) page(ctx context.Context, sc engine.Scanner, prefix, cursor string) ([]engine.Scanned, string, error) {
	in := s.calls.enter()
	if in == nil {
		return nil, "", s.endedErr()
	}
	defer in.leave()
	page, next, err := sc.Scan(ctx, prefix, cursor)
	return page, next, s.outranked(err)
}

// Stats is what the store holds and has done.
type Stats struct {
	// InFlight, Released, Held, Completed and Failed count live records by state.
	InFlight, Released, Held, Completed, Failed int
	// Lapsed is how many of InFlight have a lease that no longer holds.
	Lapsed int
	// Unsettled is how many records a claim would answer with ErrHeld: all of Held, and
	// those of Lapsed that were claimed with Request.HoldUnknown. Filter.Unsettled lists
	// them.
	Unsettled int
	// OldestInFlight is the age of the oldest claim in flight; zero if none is.
	OldestInFlight time.Duration
	// Expired counts records that readers no longer see and that are not swept yet.
	Expired int
	// Corrupt counts records that cannot be read.
	Corrupt int
	// CacheEntries and CacheBytes are the size of the cache of final records. CacheHits
	// and CacheMisses count look-ups since the store was opened.
	CacheEntries           int
	CacheBytes             int64
	CacheHits, CacheMisses uint64
	// Commits and CommittedOps count the commits since the store was opened and the
	// operations that shared them. A memory engine has no commits.
	Commits, CommittedOps uint64
	// EngineBytes is what the engine takes on disk, or in memory for the memory
	// engine; zero if it does not know.
	EngineBytes int64
}

// Stats counts the records by walking over all of them, page by page, without holding
// up writers. That takes time in proportion to the size of the store, so call it
// rarely. For rates as they happen, use Options.Observer. ErrInvalid is returned when
// the engine cannot list its records.
func (s *Store) Stats(ctx context.Context) (Stats, error) {
	st := Stats{Commits: s.commits.Load(), CommittedOps: s.commitOps.Load()}
	for sc, err := range s.scan(ctx, "") {
		if err != nil {
			return Stats{}, err
		}
		st.count(sc.Scanned, sc.now, s.leasesFrom)
	}
	if c := s.tracker.cache; c != nil {
		st.CacheEntries, st.CacheBytes = c.size()
		st.CacheHits, st.CacheMisses = c.hits.Load(), c.misses.Load()
	}
	if sizer, ok := s.backend.(engine.Sizer); ok {
		var err error
		if st.EngineBytes, err = s.size(sizer); err != nil {
			return Stats{}, err
		}
	}
	return st, nil
}

// size asks the engine. See check.
func (s *Store) size(sizer engine.Sizer) (int64, error) {
	in := s.calls.enter()
	if in == nil {
		return 0, s.endedErr()
	}
	defer in.leave()
	size, err := sizer.Size()
	return size, s.outranked(err)
}

func (st *Stats) count(sc engine.Scanned, now engine.Instant, leasesFrom uint64) {
	e := sc.Entry
	switch {
	case sc.Err != nil:
		st.Corrupt++
	case !live(e, now):
		st.Expired++
	case e.State == InFlight:
		st.InFlight++
		if lapsed(e, now, leasesFrom) {
			st.Lapsed++
			if e.HoldUnknown {
				st.Unsettled++
			}
		}
		st.OldestInFlight = max(st.OldestInFlight, time.Duration(now-e.ClaimedAt))
	case e.State == Released:
		st.Released++
	case e.State == Held:
		st.Held++
		st.Unsettled++
	case e.State == Completed:
		st.Completed++
	case e.State == Failed:
		st.Failed++
	}
}
