package idem

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/exportfile"
)

// ImportReport says what Import brought.
type ImportReport struct {
	// Records is how many records were imported.
	Records int
	// Expired is how many were left out, because nothing remained of their time.
	Expired int
	// ExportedAt is when the export began, by the clock of its store.
	ExportedAt time.Time
	// Stopped: nothing could be changed in the other store while it was exported, so no
	// record is missing.
	Stopped bool
	// LostUntil is the time up to which records may be missing: the end of the import,
	// unless the other store was stopped. Zero: none are. See Request.IssuedAt.
	LostUntil time.Time
}

// Import brings the records of another store, which Export wrote, into this one. They
// keep their fences, attempts and results, so a token of the other store settles its
// claim here. Leases and retention go on with what remained of them. Fences granted from
// now on are above all that were imported. KeyHash becomes that of the other store.
//
// The store must be empty. From the first record until Import returns nil, it can be
// read and is not written to: claims that would be granted, and operations on tokens, get
// ErrInvalid. That outlives the process. If Import fails or is killed, run it again with
// an export of the same store; it starts over. Records before the failure are not kept.
//
// If the other store was not stopped, records may be missing: a request issued before the
// end of the import that finds none gets ErrTooLate. See ImportReport.
//
// Import reads r to its end and holds one record and one commit in memory. If r can seek,
// as a file can, it is checked as a whole before anything is written. ErrInvalid is
// returned when r is no export, or when the store holds records of its own or a part of
// another store's export; ErrVersion when a newer library wrote the export; ErrCorrupt
// when it is damaged or cut short; ErrFull when the engine has no room.
func (s *Store) Import(ctx context.Context, r io.Reader) (ImportReport, error) {
	if err := s.admit(ctx); err != nil {
		return ImportReport{}, err
	}
	if s.readOnly != nil {
		return ImportReport{}, s.readOnly
	}
	if s.draining.Load() {
		return ImportReport{}, ErrClosed
	}
	if !s.imports.TryLock() {
		return ImportReport{}, invalid("another call is importing into the store; wait for it")
	}
	defer s.imports.Unlock()
	file, err := s.openExport(ctx, r)
	if err != nil {
		return ImportReport{}, err
	}
	resumed := s.time.unfinished.Load()
	secret := s.time.secret.Load()
	if err := s.beginImport(ctx, &file.Header); err != nil {
		return ImportReport{}, err
	}
	in := arrivals{store: s, file: file, begun: resumed}
	if err := in.run(ctx); err != nil {
		if in.begun {
			return in.report, fmt.Errorf("%w; the import has not ended, and the store takes no claims until one has: run it again", err)
		}
		s.time.unfinished.Store(false)
		s.time.secret.Store(secret)
		s.importing.Store(false)
		return in.report, err
	}
	s.importing.Store(false)
	return in.report, nil
}

// importing is the answer to what would change a store that is being imported.
func importing() error {
	return invalid("the store is being imported, and is not written to until that has ended; if the import was interrupted, run it again")
}

// openExport reads the header of an export and decides whether the store can take it.
// If r can seek, it checks the rest too.
func (s *Store) openExport(ctx context.Context, r io.Reader) (*exportfile.Reader, error) {
	seeker, seeks := r.(io.Seeker)
	var start int64
	if seeks { // a pipe is an *os.File as well
		var err error
		start, err = seeker.Seek(0, io.SeekCurrent)
		seeks = err == nil
	}
	file, err := exportfile.NewReader(r)
	if err == nil {
		err = s.takes(ctx, &file.Header)
	}
	if err != nil || !seeks {
		return file, err
	}
	var record exportfile.Record
	for err == nil {
		if file.Records()%importOps == 0 && ctx.Err() != nil {
			return nil, ctx.Err()
		}
		err = file.Next(&record)
	}
	if err != io.EOF {
		return nil, err
	}
	if _, err := seeker.Seek(start, io.SeekStart); err != nil {
		return nil, fmt.Errorf("idem: going back to the start of the export: %w", err)
	}
	return exportfile.NewReader(r)
}

// takes returns nil if the store is empty, or holds a part of an export of the same
// store.
func (s *Store) takes(ctx context.Context, h *exportfile.Header) error {
	if s.time.unfinished.Load() {
		if *s.time.secret.Load() == h.Secret {
			return nil
		}
		return invalid("the store holds a part of another store's export; import that one again, or make a new store for this one")
	}
	for sc, err := range s.scan(ctx, "") {
		if err != nil {
			return err
		}
		if sc.Err != nil || live(sc.Entry, sc.now) {
			return invalid("the store has records of its own; import into a new one")
		}
	}
	return nil
}

