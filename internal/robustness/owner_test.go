package robustness

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/selfexec"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/pebble"
)

// openJob tries to open a store that another process has.
type openJob struct {
	Engine string   `json:"engine"`
	Paths  []string `json:"paths"`
}

// openReport is what came of each path: empty where it was ErrLocked.
type openReport struct{ Opened []string }

func (o *openJob) do() error {
	var report openReport
	for _, path := range o.Paths {
		report.Opened = append(report.Opened, o.try(path))
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

func (o *openJob) try(path string) string {
	var b engine.Backend
	var err error
	if o.Engine == "bolt" {
		b, err = bolt.Open(path, bolt.Options{LockTimeout: time.Millisecond, MinFree: -1})
	} else {
		b, err = pebble.Open(path, pebble.Options{LockTimeout: time.Millisecond, MinFree: -1})
	}
	if err != nil {
		if errors.Is(err, idem.ErrLocked) {
			return ""
		}
		return err.Error()
	}
	s, err := idem.New(b, idem.Options{})
	if err != nil {
		return err.Error()
	}
	granted := 0
	for n := range 24 { // the keys that the owner works on
		if _, err := s.Claim(context.Background(), idem.Request{Key: fmt.Sprintf("key %02d", n)}); err == nil {
			granted++
		}
	}
	return fmt.Sprintf("opened; it grants %d keys; closing: %v", granted, s.Close())
}

// locked returns an error if another process can open the store by any of the paths.
func locked(engine string, paths ...string) error {
	var report openReport
	if err := run(job{Open: &openJob{Engine: engine, Paths: paths}}.command(), &report); err != nil {
		return err
	}
	var wrong error
	for i, what := range report.Opened {
		if what != "" {
			wrong = errors.Join(wrong, fmt.Errorf("%s has an owner, and another process got: %s", paths[i], what))
		}
	}
	return wrong
}

// owner is a child that has a store.
type owner struct {
	plan   Plan
	cmd    *exec.Cmd
	in     io.WriteCloser
	out    *bufio.Reader
	stderr bytes.Buffer
}

// own starts a child, and returns when it works.
func own(p Plan) (*owner, error) {
	text, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	o := &owner{plan: p, cmd: child()}
	o.cmd.Env = selfexec.Env(childEnv + "=" + string(text))
	o.cmd.Stderr = &o.stderr
	if o.in, err = o.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := o.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	o.out = bufio.NewReader(out)
	if err := o.cmd.Start(); err != nil {
		return nil, err
	}
	return o, o.hear(working)
}

// hear returns when the child says what.
func (o *owner) hear(what string) error {
	for {
		line, err := o.out.ReadString('\n')
		if err != nil {
			return errors.Join(err, o.end())
		}
		if strings.TrimSpace(line) == what {
			return nil
		}
	}
}

// walk has the child read all files of its store.
func (o *owner) walk() error {
	if _, err := io.WriteString(o.in, "\n"); err != nil {
		return err
	}
	return o.hear(walked)
}

// end returns when the child has ended, as it should.
func (o *owner) end() error {
	_ = o.in.Close()
	_, _ = io.Copy(io.Discard, o.out)
	if err := o.cmd.Wait(); err != nil {
		return fmt.Errorf("the owner ended: %w: %s", err, o.stderr.Bytes())
	}
	return nil
}

// judge judges what the lives have left, at path; empty: their answers alone.
func (o *owner) judge(path string) (broke bool, err error) {
	b, err := os.ReadFile(o.plan.Journal)
	if err != nil {
		return false, err
	}
	events, err := oracle.ReadJournal(b)
	if err != nil {
		return false, err
	}
	now := int64(0)
	for _, e := range events {
		now = max(now, e.T)
		broke = broke || e.Return != nil && e.Return.Err == oracle.Broken
	}
	now = oracle.NewClock(now).Nanos() // it was closed since
	checker := oracle.NewChecker()
	if path == "" {
		checker.Load(events)
		return broke, checker.All()
	}
	return broke, oracle.Judge(checker, events, now, func(opts idem.Options) (oracle.Subject, error) {
		return Open(o.plan.Engine, path, o.plan.Sizes, opts)
	})
}

// ownerPlan is the life of an owner, in a folder of its own.
func ownerPlan(t *testing.T, engine string, rng *rand.Rand) Plan {
	dir := keptDir(t)
	require.NoError(t, os.Mkdir(filepath.Join(dir, "home"), 0o700))
	p := RandomPlan(rng, engine, filepath.Join(dir, "home", "store"), 1)
	p.Journal = filepath.Join(dir, "journal")
	p.Load.Workers = 4
	return p
}

// locks skips the test where a store is locked by name, or cannot be moved.
func locks(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" && runtime.GOOS != "darwin" {
		t.Skip("not on this system")
	}
}

// A process works on a store, and another tries to open it: by every way that leads
// there, after the owner has read its own files, and without the lock file.
func TestCrashOwner(t *testing.T) {
	t.Parallel()
	locks(t)
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	eachEngine(t, func(t *testing.T, engine string) {
		attempts := 0
		for round := range 1 + storetest.Setting(t, roundsEnv, 0)/20 {
			p := ownerPlan(t, engine, rand.New(rand.NewPCG(seed, round)))
			p.Attended = true
			o, err := own(p)
			require.NoError(t, err)
			home := filepath.Dir(p.Path)
			dir := filepath.Dir(home)
			paths := []string{p.Path, filepath.Join(dir, "link"), filepath.Join(dir, "other", "store")}
			require.NoError(t, os.Symlink(p.Path, paths[1]))
			require.NoError(t, os.Symlink(home, filepath.Join(dir, "other")))
			if engine == "bolt" {
				paths = append(paths, filepath.Join(dir, "hard"))
				require.NoError(t, os.Link(p.Path, paths[3]))
			}
			if mount := bound(t, home, filepath.Join(dir, "mount")); mount != "" {
				paths = append(paths, filepath.Join(mount, "store"))
			}
			try := func(when string) {
				t.Helper()
				for range 2 {
					require.NoError(t, locked(engine, paths...), "%s, seed %d, in %s", when, seed, dir)
					attempts += len(paths)
				}
			}
			try("at work")
			require.NoError(t, o.walk())
			try("after a walk")
			if engine == "pebble" {
				require.NoError(t, os.Remove(filepath.Join(p.Path, "db", "LOCK")))
				try("without the lock file")
				require.NoError(t, o.walk())
				try("after another walk")
			}
			require.NoError(t, o.end())
			broke, err := o.judge(p.Path)
			require.NoError(t, err, "seed %d, in %s", seed, dir)
			require.False(t, broke)
			require.Error(t, locked(engine, paths[0]), "it was closed")
		}
		t.Logf("%s, seed %d: %d attempts; %s", engine, seed, attempts, verdict(t))
	})
}

// bound mounts dir at another place, if it may.
func bound(t *testing.T, dir, at string) string {
	t.Helper()
	require.NoError(t, os.Mkdir(at, 0o700))
	if out, err := exec.Command("mount", "--bind", dir, at).CombinedOutput(); err != nil {
		t.Logf("without a bind mount: %v: %s", err, out)
		return ""
	}
	t.Cleanup(func() { require.NoError(t, exec.Command("umount", at).Run()) })
	return at
}
