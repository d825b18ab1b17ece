package peers

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bench"
	"github.com/idemkv/idem/engine"
)

// fillBatch is how many records a commit of a fill has, in rivals as in idem.
const fillBatch = 20_000

// fillIdem makes a store of idem's with the keys of w in dir, settled and closed, so
// that a bare engine reads and deletes the very bytes that idem does, lying as they
// lie for idem.
func fillIdem(name, dir string, w bench.Workload) (err error) {
	for _, e := range bench.Engines() {
		if e.Name != name {
			continue
		}
		s, err := bench.OpenStore(e, dir, idem.Options{MaxBatch: fillBatch, CacheBytes: -1, SweepInterval: -1})
		if err != nil {
			return err
		}
		ctx := context.Background()
		err = bench.Fill(ctx, s, w, 0, w.Keys.Len(), 0)
		if err == nil && e.Settle != nil {
			err = e.Settle(ctx, engine.Of(s))
		}
		return errors.Join(err, s.Close())
	}
	return fmt.Errorf("peers: idem has no engine %q", name)
}

// fillBolt returns the file of a filled store.
func fillBolt(dir string, w bench.Workload) (path string, err error) {
	return filepath.Join(dir, "idem.db"), fillIdem("bolt", dir, w)
}

// fillPebble returns the database's directory in a filled store.
func fillPebble(dir string, w bench.Workload) (path string, err error) {
	return filepath.Join(dir, "idem", "db"), fillIdem("pebble", dir, w)
}
