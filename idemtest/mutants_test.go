package idemtest_test

import (
	"maps"
	"os"
	"os/exec"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/selfexec"
)

// mutantEnv names the mutant that TestMutantSuite runs the suite on.
const mutantEnv = "IDEMTEST_MUTANT"

// TestMutants shows that the suite fails every faulty engine: each is run against
// the cases that must notice it, in a process of its own because it fails there.
func TestMutants(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	for name, m := range mutants() {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var run []string
			for _, c := range m.failed {
				run = append(run, regexp.QuoteMeta(subtestName(c)))
			}
			cmd := selfexec.Command(t.Context(), "-test.v", "-test.timeout="+rest(t),
				"-test.run=^TestMutantSuite$/^("+strings.Join(run, "|")+")$")
			// Random tests end at the first failure, so that many tries cost little
			// and leave nothing to luck.
			cmd.Env = selfexec.Env(mutantEnv+"="+name, "IDEMTEST_HISTORIES=2000",
				"RAPID_CHECKS=2000", "RAPID_NOFAILFILE=true", "RAPID_SHRINKTIME=100ms")
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			require.ErrorAs(t, err, &exit, "the suite passes it:\n%s", out)
			for _, c := range m.failed {
				if !strings.Contains(string(out), "--- FAIL: TestMutantSuite/"+subtestName(c)+" ") {
					t.Errorf("%q does not fail it:\n%s", c, out)
				}
			}
		})
	}
}

// TestEveryPromiseHasAMutant: for each promise of docs/GUARANTEES.md there is a mutant
// that breaks it.
func TestEveryPromiseHasAMutant(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/GUARANTEES.md")
	require.NoError(t, err)
	promises, _, found := strings.Cut(string(page), "\n## Appendix")
	require.True(t, found)
	broken := map[promise]bool{}
	for name, m := range mutants() {
		require.NotEmpty(t, m.failed, name)
		require.Contains(t, promises, "\n## "+string(m.breaks)+"\n", "%s breaks what is not promised", name)
		broken[m.breaks] = true
	}
	for _, section := range strings.Split(promises, "\n## ")[1:] {
		title, _, _ := strings.Cut(section, "\n")
		require.True(t, broken[promise(title)], "no mutant breaks %q", title)
	}
}

// rest is the time limit of a process that t starts, a little before its own: then the
// process says what it was at, and ends.
func rest(t *testing.T) string {
	end, ok := t.Deadline()
	if !ok {
		return "0"
	}
	left := time.Until(end)
	return (left - left/20).String()
}

// subtestName is what t.Run makes of name.
func subtestName(name string) string { return strings.ReplaceAll(name, " ", "_") }

// TestMutantSuite is what TestMutants runs in other processes.
func TestMutantSuite(t *testing.T) {
	name := os.Getenv(mutantEnv)
	if name == "" {
		t.Skip(mutantEnv + " names no mutant")
	}
	m, ok := mutants()[name]
	require.True(t, ok, "no mutant %q", name)
	h := toyHarness(m.bend)
	h.Patience = time.Second // to find soon that a mutant hangs
	if _, ok := effectMutants[name]; ok {
		idemtest.RunEffects(t, h, toyEffects)
		return
	}
	idemtest.Run(t, h)
}

// promise is the title of a section of docs/GUARANTEES.md.
type promise string

const (
	oneOwner       promise = "1. One owner"
	fenced         promise = "2. Fenced"
	durableFirst   promise = "3. Durable before visible"
	errorUnknown   promise = "4. An error means unknown"
	failClosed     promise = "5. Fail closed"
	roomAtClaim    promise = "6. Capacity is checked at Claim only"
	exactExpiry    promise = "7. Exact expiry"
	nothingEvicted promise = "8. Nothing is evicted"
	sameReplay     promise = "9. Byte-identical replay"
	storeTime      promise = "10. Store time"
	cancellation   promise = "11. Cancellation tells the truth"
	bounded        promise = "12. Bounded"
	observers      promise = "13. Observers"
	copies         promise = "14. Backups and moves"
	onlyLooking    promise = "15. Looking changes nothing"
	sameCommit     promise = "Effects in the same commit"
)

// mutant is an engine with one fault.
type mutant struct {
	breaks promise
	failed []string // cases that must fail
	bend   func(b *toy) engine.Backend
}

// inside makes a mutant whose fault is inside the toy.
func inside(f func(b *toy)) func(*toy) engine.Backend {
	return func(b *toy) engine.Backend {
		f(b)
		return b
	}
}

// onOpen makes a mutant that reads each record wrongly when it is opened.
func onOpen(f func(e *engine.Entry)) func(*toy) engine.Backend {
	return inside(func(b *toy) {
		for key, e := range b.entries {
			c := *e
			f(&c)
			b.entries[key] = &c
		}
	})
}

// showing makes a mutant that hands out entries changed.
func showing(f func(e *engine.Entry)) func(*toy) engine.Backend {
	return inside(func(b *toy) {
		b.faults.show = func(e engine.Entry) *engine.Entry { f(&e); return &e }
	})
}

func mutants() map[string]mutant {
	all := maps.Clone(storeMutants)
	maps.Copy(all, commitMutants)
	maps.Copy(all, listingMutants)
	maps.Copy(all, effectMutants)
	return all
}