// beginImport makes the store ready for the records of an export: it is empty, and from
// now on nothing else writes to it.
func (s *Store) beginImport(ctx context.Context, h *exportfile.Header) error {
	if s.time.unfinished.Load() {
		return s.clear(ctx)
	}
	s.importing.Store(true)
	err := s.outwaitClaims(ctx) // those that have not seen it
	if err == nil {
		err = s.takes(ctx, h)
	}
	if err != nil {
		s.importing.Store(false)
		return err
	}
	s.time.secret.Store(&h.Secret)
	s.time.unfinished.Store(true) // the next commit saves it
	return nil
}

// clear removes what an earlier try has left. It may have been of an older export, and
// what has left the other store since must not be here.
func (s *Store) clear(ctx context.Context) error {
	var ops []engine.Op
	for sc, err := range s.scan(ctx, "") {
		if err != nil {
			return err
		}
		if ops = append(ops, s.newOp(sc.Key, action{kind: actImport})); len(ops) == importOps {
			if err := s.applyImport(ctx, ops); err != nil {
				return err
			}
			ops = nil
		}
	}
	return s.applyImport(ctx, ops)
}

// applyImport runs ops in one commit. It returns the first error that one of them got.
func (s *Store) applyImport(ctx context.Context, ops []engine.Op) error {
	err := s.apply(ctx, ops)
	for _, op := range ops {
		if err == nil {
			err = own(op).err
		}
	}
	for _, op := range ops {
		own(op).free()
	}
	return err
}

// arrivals are the records of an export on their way into a store.
type arrivals struct {
	store  *Store
	file   *exportfile.Reader
	report ImportReport
	begun  bool // something has been written

	batch []exportfile.Record
	size  int
	fence uint64 // the highest
}

func (a *arrivals) run(ctx context.Context) error {
	a.fence = a.file.Header.Fence
	for {
		var r exportfile.Record
		switch err := a.file.Next(&r); {
		case err == io.EOF:
			return a.end(ctx)
		case err != nil:
			return err
		case r.Expired():
			a.report.Expired++
			continue
		}
		a.batch = append(a.batch, r)
		if a.size += r.Size(); len(a.batch) >= importOps || a.size >= importBytes {
			if err := a.flush(ctx); err != nil {
				return err
			}
		}
	}
}

// flush writes the batch.
func (a *arrivals) flush(ctx context.Context) error {
	s := a.store
	now, _ := s.time.now()
	ops := make([]engine.Op, len(a.batch))
	for i := range a.batch {
		r := &a.batch[i]
		e := r.Entry(now)
		e.Epoch = s.time.epoch
		a.fence = max(a.fence, e.Fence)
		ops[i] = s.newOp(r.Key, action{kind: actImport, entry: e})
	}
	s.time.raise(a.fence) // the commit saves it with the records
	if err := a.apply(ctx, ops); err != nil {
		return err
	}
	a.report.Records += len(a.batch)
	clear(a.batch)
	a.batch, a.size = a.batch[:0], 0
	return nil
}

// apply is applyImport, and notes whether it may have written anything.
func (a *arrivals) apply(ctx context.Context, ops []engine.Op) error {
	err := a.store.applyImport(ctx, ops)
	if err == nil || err != ctx.Err() {
		a.begun = a.begun || len(ops) > 0
	}
	return err
}

// end writes the rest, and opens the store.
func (a *arrivals) end(ctx context.Context) error {
	if err := a.flush(ctx); err != nil {
		return err
	}
	t, h, trailer := a.store.time, &a.file.Header, &a.file.Trailer
	t.raise(max(a.fence, trailer.Fence) + fenceStep())
	lost := t.inherit(h.LostUntil, trailer.Stopped)
	t.unfinished.Store(false)
	if err := a.apply(ctx, []engine.Op{a.store.newOp(anyKey, action{kind: actSave})}); err != nil {
		t.unfinished.Store(true)
		a.begun = true
		return err
	}
	a.report.ExportedAt, a.report.Stopped = time.Unix(0, h.Wall), trailer.Stopped
	if lost != 0 {
		a.report.LostUntil = time.Unix(0, lost)
	}
	return nil
}

// anyKey is for an op that changes no record.
const anyKey = "idem"

const (
	// importOps and importBytes bound one commit of an import, and so its memory.
	importOps   = 1000
	importBytes = 4 << 20
)
