package robustness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/fakeclock"
	"github.com/idemkv/idem/internal/progress"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/pebble"
)

// flip is one bit of a closed store.
type flip struct {
	File   string `json:"file"` // in the store's directory; empty: the store is a file
	Offset int    `json:"offset"`
	Bit    int    `json:"bit"`
	Kind   string `json:"kind"` // of what lies there
}

func (f flip) String() string {
	return fmt.Sprintf("flip-%s-%d-%d", strings.ReplaceAll(f.File, "-", "~"), f.Offset, f.Bit)
}

// flipsJob opens copies of a store, each with one bit flipped, and uses them.
type flipsJob struct {
	Engine string `json:"engine"`
	Path   string `json:"path"`  // of the store
	Truth  string `json:"truth"` // a file: what is in it
	Dir    string `json:"dir"`   // for the copies
	Flips  []flip `json:"flips"`
}

// flipped is what became of one.
type flipped struct {
	Violation string
	Refused   string   // to open
	Corrupt   []string // keys that are said to be
	Broken    bool     // in use
	Lost      []string
}

// truth is what is in the store.
type truth struct {
	Now     int64
	Records map[string]oracle.Record
}

func (p *flipsJob) do() error {
	var is truth
	b, err := os.ReadFile(p.Truth)
	if err == nil {
		err = json.Unmarshal(b, &is)
	}
	if err != nil {
		return err
	}
	out := json.NewEncoder(os.Stdout)
	for n, f := range p.Flips {
		path := filepath.Join(p.Dir, fmt.Sprint("store-", n))
		if err := copied(p.Path, path, f); err != nil {
			return err
		}
		var found flipped
		// Opening may take long, where Pebble looks for the bit that makes a block right.
		if hangs := (progress.Watch{}).Run(f.String(), func() { found = is.hold(p.Engine, path) }); hangs != nil {
			found.Violation = hangs.Error()
		}
		_ = os.RemoveAll(path)
		if err := out.Encode(found); err != nil {
			return err
		}
	}
	return nil
}

// copied makes a copy of the store, with a bit of it flipped.
func copied(from, to string, f flip) error {
	return filepath.WalkDir(from, func(path string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && path != from {
			return nil // an open Pebble has removed what it does not need any more
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimPrefix(path, from), "/")
		if d.IsDir() {
			return os.MkdirAll(filepath.Join(to, name), 0o700)
		}
		b, err := os.ReadFile(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return err
		}
		if name == f.File && f.Offset < len(b) {
			b[f.Offset] ^= 1 << f.Bit
		}
		return os.WriteFile(filepath.Join(to, name), b, 0o600)
	})
}

