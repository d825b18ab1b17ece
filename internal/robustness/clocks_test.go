package robustness

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/storetest"
)

// killers runs so many killers of an engine, each with a store of its own that lives up
// to most kills.
func killers(t *testing.T, engine string, most int, attack func(k *killer, kills int)) {
	t.Helper()
	kills := most
	if testing.Short() {
		kills = most/2 + 1
	}
	kills = int(storetest.Setting(t, roundsEnv, uint64(kills)))
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	var sum tally
	for round := 0; round < kills; round += most {
		k := &killer{t: t, engine: engine, seed: seed, rng: rand.New(rand.NewPCG(seed, uint64(round))), dir: keptDir(t), round: round}
		attack(k, min(most, kills-round))
		sum.add(k.tally)
		if t.Failed() {
			return
		}
		_ = os.RemoveAll(k.dir)
	}
	t.Logf("seed %d: %v", seed, sum)
}

// Each life of a store has a wall clock of its own, that is right or not, and days may
// pass between two lives. Nothing is forgotten before its time, fences grow, and stale
// tokens fit nothing.
func TestCrashClocks(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, engine string) {
		killers(t, engine, 8, func(k *killer, kills int) {
			skew := &oracle.Skew{}
			var moved []*oracle.Event
			var plans []Plan
			ahead := time.Duration(0)
			day := int64(24 * time.Hour)
			move := func() { // the events of the life that is over
				skew.Life(plans[len(plans)-1].Walls, time.Now().UnixNano()+int64(ahead), k.now)
				moved = append(moved, k.now...)
			}
			k.alter = func(p *Plan) {
				if k.lives > 1 { // nobody looks at the times of the life before any more
					move()
				}
				ahead += []time.Duration{0, 0, time.Hour, 48 * time.Hour, 200 * time.Hour}[k.rng.IntN(5)]
				now := time.Now().UnixNano() + int64(ahead)
				reading := func() int64 {
					return []int64{0, 0, 3e9 - now, 10 * 365 * day, -day}[k.rng.IntN(5)]
				}
				p.From, p.Ahead = max(p.From, now), ahead
				p.Walls = oracle.Walls{First: reading()}
				p.Walls.Then = p.Walls.First
				if k.rng.IntN(2) == 0 {
					p.Walls.Then, p.Walls.At = reading(), p.From+k.rng.Int64N(int64(400*time.Millisecond))
				}
				if k.rng.IntN(2) == 0 {
					p.Load.Retention = time.Duration(20 * day)
				}
				plans = append(plans, *p)
			}
			k.judge = func(c *oracle.Checker) error {
				move()
				c.Loosen()
				k.events = moved
				if err := k.history(c); err != nil {
					return fmt.Errorf("%w\nThe clocks: %+v", err, wallsOf(plans))
				}
				return nil
			}
			k.attack(kills)
		})
	})
}

func wallsOf(plans []Plan) (walls []oracle.Walls) {
	for _, p := range plans {
		walls = append(walls, p.Walls)
	}
	return walls
}

// A closed store is copied, goes on, and the copy is put back: what was done since is
// forgotten, and its tokens fit nothing that the store goes on to grant.
func TestCrashRestored(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, engine string) {
		killers(t, engine, 6, func(k *killer, kills int) {
			var lost []*oracle.Event
			k.judge = func(c *oracle.Checker) error {
				before := len(k.events) - len(k.now)
				c.Load(k.events[:before])
				if err := c.All(); err != nil {
					return err
				}
				c.Lose(lost)
				c.Load(k.now)
				err := c.All()
				k.tally.answered, k.tally.cut, k.tally.most = c.Tally()
				if err == nil {
					err = sameSecret(k.events, lost)
				}
				return err
			}
			k.restored(kills, &lost)
		})
	})
}

// restored kills the store, copies it closed, kills it again, restores the copy, and has
// it live once more, with the tokens of the time that was lost.
func (k *killer) restored(kills int, lost *[]*oracle.Event) {
	for k.tally.kills < kills/2 && !k.t.Failed() {
		k.live(true)
	}
	k.live(false) // it ends closed
	store, backup := filepath.Join(k.dir, "store"), filepath.Join(k.dir, "backup")
	k.must(copyStore(store, backup))
	kept := len(k.events)
	for k.tally.kills < kills && !k.t.Failed() {
		k.live(true)
	}
	if k.t.Failed() {
		return
	}
	*lost = append(*lost, k.events[kept:]...)
	k.events = k.events[:kept:kept]
	k.must(os.RemoveAll(store))
	k.must(copyStore(backup, store))
	stale := map[string][]uint64{}
	for _, e := range *lost {
		if e.Audit != nil {
			for key, r := range e.Audit.Records {
				stale[key] = append(stale[key], r.Fence)
			}
		}
	}
	calls := map[int64]*oracle.Op{}
	for _, e := range *lost {
		if e.Call != nil {
			calls[e.Call.ID] = e.Call
		} else if e.Return != nil && e.Return.Record != nil {
			key := calls[e.Return.ID].Key
			stale[key] = append(stale[key], e.Return.Record.Fence)
		}
	}
	k.alter = func(p *Plan) { p.Stale = stale }
	k.end()
}

// sameSecret returns an error if the lives do not all give a key the same hash. The
// secret of a new store is saved with its first commit.
func sameSecret(lives ...[]*oracle.Event) error {
	saved, now := "", ""
	for _, events := range lives {
		for _, e := range events {
			if n, _ := fmt.Sscanf(e.Note, hashNote, &now); n == 1 && saved != "" && now != saved {
				return fmt.Errorf("a key has the hash %s in one life and %s in another", saved, now)
			}
			if e.Return != nil && e.Return.Err == oracle.OK && e.Return.Record != nil {
				saved = now
			}
		}
	}
	if saved == "" {
		return errors.New("no life has told the hash of a key")
	}
	return nil
}

func (k *killer) must(err error) {
	k.t.Helper()
	if err != nil {
		k.t.Fatal(err)
	}
}

// copyStore copies a file, or a folder.
func copyStore(from, to string) error {
	info, err := os.Stat(from)
	if err != nil {
		return err
	}
	if info.IsDir() {
		return os.CopyFS(to, os.DirFS(from))
	}
	b, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, b, 0o600)
}
