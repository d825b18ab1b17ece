package robustness

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/pebble"
)

// Backups of stores that 16 callers use, restored and held against a journal. What was
// acknowledged before a backup began is in it, byte for byte, with the caller's own data.
// What is in it was asked for before it ended. Make backup runs many rounds.
func TestBackup(t *testing.T) {
	t.Parallel()
	rounds := int(storetest.Setting(t, roundsEnv, 1))
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	eachEngine(t, func(t *testing.T, name string) {
		tally := map[string]int{}
		for round := range rounds {
			dir := keptDir(t)
			b := newBackupTrial(name, dir, rand.New(rand.NewPCG(seed, uint64(round))), tally)
			if err := b.run(t.Context()); err != nil {
				t.Fatalf("%s, seed %d, round %d: %v\nThe store and its backups are in %s. Try it again:\n\tmake backup ENGINE=%s SEED=%d ROUNDS=%d",
					name, seed, round+1, err, dir, name, seed, round+1)
			}
			_ = os.RemoveAll(dir)
		}
		t.Logf("%s, seed %d: %d rounds: %s; %s", name, seed, rounds, storetest.Told(tally), verdict(t))
	})
}

// completion is what a caller asked for.
type completion struct {
	result []byte
	own    bool // with a ledger entry in the same commit
	acked  bool
}

// journal is what all callers asked for, and what they were told.
type journal struct {
	mu    sync.Mutex
	asked map[string]completion
}

func (j *journal) set(key string, c completion) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.asked[key] = c
}

func (j *journal) now() map[string]completion {
	j.mu.Lock()
	defer j.mu.Unlock()
	return maps.Clone(j.asked)
}

const (
	backupCallers = 16
	backupsEach   = 3 // of one store
)

// backupTrial is one store, its traffic and its backups.
type backupTrial struct {
	engine, dir string
	rng         *rand.Rand
	journal     journal
	tally       map[string]int
	ops         atomic.Int64
	more        chan struct{} // something was sent since an operation ended
}

func newBackupTrial(engine, dir string, rng *rand.Rand, tally map[string]int) *backupTrial {
	return &backupTrial{
		engine: engine, dir: dir, rng: rng, tally: tally, more: make(chan struct{}, 1),
		journal: journal{asked: map[string]completion{}},
	}
}

func (b *backupTrial) options() idem.Options {
	return idem.Options{SweepInterval: 5 * time.Millisecond, SweepSlice: 8, MaxResult: 1 << 20}
}

