package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
)

var update = flag.Bool("update", false, "write the transcripts in testdata/golden and docs/TOOL.md anew")

// The scripts run the program itself: a copy of this test binary by the name of idem,
// which runs main in a process of its own.
func TestMain(m *testing.M) {
	testscript.Main(leakless{m}, map[string]func(){
		"idem":    main,
		"mkstore": mkstoreMain,
	})
}

// leakless fails a run that leaves a goroutine behind.
type leakless struct{ *testing.M }

func (l leakless) Run() int {
	code := l.M.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return code
}

// scriptKey finds what a script has besides its files.
type scriptKey struct{}

// script is one run of a script in testdata/script.
type script struct {
	kind       kind
	transcript transcript
	snapshots  map[string]string
	stores     map[string]*idem.Store // that are served, by the path that the script names
}

// Every script runs with each engine. $STORE is where it has its store, $KIND the
// engine's name.
func TestScripts(t *testing.T) {
	for _, k := range []kind{boltKind, pebbleKind} {
		t.Run(string(k), func(t *testing.T) { runScripts(t, k) })
	}
}

func runScripts(t *testing.T, k kind) {
	path := map[kind]string{boltKind: "pay.db", pebbleKind: "pay.pebble"}[k]
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Values[scriptKey{}] = &script{
				kind: k, transcript: newTranscript(e.WorkDir), snapshots: map[string]string{}, stores: map[string]*idem.Store{},
			}
			e.Setenv("TZ", "UTC")
			e.Setenv("KIND", string(k))
			e.Setenv("STORE", path)
			for _, name := range []string{storeVariable, urlVariable, authorizationVariable, "HTTP_PROXY", "http_proxy"} {
				e.Setenv(name, "")
			}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Geteuid() == 0, nil
			case string(boltKind), string(pebbleKind):
				return cond == string(k), nil
			}
			return false, fmt.Errorf("unknown condition %s", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"run":       cmdRun,
			"say":       cmdSay,
			"golden":    cmdGolden,
			"snapshot":  cmdSnapshot,
			"unchanged": cmdUnchanged,
			"damage":    cmdDamage,
			"version":   cmdVersion,
			"lock":      cmdLock,
			"serve":     cmdServe,
			"know":      cmdKnow,
			"claim":     cmdClaim,
			"collide":   cmdCollide,
			"own":       cmdOwn,
		},
	})
}

func of(ts *testscript.TestScript) *script { return ts.Value(scriptKey{}).(*script) }

// cmdRun runs idem, requires the exit code that is given, and adds what is seen to the
// transcript: run 0 stuck pay.db
func cmdRun(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: run CODE ARGUMENT...")
	}
	err := ts.Exec("idem", args[1:]...)
	code := 0
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		code = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	stdout, stderr := ts.ReadFile("stdout"), ts.ReadFile("stderr")
	of(ts).transcript.add(args[1:], stdout, stderr, code)
	if fmt.Sprint(code) != args[0] {
		ts.Fatalf("idem %s: exit code %d, want %s\n%s%s", strings.Join(args[1:], " "), code, args[0], stdout, stderr)
	}
	for line := range strings.Lines(stderr) {
		if !strings.HasPrefix(line, "idem: ") {
			ts.Fatalf("a message is one line that says who speaks:\n%s", stderr)
		}
	}
	for _, leak := range []string{"order-", "tenant 7"} { // the keys of the test's stores
		if strings.Contains(stderr, leak) {
			ts.Fatalf("standard error shows a key:\n%s", stderr)
		}
	}
	for _, leak := range []string{"s3cret", "YW5hOnMz"} { // passwords, in clear and in base64
		if strings.Contains(stdout+stderr, leak) {
			ts.Fatalf("a password is shown:\n%s%s", stdout, stderr)
		}
	}
}

// cmdSay adds a heading to the transcript.
func cmdSay(ts *testscript.TestScript, _ bool, args []string) {
	of(ts).transcript.say(strings.Join(args, " "))
}

// cmdGolden compares the transcript with the golden file of this script and engine.
func cmdGolden(ts *testscript.TestScript, _ bool, _ []string) {
	got := of(ts).transcript.String()
	path := filepath.Join(goldenDir, string(of(ts).kind), ts.Name()+".txt")
	if *update {
		ts.Check(os.MkdirAll(filepath.Dir(path), 0o755))
		ts.Check(os.WriteFile(path, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(path)
	ts.Check(err)
	if got != string(want) {
		ts.Fatalf("the transcript differs from %s (go test -update writes it):\n%s", path, differ(string(want), got))
	}
}

// goldenDir is absolute: scripts run elsewhere.
var goldenDir = func() string {
	dir, err := filepath.Abs("testdata/golden")
	if err != nil {
		panic(err)
	}
	return dir
}()

// differ shows the first lines in which two texts differ.
func differ(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			return fmt.Sprintf("line %d\nwant:\n%s\ngot:\n%s", i+1,
				strings.Join(w[min(i, len(w)):min(i+6, len(w))], "\n"), strings.Join(g[min(i, len(g)):min(i+6, len(g))], "\n"))
		}
	}
	return ""
}
