package robustness

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/robustness/oracle"
)

// Plan is one life of a store in a process of its own.
type Plan struct {
	Engine  string `json:"engine"`
	Path    string `json:"path"`
	Journal string `json:"journal"` // appended to
	From    int64  `json:"from"`    // the clock begins no earlier
	// Ahead is how much more time has passed than on this machine, and Walls what the
	// store's wall clock reads of it.
	Ahead time.Duration `json:"ahead,omitempty"`
	Walls oracle.Walls  `json:"walls"`
	// Stale are fences to try, by key, besides those that the audit sees.
	Stale map[string][]uint64 `json:"stale,omitempty"`
	Sizes Sizes               `json:"sizes"`

	Life       oracle.Life     `json:"life"`
	Load       oracle.Workload `json:"load"`
	CacheBytes int64           `json:"cacheBytes,omitempty"`
	// CloseAfter closes the store in the middle of its traffic; 0: when all
	// operations are done, if ever.
	CloseAfter time.Duration `json:"closeAfter,omitempty"`
	// Attended: the store is closed when the standard input ends. Each line of it before
	// that has every file of the store read.
	Attended bool `json:"attended,omitempty"`
	// Breaks: the store is to break in its traffic, and that is no error of the child's.
	Breaks bool `json:"breaks,omitempty"`
}

// What a child tells its parent on its standard output, a line each.
const (
	opening = "opening" // now
	working = "working" // it was opened and audited
	closing = "closing" // now
	walked  = "walked"  // every file of the store was opened, read and closed
)

// workNote is what a child notes before it closes its store.
const workNote = "work: %d flushes, %d compactions, %d bytes"

// hashNote is what a child notes of its store's secret.
const hashNote = "the hash of a key: %s"

// Child lives p's life. Its journal is what it leaves; it may be killed at any
// instant.
func Child(p Plan, out io.Writer) error {
	file, err := os.OpenFile(p.Journal, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	clock := oracle.NewClockAhead(p.From, p.Ahead)
	j := oracle.NewFileJournal(clock, file)
	j.Begin(p.Life)
	tell := func(line string) { fmt.Fprintln(out, line) }
	tell(opening)
	s, err := Open(p.Engine, p.Path, p.Sizes, idem.Options{
		Clock: oracle.WallClock{Clock: clock, Walls: p.Walls}, LapseOnOpen: p.Life.LapseOnOpen, MaxAttempts: p.Life.MaxAttempts, MaxResult: p.Load.MaxBytes,
		CacheBytes: p.CacheBytes, SweepInterval: 5 * time.Millisecond, SweepSlice: 8,
	})
	if err != nil {
		return fmt.Errorf("opening: %w", err)
	}
	ctx := context.Background()
	audit, err := j.Audit(ctx, s)
	if err != nil {
		return fmt.Errorf("looking at what is there: %w", err)
	}
	j.Note(hashNote, s.Store.KeyHash("a key"))
	p.Load.Stale = p.Stale
	tell(working)
	done := make(chan struct{})
	go func() {
		defer close(done)
		p.Load.Do(ctx, s, j, audit.Records)
	}()
	if p.Attended {
		if err := p.attend(tell); err != nil {
			return err
		}
	} else if p.CloseAfter > 0 {
		timer := time.NewTimer(p.CloseAfter)
		defer timer.Stop()
		select {
		case <-done:
		case <-timer.C:
		}
	} else {
		<-done
	}
	if !p.Breaks { // a Pebble that is broken may never answer: what it was doing is parked, with its locks
		flushes, compactions, size := work(s)
		j.Note(workNote, flushes, compactions, size)
	} else {
		<-done
		if err := broken(ctx, s.Store); err != nil {
			return err
		}
	}
	tell(closing)
	err = s.Store.Close()
	<-done
	if p.Breaks {
		j.Note("closing: %v", err)
		err = nil
	}
	return errors.Join(err, j.Err(), file.Close())
}

// attend does what the parent says, until that has no more to say.
func (p Plan) attend(tell func(string)) error {
	for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
		err := filepath.WalkDir(p.Path, func(path string, d fs.DirEntry, err error) error {
			if errors.Is(err, fs.ErrNotExist) { // of a log or a table that is not needed any more
				return nil
			}
			if err != nil || d.IsDir() {
				return err
			}
			if _, err := os.ReadFile(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
			return nil
		})
		if err != nil {
			return err
		}
		tell(walked)
	}
	return nil
}

// broken returns an error if a store whose file has moved does not say so to everybody.
func broken(ctx context.Context, s *idem.Store) error {
	_, claim := s.Claim(ctx, idem.Request{Key: "new"})
	_, get := s.Get(ctx, "new")
	health := s.Health(ctx)
	for what, err := range map[string]error{"Claim": claim, "Get": get, "Health": health} {
		// Files may have gone before their folder did.
		told := errors.Is(err, fs.ErrNotExist) || err != nil && strings.Contains(err.Error(), "while the store was open")
		if !errors.Is(err, idem.ErrBroken) || !told {
			return fmt.Errorf("the store was moved, and %s answers %v", what, err)
		}
	}
	return nil
}

// childEnv holds the Plan of a process that is to be a child.
const childEnv = "IDEM_ROBUSTNESS_CHILD"

// BeChild lives the life that this process was started for, and ends the process;
// it returns if it was started for something else. Call it first in TestMain.
func BeChild() {
	text := os.Getenv(childEnv)
	if text == "" {
		return
	}
	var p Plan
	err := json.Unmarshal([]byte(text), &p)
	if err == nil {
		err = Child(p, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "child:", err)
		os.Exit(1)
	}
	os.Exit(0)
}