// hold opens and uses the store at path, and holds it to what is true.
func (is truth) hold(engine, path string) (found flipped) {
	var wrong []string
	defer func() { found.Violation = strings.Join(wrong, "\n") }()
	bad := func(format string, args ...any) { wrong = append(wrong, fmt.Sprintf(format, args...)) }
	clock := fakeclock.New(time.Unix(0, is.Now))
	s, err := Open(engine, path, Sizes{}, idem.Options{Clock: clock, SweepInterval: -1})
	if err != nil {
		found.Refused = err.Error()
		if !strings.Contains(err.Error(), path) || errors.Is(err, idem.ErrInvalid) && !errors.Is(err, idem.ErrCorrupt) && engine == "pebble" {
			bad("opening fails without a clear error: %v", err)
		}
		return found
	}
	ctx := context.Background()
	store := s.Store
	said := func(key string, err error) bool { // that something is wrong
		switch {
		case errors.Is(err, idem.ErrBroken):
			found.Broken = true
		case errors.Is(err, idem.ErrCorrupt), errors.Is(err, idem.ErrVersion):
			if !slices.Contains(found.Corrupt, key) {
				found.Corrupt = append(found.Corrupt, key)
			}
		default:
			return false
		}
		return true
	}
	same := func(key, how string, r idem.Record, want oracle.Record) {
		got := oracle.RecordOf(r)
		switch {
		case got != nil && *got == want:
		case got != nil && r.State.Final() && want.State.Final():
			bad("%s of %q gives %+v, and it is %+v", how, key, got, want)
		default:
			found.Lost = append(found.Lost, fmt.Sprintf("%s of %q gives %+v", how, key, got))
		}
	}
	for r, err := range store.Records(ctx, idem.Filter{}) {
		want, known := is.Records[r.Key]
		switch {
		case said(r.Key, err):
		case err != nil:
			bad("Records: %v", err)
		case !known:
			bad("Records has key %q, which never was", r.Key)
		default:
			same(r.Key, "Records", r, want)
		}
	}
	for key, want := range is.Records {
		r, err := store.Get(ctx, key)
		switch {
		case said(key, err):
		case err == nil:
			same(key, "Get", r, want)
		case errors.Is(err, idem.ErrNotFound):
			found.Lost = append(found.Lost, fmt.Sprintf("Get of %q finds nothing", key))
		default:
			bad("Get of %q: %v", key, err)
		}
		c, err := store.Claim(ctx, idem.Request{Key: key})
		switch {
		case said(key, err):
		case err == nil:
			if want.State != idem.Released {
				found.Lost = append(found.Lost, fmt.Sprintf("%q was %v, and is granted", key, want.State))
			}
		case errors.Is(err, idem.ErrCompleted), errors.Is(err, idem.ErrFailed), errors.Is(err, idem.ErrInFlight), errors.Is(err, idem.ErrHeld):
			same(key, "Claim", c.Record, want)
		default:
			bad("Claim of %q: %v", key, err)
		}
		if want.State == idem.InFlight || want.State == idem.Held {
			err := store.Complete(ctx, idem.Token{Key: key, Fence: want.Fence}, []byte("late"))
			if err != nil && !said(key, err) && !errors.Is(err, idem.ErrFenced) {
				bad("Complete of %q: %v", key, err)
			}
		}
	}
	c, err := store.Claim(ctx, idem.Request{Key: "a new key"})
	highest := uint64(0)
	for _, r := range is.Records {
		highest = max(highest, r.Fence)
	}
	switch {
	case err != nil && !said("a new key", err):
		bad("a new claim: %v", err)
	case err == nil && c.Token.Fence <= highest:
		found.Lost = append(found.Lost, fmt.Sprintf("fence %d is granted, and %d was", c.Token.Fence, highest))
	}
	_, statsErr := store.Stats(ctx)
	_, sweepErr := store.Sweep(ctx, 1000)
	update := s.Update(ctx, func(kv oracle.KV) error { kv.Put("own", []byte("x")); return nil })
	for what, err := range map[string]error{"Stats": statsErr, "Sweep": sweepErr, "Update": update, "Forget": store.Forget(ctx, idem.Token{Key: "a new key"})} {
		if err != nil && !said("", err) {
			bad("%s: %v", what, err)
		}
	}
	if err := store.Close(); err != nil && !found.Broken && !said("", err) {
		bad("Close: %v", err)
	}
	return found
}

// flipper flips bits of one engine's store.
type flipper struct {
	t      *testing.T
	engine string
	what   string // for people, and in the names of cases
	path   string
	truth  string
	leaves bool // the store is as a kill leaves it
	// kinds are the bytes of the store by the kind of what lies there.
	kinds map[string][]flip
	// loses: a bit of that kind may take a record away, and nobody can tell. Named in
	// docs/GUARANTEES.md.
	loses func(kind string) bool
}

