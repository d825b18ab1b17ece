package robustness

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/idemkv/idem/internal/storetest"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/race"
)

// mover moves a store under its owner.
type mover struct {
	t      *testing.T
	engine string
	rng    *rand.Rand
	plan   Plan
	older  string // a copy of the store, from before its owner's last life
	fresh  string // another store
	moved  string // where the owner's store is now; empty: nowhere
	ops    int    // of the owner; 0: many
	worked int64  // how much its journal has to grow before the store is moved
}

// moves are what may happen to an open store. Each sets moved.
var moves = map[string]func(m *mover) error{
	"renamed": func(m *mover) error { return os.Rename(m.plan.Path, m.moved) },
	"removed": func(m *mover) error {
		if m.engine == "pebble" { // nothing is left to be judged
			m.moved = ""
			err := os.RemoveAll(m.plan.Path)
			for n := 0; errors.Is(err, syscall.ENOTEMPTY) && n < 1000; n++ { // its owner makes files
				err = os.RemoveAll(m.plan.Path)
			}
			return err
		}
		return errors.Join(os.Link(m.plan.Path, m.moved), os.Remove(m.plan.Path))
	},
	"replaced by a fresh store":   func(m *mover) error { return m.replace(m.fresh) },
	"replaced by its older copy":  func(m *mover) error { return m.replace(m.older) },
	"the folder above it renamed": func(m *mover) error { return m.away() },
}

// replace puts another store in the place of the owner's.
func (m *mover) replace(by string) error {
	if m.engine == "bolt" {
		return errors.Join(os.Link(m.plan.Path, m.moved), os.Rename(by, m.plan.Path))
	}
	return errors.Join(os.Rename(m.plan.Path, m.moved), os.Rename(by, m.plan.Path))
}

func (m *mover) away() error {
	home := filepath.Dir(m.plan.Path)
	m.moved = filepath.Join(home+".away", filepath.Base(m.plan.Path))
	return os.Rename(home, home+".away")
}

// prepare has the owner live a first life.
func (m *mover) prepare() {
	t := m.t
	m.plan = ownerPlan(t, m.engine, m.rng)
	dir := filepath.Dir(filepath.Dir(m.plan.Path))
	m.older, m.fresh, m.moved = filepath.Join(dir, "older"), filepath.Join(dir, "fresh"), filepath.Join(dir, "moved")
	first := m.plan
	first.Load.Ops = 200
	o, err := own(first)
	require.NoError(t, err)
	require.NoError(t, o.end())
	require.NoError(t, copyStore(m.plan.Path, m.older))
	s, err := Open(m.engine, m.fresh, Sizes{}, idem.Options{})
	require.NoError(t, err)
	_, err = s.Store.Claim(context.Background(), idem.Request{Key: "theirs"})
	require.NoError(t, err)
	require.NoError(t, s.Store.Close())
}

// attack has the owner work, moves its store at a random moment, and judges.
func (m *mover) attack(move func(*mover) error) error {
	m.prepare()
	p := m.plan
	p.Life.N, p.Load.Life, p.Load.Seed = 2, 2, m.rng.Uint64()
	p.Breaks, p.Load.Ops = true, cmp.Or(m.ops, 30_000) // in the midst of which it hears of it
	if before, err := os.Stat(p.Journal); err == nil {
		m.worked += before.Size()
	}
	o, err := own(p)
	if err != nil {
		return err
	}
	<-time.After(time.Duration(m.rng.Int64N(int64(60 * time.Millisecond))))
	if err := m.works(); err != nil {
		return errors.Join(err, o.end())
	}
	if err := move(m); err != nil {
		return errors.Join(err, o.end())
	}
	theirs, err := digest(p.Path)
	if err := errors.Join(err, o.end()); err != nil {
		return err
	}
	return m.judge(o, theirs)
}

// works returns when the owner's journal has grown as much as it has to.
func (m *mover) works() error {
	for {
		now, err := os.Stat(m.plan.Journal)
		if err != nil || now.Size() >= m.worked {
			return err
		}
		<-time.After(time.Millisecond)
	}
}

// judge judges what the owner has left, and what is in the place of its store.
func (m *mover) judge(o *owner, theirs map[string][32]byte) error {
	broke, err := o.judge(m.moved)
	if err != nil {
		return err
	}
	if !broke {
		return errors.New("nobody heard that the store had been moved")
	}
	return unlike(m.plan.Path, theirs)
}

// unlike returns an error if the files of the store at path are not what they were.
func unlike(path string, were map[string][32]byte) error {
	now, err := digest(path)
	if err != nil {
		return err
	}
	for name, sum := range now {
		if was, there := were[name]; !there || was != sum {
			return fmt.Errorf("%s of the store that took the place was written", name)
		}
	}
	if len(now) < len(were) {
		return fmt.Errorf("%d files of the store that took the place are gone", len(were)-len(now))
	}
	return nil
}

// digest is every file under path, by its name; none if there is nothing.
func digest(path string) (map[string][32]byte, error) {
	sums := map[string][32]byte{}
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(name)
		sums[name] = sha256.Sum256(b)
		return err
	})
	if errors.Is(err, fs.ErrNotExist) {
		err = nil
	}
	return sums, err
}

// While its owner works, a store is renamed, removed or replaced. With its next commit
// the owner knows, and nothing is answered any more; what was answered is in the store,
// wherever that is; and the store that took its place is left alone.
func TestCrashMoved(t *testing.T) {
	t.Parallel()
	locks(t)
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	eachEngine(t, func(t *testing.T, engine string) {
		for name, move := range moves {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				rounds := 1 + storetest.Setting(t, roundsEnv, 0)/20
				for round := range rounds {
					m := &mover{t: t, engine: engine, rng: rand.New(rand.NewPCG(seed, round))}
					require.NoError(t, m.attack(move), "round %d of seed %d, in %s", round, seed, filepath.Dir(filepath.Dir(m.plan.Path)))
				}
				t.Logf("seed %d: %d rounds; %s", seed, rounds, verdict(t))
			})
		}
	})
}

// The judge of moved stores would notice.
func TestMovedNoticesMutants(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	locks(t)
	for name, c := range map[string]struct {
		move func(m *mover) error
		says string
	}{
		"an owner that does not look": {func(m *mover) error { m.moved = m.plan.Path; return nil }, "the store was moved, and"},
		"answers that are lost": {func(m *mover) error {
			err := os.Rename(m.plan.Path, m.moved)
			m.moved = m.older
			return err
		}, "after the"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := &mover{t: t, engine: "bolt", ops: 500, worked: 32 << 10, rng: rand.New(rand.NewPCG(1, 1))}
			err := m.attack(c.move)
			require.ErrorContains(t, err, c.says)
			t.Logf("%.200v", err)
		})
	}
	m := &mover{t: t, engine: "pebble", rng: rand.New(rand.NewPCG(1, 1))}
	m.prepare()
	theirs, err := digest(m.fresh)
	require.NoError(t, err)
	require.NoError(t, unlike(m.fresh, theirs))
	require.NoError(t, os.WriteFile(filepath.Join(m.fresh, "db", "000009.sst"), nil, 0o600))
	require.ErrorContains(t, unlike(m.fresh, theirs), "was written")
	require.Error(t, locked("bolt", filepath.Join(t.TempDir(), "store")), "of nobody")
}
