package robustness

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/selfexec"
	"github.com/idemkv/idem/internal/storetest"
)

// Killed at any instant. Make crash runs it long.
func TestCrash(t *testing.T) {
	t.Parallel()
	kills := 20
	if testing.Short() {
		kills = 5
	}
	kills = int(storetest.Setting(t, roundsEnv, uint64(kills)))
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	eachEngine(t, func(t *testing.T, engine string) {
		// Each store is killed again and again, and then there is a new one.
		const kept = 12
		var sum tally
		for round := 0; round < kills; round += kept {
			k := &killer{t: t, engine: engine, seed: seed, rng: rand.New(rand.NewPCG(seed, uint64(round))), dir: keptDir(t), round: round}
			k.attack(min(kept, kills-round))
			sum.add(k.tally)
			if t.Failed() {
				return
			}
			_ = os.RemoveAll(k.dir)
		}
		t.Logf("seed %d: %v", seed, sum)
		if kills >= 100 && (sum.size < 1<<16 || engine == "pebble" && (sum.flushes == 0 || sum.compactions == 0)) {
			t.Errorf("the stores stayed too small for maps to grow, or for flushes and compactions")
		}
	})
}

// eachEngine runs f for each engine that is asked for.
func eachEngine(t *testing.T, f func(t *testing.T, engine string)) {
	for _, engine := range Engines {
		if only := os.Getenv(engineEnv); only != "" && only != engine {
			continue
		}
		t.Run(engine, func(t *testing.T) {
			t.Parallel()
			f(t, engine)
		})
	}
}

// tally is what was done.
type tally struct {
	kills, opening, closing, ended int // kills in all, while opening, while closing; children that ended by themselves
	answered, cut, most            int
	flushes, compactions, size     int64 // in the lives that came to be closed; the largest size
}

func (s *tally) add(o tally) {
	s.kills += o.kills
	s.opening += o.opening
	s.closing += o.closing
	s.ended += o.ended
	s.answered += o.answered
	s.cut += o.cut
	s.most = max(s.most, o.most)
	s.flushes += o.flushes
	s.compactions += o.compactions
	s.size = max(s.size, o.size)
}

func (s tally) String() string {
	return fmt.Sprintf("%d kills (%d while opening, %d while closing), %d lives closed in traffic; %d operations answered, %d cut off, at most %d states of a key at once; in the lives that came to be closed %d flushes, %d compactions, a size of up to %d bytes",
		s.kills, s.opening, s.closing, s.ended, s.answered, s.cut, s.most, s.flushes, s.compactions, s.size)
}

// keptDir returns a folder that stays if the test fails.
func keptDir(t *testing.T) string {
	dir, err := os.MkdirTemp("", "idem-robustness-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if !t.Failed() {
			_ = os.RemoveAll(dir)
		}
	})
	return dir
}

// killer attacks one store.
type killer struct {
	t      *testing.T
	engine string
	seed   uint64
	rng    *rand.Rand
	dir    string
	round  int // of the first kill
	lives  int
	last   int64                       // time of the last event
	now    []*oracle.Event             // of the life that ended last
	alter  func(*Plan)                 // before it is lived; nil: as it is
	judge  func(*oracle.Checker) error // of all lives; nil: as one history
	events []*oracle.Event
	tally  tally
}

// attack kills the store so many times, and then looks what is there.
func (k *killer) attack(kills int) {
	for k.tally.kills < kills && !k.t.Failed() {
		k.live(true)
	}
	k.end()
}

// end lives a last life, which ends by itself, and judges them all.
func (k *killer) end() {
	if !k.t.Failed() {
		k.live(false)
	}
	if k.t.Failed() {
		return
	}
	judge := k.judge
	if judge == nil {
		judge = k.history
	}
	if err := judge(oracle.NewChecker()); err != nil {
		k.fail("%v", err)
	}
}

// history judges all lives as one history.
func (k *killer) history(c *oracle.Checker) error {
	c.Load(k.events)
	err := c.All()
	k.tally.answered, k.tally.cut, k.tally.most = c.Tally()
	return err
}