// build makes a store that has everything in it; where one is named that was kept, it
// is that. (bbolt chooses its pages by chance.)
func (f *flipper) build(dir string) {
	keptStore := os.Getenv(storeEnv)
	if keptStore != "" {
		require.NoError(f.t, os.CopyFS(dir, os.DirFS(keptStore)))
	}
	f.path, f.truth = filepath.Join(dir, "store"), filepath.Join(dir, "truth")
	if keptStore != "" {
		if f.leaves {
			f.path += "-killed"
		}
		return
	}
	ctx := context.Background()
	clock := oracle.NewClock(0)
	source := rand.New(rand.NewPCG(7, 7))
	for part := range 3 {
		s, err := Open(f.engine, f.path, Sizes{}, idem.Options{Clock: clock, SweepInterval: -1})
		require.NoError(f.t, err)
		for i := range 70 {
			c, err := s.Store.Claim(ctx, idem.Request{
				Key: fmt.Sprintf("key %d/%03d", part, i), Lease: 1000 * time.Hour, Retention: 1000 * time.Hour,
				Fingerprint: idem.FingerprintOf([]byte("one request")),
			})
			require.NoError(f.t, err)
			size := 20 + source.IntN(600)
			if i%23 == 0 {
				size = 10_000 // pages of overflow, and more than one block
			}
			b := make([]byte, size)
			for k := range b {
				b[k] = byte(source.Uint32())
			}
			switch i % 8 {
			case 3:
				err = s.Store.Fail(ctx, c.Token, b)
			case 4:
				err = s.Store.Release(ctx, c.Token, nil)
			case 5:
				err = s.Store.Hold(ctx, c.Token, b)
			case 6:
				err = s.Store.Checkpoint(ctx, c.Token, b)
			default:
				err = s.Store.Complete(ctx, c.Token, b)
			}
			require.NoError(f.t, err)
			if p, ok := engine.Of(s.Store).(*pebble.Backend); ok && part < 2 && i == 60 {
				require.NoError(f.t, p.DB().Flush())
			}
		}
		if f.leaves && part == 2 {
			require.NoError(f.t, copied(f.path, f.path+"-killed", flip{File: "none"}))
			f.path += "-killed"
		}
		require.NoError(f.t, s.Store.Close())
	}
	whole := filepath.Join(dir, "whole")
	require.NoError(f.t, copied(f.path, whole, flip{File: "none"}))
	now := clock.Nanos()
	s, err := Open(f.engine, whole, Sizes{}, idem.Options{Clock: fakeclock.New(time.Unix(0, now)), SweepInterval: -1})
	require.NoError(f.t, err)
	found, err := oracle.Look(ctx, s, now)
	require.NoError(f.t, err)
	require.NoError(f.t, s.Store.Close())
	require.Len(f.t, found.Records, 210)
	b, err := json.Marshal(truth{Now: now, Records: found.Records})
	require.NoError(f.t, err)
	require.NoError(f.t, os.WriteFile(f.truth, b, 0o600))
}

// A bit flipped anywhere in the files of a closed store. It is refused, or it works:
// then no result is replayed that is not the key's own, and no finished or live key is
// granted, but where the kind of byte is one that GUARANTEES names. Nothing ends the
// process or hangs. Make faults flips thousands.
func TestFaultsFlippedBits(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	asked(t, "flip")
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	eachEngine(t, func(t *testing.T, engine string) {
		most := 60
		if testing.Short() {
			most = 24
		}
		most = int(storetest.Setting(t, faultsEnv, uint64(most)))
		f := &flipper{t: t, engine: engine, what: engine}
		f.build(fastDir(t))
		if engine == "bolt" {
			f.kinds, f.loses = boltKinds(t, f.path), boltLoses
			f.attack(seed, most)
			return
		}
		f.what = "pebble, closed"
		f.kinds, f.loses = pebbleKinds(t, f.path), func(string) bool { return false }
		f.attack(seed, most/2)
		if of := os.Getenv(storeEnv); of != "" {
			if _, err := os.Stat(filepath.Join(of, "store-killed")); err != nil {
				return
			}
		}
		killed := &flipper{t: t, engine: engine, what: "pebble, killed", leaves: true}
		killed.build(fastDir(t))
		killed.kinds, killed.loses = pebbleKinds(t, killed.path), pebbleLoses
		killed.attack(seed, most/2)
	})
}

