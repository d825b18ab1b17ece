package idemtest_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/selfexec"
)

// Cases that tell by waiting, and so are not given long.
const (
	leftBehind = "opened and closed again and again"
	underStall = "Close under a stalled commit"
)

// hostileMutants are engines with a fault that only hostile use brings out, and
// the case that must notice it.
var hostileMutants = map[string]struct {
	fails string
	bend  func(b *toy, dir string) engine.Backend
}{
	"says not done of what was done": {"contexts cancelled at random", func(b *toy, _ string) engine.Backend { return liar{b} }},
	"grants whatever there is": {"a crowd that claims and waits", func(b *toy, _ string) engine.Backend {
		b.faults.decide = func(op engine.Op, _ *engine.Entry, readErr error) (*engine.Entry, bool) { return op.Run(nil, readErr) }
		return b
	}},
	"ends prefixes of 0xff too soon":     {"keys of any bytes", func(b *toy, _ string) engine.Backend { return shortSighted{b} }},
	"leaves files open":                  {leftBehind, func(b *toy, dir string) engine.Backend { return leaky{b, dir, true} }},
	"leaves files behind":                {leftBehind, func(b *toy, dir string) engine.Backend { return leaky{b, dir, false} }},
	"leaves a goroutine":                 {leftBehind, func(b *toy, _ string) engine.Backend { return haunted{b} }},
	"forgets on closing":                 {"Close at every moment", func(b *toy, _ string) engine.Backend { return forgetful{b} }},
	"says done of what the disk has not": {underStall, func(b *toy, _ string) engine.Backend { return hasty{b} }},
}

type liar struct{ *toy }

func (b liar) Apply(ctx context.Context, ops []engine.Op) error {
	if err := b.toy.Apply(context.WithoutCancel(ctx), ops); err != nil {
		return err
	}
	for range 2000 { // a commit takes its time, in which contexts end
		if ctx.Err() != nil {
			break
		}
		runtime.Gosched()
	}
	return ctx.Err()
}

type shortSighted struct{ *toy }

func (b shortSighted) Scan(ctx context.Context, prefix, cursor string) ([]engine.Scanned, string, error) {
	page, next, err := b.toy.Scan(ctx, prefix, cursor)
	if strings.HasPrefix(prefix, "\xff") && strings.ReplaceAll(prefix, "\xff", "") == "" {
		return page[:min(len(page), 1)], "", err
	}
	return page, next, err
}

// leaky makes a file each time it is closed.
type leaky struct {
	*toy
	dir  string
	open bool
}

func (b leaky) Close() error {
	name := "left"
	if !b.open {
		name = fmt.Sprint("left ", time.Now().UnixNano())
	}
	f, err := os.Create(filepath.Join(b.dir, name))
	if err != nil {
		return err
	}
	if !b.open {
		return f.Close()
	}
	leaked = append(leaked, f)
	return b.toy.Close()
}

// leaked keeps the files from the garbage collector, which would close them.
var leaked []*os.File

type haunted struct{ *toy }

func (b haunted) Close() error {
	go func() { select {} }()
	return b.toy.Close()
}

type forgetful struct{ *toy }

func (b forgetful) Close() error {
	err := b.toy.Close()
	b.disk.mu.Lock()
	defer b.disk.mu.Unlock()
	for key := range b.disk.records {
		delete(b.disk.records, key)
		break
	}
	return err
}

// hasty answers while the commit is under way.
type hasty struct{ *toy }

func (b hasty) Apply(ctx context.Context, ops []engine.Op) error {
	b.mu.RLock()
	stalled := b.stall != nil
	b.mu.RUnlock()
	if stalled {
		for _, op := range ops {
			e, err := b.Read(ctx, op.Key())
			op.Run(e, err)
		}
		return nil
	}
	return b.toy.Apply(ctx, ops)
}

// hostileSuite runs cases of RunHostile on a mutant in another process.
func hostileSuite(t *testing.T, mutant string, cases ...string) (out string, err error) {
	for i := range cases {
		cases[i] = regexp.QuoteMeta(subtestName(cases[i]))
	}
	cmd := selfexec.Command(t.Context(), "-test.v", "-test.timeout="+rest(t),
		"-test.run=^TestHostileMutantSuite$/^("+strings.Join(cases, "|")+")$")
	cmd.Env = selfexec.Env(mutantEnv + "=" + mutant)
	b, err := cmd.CombinedOutput()
	return string(b), err
}

func TestHostileMutants(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	for name, m := range hostileMutants {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if name == "leaves files open" && runtime.GOOS != "linux" {
				t.Skip("open files are counted on Linux only")
			}
			out, err := hostileSuite(t, name, m.fails)
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "it passes:\n%s", out)
			require.Contains(t, out, "--- FAIL: TestHostileMutantSuite/"+subtestName(m.fails)+" ", "%s", out)
		})
	}
	t.Run(noMutant, func(t *testing.T) { // so that what fails them is their fault
		t.Parallel()
		cases := map[string]bool{}
		for _, m := range hostileMutants {
			cases[m.fails] = true
		}
		out, err := hostileSuite(t, noMutant, slices.Collect(maps.Keys(cases))...)
		require.NoError(t, err, "%s", out)
		require.Equal(t, len(cases), strings.Count(out, "    --- PASS: "), "%s", out)
	})
}

const noMutant = "no fault"

// TestHostileMutantSuite is what TestHostileMutants runs in other processes.
func TestHostileMutantSuite(t *testing.T) {
	name := os.Getenv(mutantEnv)
	m, ok := hostileMutants[name]
	if !ok && name != noMutant {
		t.Skip(mutantEnv + " names no mutant")
	}
	h := toyHarness(func(b *toy) engine.Backend { return b })
	if ok {
		h.Open = func(_ testing.TB, dir string) engine.Backend { return m.bend(openToy(dir), dir) }
	}
	if m.fails == leftBehind || m.fails == underStall {
		h.Patience = 2 * time.Second // to find soon that something stays, or hangs
	}
	idemtest.RunHostile(t, h)
}
