package robustness

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/progress"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/selfexec"
)

// jobEnv holds the job of a process that was started for one.
const jobEnv = "IDEM_ROBUSTNESS_JOB"

// job is what a child does, and prints what came of it as JSON. A child may be
// traced, be short of disk, or read what is damaged: what ends it, ends only it.
type job struct {
	Trial *trialJob `json:"trial,omitempty"`
	Stuck *stuckJob `json:"stuck,omitempty"`
	Flips *flipsJob `json:"flips,omitempty"`
	Fill  *fillJob  `json:"fill,omitempty"`
	Open  *openJob  `json:"open,omitempty"`
	Hung  *hungJob  `json:"hung,omitempty"`

	Import *importJob `json:"import,omitempty"`
}

// beJob does the job that this process was started for, and ends the process; it
// returns if it was started for something else.
func beJob() {
	text := os.Getenv(jobEnv)
	if text == "" {
		return
	}
	var j job
	err := json.Unmarshal([]byte(text), &j)
	if err == nil {
		switch {
		case j.Trial != nil:
			err = j.Trial.do()
		case j.Stuck != nil:
			err = j.Stuck.do()
		case j.Flips != nil:
			err = j.Flips.do()
		case j.Fill != nil:
			err = j.Fill.do()
		case j.Open != nil:
			err = j.Open.do()
		case j.Hung != nil:
			err = j.Hung.do()
		case j.Import != nil:
			err = j.Import.do()
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// command is a process that does j, started by the words of how, if any.
func (j job) command(how ...string) *exec.Cmd {
	text, err := json.Marshal(j)
	if err != nil {
		panic(err) // it holds nothing that cannot be
	}
	cmd := child(how...)
	cmd.Env = selfexec.Env(jobEnv + "=" + string(text))
	return cmd
}

// run runs cmd, and reads what it prints into report. An error means that the process
// ended otherwise than by itself and in order.
func run(cmd *exec.Cmd, report any) error {
	var out, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &stderr
	if err := cmd.Start(); err != nil {
		return err
	}
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("the process ended: %w: %s%s", err, out.Bytes(), stderr.Bytes())
	}
	if err := json.Unmarshal(out.Bytes(), report); err != nil {
		return fmt.Errorf("the process said %q%s: %w", out.Bytes(), stderr.Bytes(), err)
	}
	return nil
}

// watch is for processes that do one thing, on the goroutine that does it: it ends the
// process if that hangs.
func watch(what string, f func()) error {
	stall := progress.Watch{}.Start()
	defer stall.Stop()
	returned := make(chan struct{})
	defer close(returned)
	go func() {
		select {
		case <-returned:
		case <-stall.Stalled():
			fmt.Fprintf(os.Stderr, "%s hangs:\n%s\n", what, progress.Stacks())
			os.Exit(1)
		}
	}()
	f()
	return nil
}

// trialJob is an oracle.Trial in a process of its own.
type trialJob struct {
	Engine  string           `json:"engine"`
	Path    string           `json:"path"`
	Journal string           `json:"journal"` // appended to
	Sizes   Sizes            `json:"sizes"`
	Lives   int              `json:"lives"`
	Script  oracle.Script    `json:"script"`
	Load    *oracle.Workload `json:"load,omitempty"`
	Errno   syscall.Errno    `json:"errno,omitempty"` // the cause; 0: anything
	Vague   bool             `json:"vague,omitempty"`
	Reopens bool             `json:"reopens,omitempty"`
	// FileSize, if not 0, is the size that no file of the process may exceed.
	FileSize uint64 `json:"fileSize,omitempty"`
}

// trialReport is what came of it.
type trialReport struct {
	Violation, Refused, Broken string
	Now                        int64
}

func (p *trialJob) do() error {
	file, err := os.OpenFile(p.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	if p.FileSize > 0 {
		if err := limitFiles(p.FileSize); err != nil {
			return err
		}
	}
	clock := oracle.NewClock(0)
	t := &oracle.Trial{
		Journal: oracle.NewFileJournal(clock, file), Clock: clock,
		Open:  func(o idem.Options) (oracle.Subject, error) { return Open(p.Engine, p.Path, p.Sizes, o) },
		Lives: p.Lives, Script: p.Script, Load: p.Load, Vague: p.Vague, Reopens: p.Reopens, Watch: watch,
	}
	if p.Errno != 0 {
		t.Cause = p.Errno
	}
	report := trialReport{}
	text := func(err error) string {
		if err == nil {
			return ""
		}
		return err.Error()
	}
	report.Violation = text(t.Run(context.Background()))
	report.Refused, report.Broken, report.Now = text(t.Refused), text(t.Broken), clock.Nanos()
	if err := errors.Join(t.Journal.Err(), file.Close()); err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(report)
}

// judge judges what a trial has left.
func (p *trialJob) judge(report trialReport) (*oracle.Checker, error) {
	checker := oracle.NewChecker()
	b, err := os.ReadFile(p.Journal)
	if err != nil {
		return checker, err
	}
	events, err := oracle.ReadJournal(b)
	if err != nil {
		return checker, err
	}
	if report.Violation != "" {
		return checker, fmt.Errorf("%s\n%s", report.Violation, oracle.Tail(events, 30))
	}
	return checker, oracle.Judge(checker, events, report.Now, func(o idem.Options) (oracle.Subject, error) {
		return Open(p.Engine, p.Path, p.Sizes, o)
	})
}

// in names a trial's store and journal in dir.
func (p trialJob) in(dir string) *trialJob {
	p.Path, p.Journal = filepath.Join(dir, "store"), filepath.Join(dir, "journal")
	return &p
}

// chosen returns up to n of the cases, as seed chooses them; if one was asked for by
// its name, that one alone.
func chosen[C fmt.Stringer](t *testing.T, cases []C, n int, seed uint64) []C {
	if only := os.Getenv(caseEnv); only != "" {
		for _, c := range cases {
			if c.String() == only {
				return []C{c}
			}
		}
		t.Skipf("%s was asked for, and there is none here", only)
	}
	if n >= len(cases) {
		return cases
	}
	out := make([]C, n)
	for i, k := range rand.New(rand.NewPCG(seed, 5)).Perm(len(cases))[:n] {
		out[i] = cases[k]
	}
	return out
}

// asked skips the test if one case was asked for that is none of its own: its cases
// begin with one of the words.
func asked(t *testing.T, words ...string) {
	t.Helper()
	only := os.Getenv(caseEnv)
	if only != "" && !slices.ContainsFunc(words, func(word string) bool { return strings.HasPrefix(only, word+"-") }) {
		t.Skipf("%s was asked for", only)
	}
}

// verdict is for the line that a test ends with.
func verdict(t *testing.T) string {
	if t.Failed() {
		return "VIOLATIONS, see above"
	}
	return "no violation"
}

// kept copies a folder to where it stays, to be looked at.
func kept(dir string) string {
	to, err := os.MkdirTemp("", "idem-robustness-")
	if err == nil {
		err = os.CopyFS(to, os.DirFS(dir))
	}
	if err != nil {
		return fmt.Sprintf("%s, which could not be kept: %v", dir, err)
	}
	return to
}