func (b *backupTrial) run(ctx context.Context) error {
	sizes := Sizes{Map: 1 << 15, MemTable: int64([]int{0, 64 << 10, 256 << 10}[b.rng.IntN(3)])}
	s, err := Open(b.engine, filepath.Join(b.dir, "store"), sizes, b.options())
	if err != nil {
		return err
	}
	largest := []int{200, 4 << 10, 32 << 10}[b.rng.IntN(3)]
	stop, cancel := context.WithCancel(ctx)
	failed := make(chan error, backupCallers)
	var callers sync.WaitGroup
	for i := range backupCallers {
		rng := rand.New(rand.NewPCG(b.rng.Uint64(), uint64(i)))
		callers.Go(func() {
			for n := 0; stop.Err() == nil; n++ {
				if err := b.call(ctx, s, fmt.Sprintf("%d/%d", i, n), rng, largest); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	err = b.backups(ctx, s, sizes, failed)
	cancel()
	callers.Wait()
	select {
	case callErr := <-failed:
		err = errors.Join(err, callErr)
	default:
	}
	b.tally["operations"] += int(b.ops.Load())
	return errors.Join(err, s.Store.Close())
}

// call has one operation done and journals it.
func (b *backupTrial) call(ctx context.Context, s oracle.Subject, key string, rng *rand.Rand, largest int) error {
	defer b.done()
	n := 1 + rng.IntN(largest)
	result := make([]byte, n, n+8)
	for i := 0; i < len(result); i += 8 {
		binary.NativeEndian.PutUint64(result[i:i+8], rng.Uint64())
	}
	c := completion{result: result, own: rng.IntN(3) == 0}
	r := idem.Request{Key: key, Lease: time.Hour, Retention: time.Hour}
	b.journal.set(key, c)
	if rng.IntN(4) == 0 { // what the sweep takes away while the pages are copied
		r.Key, r.Retention = "short "+key, time.Millisecond
		if _, err := s.Store.Claim(ctx, r); err != nil {
			return err
		}
		r.Key, r.Retention = key, time.Hour
	}
	var err error
	if c.own {
		_, _, err = s.Do(ctx, r, func(kv oracle.KV) ([]byte, error) {
			kv.Put("entry "+key, result[:min(len(result), 64)])
			return result, nil
		})
	} else {
		var claim idem.Claim
		if claim, err = s.Store.Claim(ctx, r); err == nil {
			err = s.Store.Complete(ctx, claim.Token, result)
		}
	}
	if err != nil {
		return fmt.Errorf("%s: %w", key, err)
	}
	c.acked = true
	b.journal.set(key, c)
	return nil
}

// done counts an operation.
func (b *backupTrial) done() {
	b.ops.Add(1)
	select {
	case b.more <- struct{}{}:
	default:
	}
}

// backups makes backups during the traffic and judges each.
func (b *backupTrial) backups(ctx context.Context, s oracle.Subject, sizes Sizes, failed chan error) error {
	for n := range backupsEach {
		// The first begins at once, later ones after some more traffic.
		for until := b.ops.Load() + int64(n*(50+b.rng.IntN(400))); b.ops.Load() < until; {
			select {
			case err := <-failed:
				return err
			case <-b.more:
			}
		}
		path := filepath.Join(b.dir, fmt.Sprint("backup-", n))
		before := b.journal.now()
		ops := b.ops.Load()
		if err := backUp(ctx, s.Store, path); err != nil {
			return err
		}
		b.tally["operations during backups"] += int(b.ops.Load() - ops)
		after := b.journal.now()
		if err := b.judge(ctx, path, sizes, before, after); err != nil {
			return fmt.Errorf("backup %d: %w", n, err)
		}
		b.tally["backups"]++
	}
	return nil
}

func backUp(ctx context.Context, s *idem.Store, path string) error {
	switch b := engine.Of(s).(type) {
	case *bolt.Backend:
		return b.Backup(ctx, path)
	case *pebble.Backend:
		return b.Backup(ctx, path)
	}
	return errors.New("this engine makes no backups")
}

// judge restores the backup at path and holds it against what was known before and after.
func (b *backupTrial) judge(ctx context.Context, path string, sizes Sizes, before, after map[string]completion) (err error) {
	s, err := Open(b.engine, path, sizes, b.options())
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	defer func() { err = errors.Join(err, s.Store.Close()) }()
	entries := map[string][]byte{}
	if err := s.Own(func(key string, value []byte) { entries[key] = bytes.Clone(value) }); err != nil {
		return err
	}
	restored := map[string]bool{}
	for r, err := range s.Store.Records(ctx, idem.Filter{State: idem.Completed}) {
		if err != nil {
			return err
		}
		c, asked := after[r.Key]
		switch entry, there := entries["entry "+r.Key]; {
		case !asked:
			return fmt.Errorf("%q is completed, and nobody had asked for it", r.Key)
		case !bytes.Equal(c.result, r.Result):
			return fmt.Errorf("%q has other bytes than were asked for", r.Key)
		case c.own != there:
			return fmt.Errorf("%q is completed, and its entry is there: %v, was to be: %v", r.Key, there, c.own)
		case there && !bytes.Equal(entry, c.result[:min(len(c.result), 64)]):
			return fmt.Errorf("the entry of %q has other bytes", r.Key)
		}
		restored[r.Key] = true
	}
	for key, c := range before {
		if c.acked && !restored[key] {
			return fmt.Errorf("%q was acknowledged before the backup began, and is not in it", key)
		}
	}
	own := 0
	for key, c := range after {
		if c.own && restored[key] {
			own++
		}
	}
	if len(entries) != own {
		return fmt.Errorf("%d entries are there, and %d completions with one", len(entries), own)
	}
	b.tally["completions restored"] += len(restored)
	damage := 0
	if err := engine.Of(s.Store).(engine.Verifier).Verify(ctx, func(engine.Damage) { damage++ }); err != nil {
		return err
	}
	if damage > 0 {
		return fmt.Errorf("Verify reports damage, %d times", damage)
	}
	return tooLate(ctx, s.Store)
}

// tooLate checks that a restored store refuses what it may have lost.
func tooLate(ctx context.Context, s *idem.Store) error {
	_, err := s.Claim(ctx, idem.Request{Key: "lost", IssuedAt: time.Now().Add(-time.Minute)})
	if !errors.Is(err, idem.ErrTooLate) {
		return fmt.Errorf("a claim from before the restore is answered %v", err)
	}
	_, err = s.Claim(ctx, idem.Request{Key: "lost", IssuedAt: time.Now().Add(time.Minute)})
	return err
}

// The judge notices a backup that lacks something, or has something too much.
func TestBackupJudge(t *testing.T) {
	t.Parallel()
	eachEngine(t, func(t *testing.T, name string) {
		ctx := t.Context()
		dir := t.TempDir()
		b := newBackupTrial(name, dir, rand.New(rand.NewPCG(1, 2)), map[string]int{})
		s, err := Open(name, filepath.Join(dir, "store"), Sizes{}, b.options())
		require.NoError(t, err)
		rng := rand.New(rand.NewPCG(3, 4))
		for i := range 20 {
			require.NoError(t, b.call(ctx, s, fmt.Sprint(i), rng, 100))
		}
		all := b.journal.now()
		n := 0
		judge := func(before, after map[string]completion) error {
			n++
			path := filepath.Join(dir, fmt.Sprint("backup-", n))
			require.NoError(t, backUp(ctx, s.Store, path))
			return b.judge(ctx, path, Sizes{}, before, after)
		}
		require.NoError(t, judge(all, all))
		lost := maps.Clone(all)
		lost["lost"] = completion{acked: true}
		require.ErrorContains(t, judge(lost, lost), "not in it")
		few := maps.Clone(all)
		delete(few, "7")
		require.ErrorContains(t, judge(few, few), "nobody had asked")
		other := maps.Clone(all)
		other["7"] = completion{result: []byte("other"), own: all["7"].own}
		require.ErrorContains(t, judge(all, other), "other bytes")
		swapped := maps.Clone(all)
		swapped["7"] = completion{result: all["7"].result, own: !all["7"].own}
		require.ErrorContains(t, judge(all, swapped), "was to be")
		require.Error(t, tooLate(ctx, s.Store), "the store itself has lost nothing")
		require.NoError(t, s.Store.Close())
	})
}
