package idem_test

import (
	"context"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
	"github.com/idemkv/idem/pebble"
)

// engines opens each engine in dir.
var engines = map[string]func(t testing.TB, dir string) engine.Backend{
	"memory": func(testing.TB, string) engine.Backend { return memory.New(memory.Options{}) },
	"bolt": func(t testing.TB, dir string) engine.Backend {
		b, err := bolt.Open(filepath.Join(dir, "idem.db"), bolt.Options{})
		require.NoError(t, err)
		return b
	},
	"pebble": func(t testing.TB, dir string) engine.Backend {
		b, err := pebble.Open(filepath.Join(dir, "idem"), pebble.Options{})
		require.NoError(t, err)
		return b
	},
}

// place is a store with a clock of its own.
type place struct {
	*idem.Store
	clock *idemtest.Clock
	dir   string
}

func newPlace(t testing.TB, kind string, from time.Time, o idem.Options) *place {
	t.Helper()
	p := &place{clock: idemtest.NewClock(from), dir: t.TempDir()}
	o.Clock, o.SweepInterval = p.clock, -1
	p.Store = open(t, engines[kind](t, p.dir), o)
	return p
}

// now is the place's wall clock.
func (p *place) now() time.Time {
	wall, _ := p.clock.Now()
	return wall
}

// all returns the place's records, with their times as what remains of them.
func (p *place) all(t testing.TB) map[string]idem.Record {
	t.Helper()
	all := map[string]idem.Record{}
	for r, err := range p.Records(context.Background(), idem.Filter{}) {
		require.NoError(t, err)
		for _, at := range []*time.Time{&r.ClaimedAt, &r.LeaseUntil, &r.FinishedAt, &r.ExpiresAt} {
			if !at.IsZero() {
				*at = time.Unix(1e9, 0).Add(at.Sub(p.now())).UTC()
			}
		}
		all[r.Key] = r
	}
	return all
}