// live begins a life and kills it if kill is set.
func (k *killer) live(kill bool) {
	k.lives++
	p := RandomPlan(k.rng, k.engine, filepath.Join(k.dir, "store"), k.lives)
	p.Journal = filepath.Join(k.dir, fmt.Sprintf("journal-%02d", k.lives))
	p.From = k.last
	// When to kill: so long after the child has said that.
	when, delay := working, time.Duration(k.rng.Int64N(int64([]time.Duration{20, 200, 200, 600}[k.rng.IntN(4)]*time.Millisecond)))
	switch k.rng.IntN(8) {
	case 0, 1:
		when, delay = opening, time.Duration(k.rng.Int64N(int64(30*time.Millisecond)))
	case 2:
		p.CloseAfter = 1 + time.Duration(k.rng.Int64N(int64(100*time.Millisecond)))
		when, delay = closing, time.Duration(k.rng.Int64N(int64(10*time.Millisecond)))
	}
	if !kill {
		p.Load.Ops, when = 200, ""
	}
	if k.alter != nil {
		k.alter(&p)
	}
	killed, err := k.run(p, when, delay)
	if err != nil {
		k.fail("life %d: %v", k.lives, err)
		return
	}
	switch {
	case !killed:
		k.tally.ended++
	case when == opening:
		k.tally.opening++
	case when == closing:
		k.tally.closing++
	}
	if killed {
		k.tally.kills++
	}
	b, err := os.ReadFile(p.Journal)
	var events []*oracle.Event
	if err == nil {
		events, err = oracle.ReadJournal(b)
	}
	if err != nil {
		k.fail("life %d: %v", k.lives, err)
		return
	}
	k.events, k.now = append(k.events, events...), events
	for _, e := range events {
		k.last = max(k.last, e.T)
		var flushes, compactions, size int64
		if n, _ := fmt.Sscanf(e.Note, workNote, &flushes, &compactions, &size); n == 3 {
			k.tally.flushes += flushes
			k.tally.compactions += compactions
			k.tally.size = max(k.tally.size, size)
		}
	}
}

// run lives p in a process and kills it; when is empty if it may live. killed is
// false if it ended first.
func (k *killer) run(p Plan, when string, delay time.Duration) (killed bool, err error) {
	plan, err := json.Marshal(p)
	if err != nil {
		return false, err
	}
	cmd := child()
	cmd.Env = selfexec.Env(childEnv + "=" + string(plan))
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return false, err
	}
	if err := cmd.Start(); err != nil {
		return false, err
	}
	said := make(chan struct{})
	all := make(chan string, 1)
	go func() {
		var lines strings.Builder
		in := bufio.NewReader(out)
		for open := true; ; {
			line, err := in.ReadString('\n')
			lines.WriteString(line)
			if open && strings.TrimSpace(line) == when {
				open = false
				close(said)
			}
			if err != nil {
				if err != io.EOF {
					fmt.Fprintf(&lines, "reading what it says: %v", err)
				}
				all <- lines.String()
				return
			}
		}
	}()
	var lines string
	select {
	case lines = <-all:
	case <-said:
		timer := time.NewTimer(delay)
		defer timer.Stop()
		select {
		case lines = <-all:
		case <-timer.C:
			killed = true
			_ = cmd.Process.Kill()
			lines = <-all
		}
	}
	err = cmd.Wait()
	if err == nil {
		return false, nil
	}
	if killed && !cmd.ProcessState.Exited() && stderr.Len() == 0 {
		return true, nil
	}
	return false, fmt.Errorf("%w, having said %q and %s", err, lines, stderr.String())
}

func (k *killer) fail(format string, args ...any) {
	k.t.Errorf("%s, seed %d, kills %d to %d: %s\nThe store and its journals are in %s. Try it again:\n\tmake crash ENGINE=%s SEED=%d ROUNDS=%d",
		k.engine, k.seed, k.round+1, k.round+k.tally.kills+1, fmt.Sprintf(format, args...), k.dir, k.engine, k.seed, k.round+k.tally.kills+1)
}