// attack flips up to most bits, of each kind about as many.
func (f *flipper) attack(seed uint64, most int) {
	rng := rand.New(rand.NewPCG(seed, 9))
	kinds := make([]string, 0, len(f.kinds))
	for kind := range f.kinds {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	var flips []flip
	total := 0
	for i, kind := range kinds {
		bytes := f.kinds[kind]
		total += len(bytes)
		for range max(1, (most-len(flips))/(len(kinds)-i)) {
			b := bytes[rng.IntN(len(bytes))]
			b.Bit, b.Kind = rng.IntN(8), kind
			flips = append(flips, b)
		}
	}
	if only := os.Getenv(caseEnv); only != "" {
		flips = nil
		for kind, bytes := range f.kinds {
			for _, b := range bytes {
				for b.Bit = range 8 {
					if b.Kind = kind; b.String() == only {
						flips = []flip{b}
					}
				}
			}
		}
	}
	tally, lost := map[string]int{}, map[string]int{}
	const inOneProcess = 100
	var parts [][]flip
	for part := range slices.Chunk(flips, inOneProcess) {
		parts = append(parts, part)
	}
	results := make(chan func(), len(flips))
	inParallel(f.t, parts, func(part []flip) error {
		return f.part(part, func(b flip, r flipped) error {
			results <- func() {
				what := "harmless"
				switch {
				case r.Refused != "":
					what = "refused to open"
				case len(r.Lost) > 0:
					what = "with records that are gone"
					lost[b.Kind]++
				case r.Broken:
					what = "broken in use"
				case len(r.Corrupt) > 0:
					what = "with keys that are corrupt"
				}
				tally[what]++
				tally["in "+b.Kind]++
			}
			violation := r.Violation
			if violation == "" && isRecordsValue(b.Kind) && (r.Refused != "" || r.Broken || len(r.Corrupt) != 1 || len(r.Lost) > 0) {
				violation = fmt.Sprintf("one key should be corrupt, and all others work: %+v", r)
			}
			if violation == "" && len(r.Lost) > 0 && !f.loses(b.Kind) {
				violation = "records are gone, and nobody is told: " + strings.Join(r.Lost[:min(len(r.Lost), 3)], "; ")
			}
			if violation != "" {
				return fmt.Errorf("%s, seed %d, bit %d of byte %d of %q (%s): %s\nTry it again:\n\tmake faults ENGINE=%s SEED=%d CASE=%v STORE=%s",
					f.what, seed, b.Bit, b.Offset, b.File, b.Kind, violation, f.engine, seed, b, kept(filepath.Dir(f.path)))
			}
			return nil
		})
	})
	close(results)
	for add := range results {
		add()
	}
	f.t.Logf("%s, seed %d: %d bits flipped in %d bytes: %s; %s", f.what, seed, len(flips), total, storetest.Told(tally), verdict(f.t))
	if len(lost) > 0 {
		f.t.Logf("%s: records are gone, as docs/GUARANTEES.md says that they may be, by what lies there: %s", f.what, storetest.Told(lost))
	}
}

// part has a process flip some bits, and another one go on where it ends.
func (f *flipper) part(flips []flip, judge func(flip, flipped) error) error {
	dir, err := os.MkdirTemp(filepath.Dir(f.path), "flips-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	for len(flips) > 0 {
		cmd := job{Flips: &flipsJob{Engine: f.engine, Path: f.path, Truth: f.truth, Dir: dir, Flips: flips}}.command()
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.StdoutPipe()
		if err != nil {
			return err
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		done := 0
		var errs []error
		for in := json.NewDecoder(bufio.NewReader(out)); ; done++ {
			var r flipped
			if in.Decode(&r) != nil {
				break
			}
			errs = append(errs, judge(flips[done], r))
		}
		err = cmd.Wait()
		if err != nil || done < len(flips) {
			r := flipped{Violation: fmt.Sprintf("the process ended: %v: %.3000s", err, stderr.String())}
			if done == len(flips) {
				return errors.New(r.Violation)
			}
			errs = append(errs, judge(flips[done], r))
			done++
		}
		if err := errors.Join(errs...); err != nil {
			return err
		}
		flips = flips[done:]
	}
	return nil
}
