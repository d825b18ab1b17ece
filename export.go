package idem

import (
	"context"
	"fmt"
	"io"

	"github.com/idemkv/idem/internal/exportfile"
)

// Export writes every live record to w, in a form that a store on any engine can
// Import: results, checkpoints, fences, attempts, and the secret of KeyHash. Keys and
// results are in it as they are, so protect it like the store. Times are written as what
// remains of them.
//
// The store may be used while Export runs. Each record is then as it was at some moment
// during the export. A record that comes or goes during it may or may not be there. What
// changes after that is missing, so the importing store will know up to when requests may
// be unknown to it (see Request.IssuedAt). An export of a store that was opened read-only
// has everything, and says so.
//
// w gets large results piece by piece and needs no buffer. ErrCorrupt or ErrVersion is
// returned, and the export is useless, when a record cannot be read. ErrInvalid is
// returned when the engine cannot list its records, and while the store is being
// imported. An error of w is wrapped.
func (s *Store) Export(ctx context.Context, w io.Writer) error {
	if err := s.admit(ctx); err != nil {
		return err
	}
	if s.importing.Load() {
		return importing()
	}
	now, toWall := s.time.now()
	x, err := exportfile.NewWriter(w, exportfile.Header{
		Wall: max(s.time.wall(now, toWall), 0), LostUntil: s.time.lostToSave(now, toWall),
		Secret: *s.time.secret.Load(), Fence: s.time.fence.Load(),
	})
	if err != nil {
		return writing(err)
	}
	for sc, err := range s.scan(ctx, "") {
		switch {
		case err != nil:
			return err
		case sc.Err != nil:
			return fmt.Errorf("idem: key %s cannot be exported: %w; restore it from a backup, or remove it with Forget if its operation may run again",
				s.KeyHash(sc.Key), sc.Err)
		case !live(sc.Entry, sc.now):
			continue
		}
		if err := x.Record(sc.Key, sc.Entry, sc.now); err != nil {
			return writing(err)
		}
	}
	if s.importing.Load() { // begun since, on an empty store
		return importing()
	}
	if err := x.Close(exportfile.Trailer{Fence: s.time.fence.Load(), Stopped: s.readOnly != nil}); err != nil {
		return writing(err)
	}
	return nil
}

func writing(err error) error { return fmt.Errorf("idem: writing the export: %w", err) }
