package pebble

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// scheduler says when Pebble may compact: as many at a time as Pebble itself finds
// right, like the scheduler that it has by default. That one also looks ten times a
// second whether more may run by now, in an idle store too, which is what most of an
// idle Pebble's 2 ms of processor time a second went to. Here it is looked at when a
// compaction is wanted, when one ends, and when Pebble says that it may be different.
type scheduler struct {
	db   pebble.DBForCompaction
	done func()         // called when a compaction has ended; nil: nobody is told
	work sync.WaitGroup // grant

	mu       sync.Mutex // after Pebble's own locks
	running  int
	granting bool // grant runs
	again    bool // and is to look once more
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
		// grant may be the one that takes up the room, and have seen nothing waiting.
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

// poke has grant look for what waits, in a goroutine, because Pebble's locks may be
// held here.
func (s *scheduler) poke() {
	switch {
	case s.granting:
		s.again = true
	case s.room():
		s.granting, s.again = true, true
		s.work.Go(s.grant)
	}
}

// grant lets run what waits, as long as there is room.
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

// Done implements pebble.CompactionGrantHandle. Readers see by now what the compaction
// made, and none of Pebble's locks is held.
func (h grantHandle) Done() {
	if h.s.done != nil {
		h.s.done()
	}
	h.s.mu.Lock()
	defer h.s.mu.Unlock()
	h.s.running--
	h.s.poke()
}
