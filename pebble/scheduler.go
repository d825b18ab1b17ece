package pebble

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// scheduler decides when Pebble may compact. Like Pebble's default scheduler, it allows
// as many compactions at a time as Pebble finds right. The default one also checks ten
// times a second whether more may run, even in an idle store, which was most of an idle
// Pebble's 2 ms of processor time a second. This one checks when a compaction is
// wanted, when one ends, and when Pebble says that the answer may have changed.
type scheduler struct {
	db   pebble.DBForCompaction
	done func()         // called when a compaction has ended; may be nil
	work sync.WaitGroup // goroutines of grant

	mu       sync.Mutex // after Pebble's own locks
	running  int
	granting bool // grant is running
	again    bool // grant must check once more
	ended    bool
}

var _ pebble.CompactionScheduler = (*scheduler)(nil)

// Register implements pebble.CompactionScheduler.
func (s *scheduler) Register(_ int, db pebble.DBForCompaction) { s.db = db }

// Unregister implements pebble.CompactionScheduler.
func (s *scheduler) Unregister() {
	s.mu.Lock()
	s.ended = true
	s.mu.Unlock()
	s.work.Wait()
}

// TrySchedule implements pebble.CompactionScheduler.
func (s *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.room() {
		// grant may be holding that room, and may have seen nothing waiting.
		s.again = s.again || s.granting
		return false, nil
	}
	s.running++
	return true, grantHandle{s}
}

// UpdateGetAllowedWithoutPermission implements pebble.CompactionScheduler.
func (s *scheduler) UpdateGetAllowedWithoutPermission() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.poke()
}

// room reports whether one more may run.
func (s *scheduler) room() bool {
	return !s.ended && s.running < s.db.GetAllowedWithoutPermission()
}

// poke starts grant in a goroutine, because Pebble's locks may be held here.
func (s *scheduler) poke() {
	switch {
	case s.granting:
		s.again = true
	case s.room():
		s.granting, s.again = true, true
		s.work.Go(s.grant)
	}
}

// grant starts waiting compactions while there is room.
func (s *scheduler) grant() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for s.again && s.room() {
		s.again = false
		s.running++ // before it can end
		s.mu.Unlock()
		waiting, _ := s.db.GetWaitingCompaction()
		began := waiting && s.db.Schedule(grantHandle{s})
		s.mu.Lock()
		if s.again = s.again || began; !began {
			s.running--
		}
	}
	s.granting = false
}

// grantHandle is the permission for one compaction.
type grantHandle struct{ s *scheduler }

// Started implements pebble.CompactionGrantHandle.
func (grantHandle) Started() {}

// MeasureCPU implements pebble.CompactionGrantHandle.
func (grantHandle) MeasureCPU(pebble.CompactionGoroutineKind) {}

// CumulativeStats implements pebble.CompactionGrantHandle.
func (grantHandle) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done implements pebble.CompactionGrantHandle. By now readers see the result of the
// compaction, and none of Pebble's locks is held.
func (h grantHandle) Done() {
	if h.s.done != nil {
		h.s.done()
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.s.running--
	h.s.poke()
}
