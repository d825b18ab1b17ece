// Command syncs counts, with strace, how often idem and everything it is compared
// with syncs in a durable cycle (a claim of a new key and its completion), so that
// nobody is compared with one that does not. Each runs in a process of its own; what
// its servers do counts too. It also counts the bytes that they write, in a second run
// without strace, as bench.Written says: written/cycle is what the kernel counts for the
// process, device/cycle what the disk was sent by whomever.
//
//	go run ./cmd/syncs
//	go run ./cmd/syncs -callers 1,16,256 -cycles 1024 -contenders redis -out syncs.txt
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/idemkv/idem/bench"
	"github.com/idemkv/idem/bench/peers"
)

// oneEnv tells a process of ours to be the one that is traced: a bench.One as JSON.
const oneEnv = "IDEM_SYNCS_ONE"

func main() {
	if asked := os.Getenv(oneEnv); asked != "" {
		err := one(asked)
		if err != nil {
			fmt.Fprintln(os.Stderr, "syncs:", err)
		}
		os.Exit(bench.ExitCode(err))
	}
	if err := run(os.Args[1:], os.Stdout, os.Stderr); err != nil {
		if !errors.Is(err, flag.ErrHelp) {
			fmt.Fprintln(os.Stderr, "syncs:", err)
		}
		os.Exit(1)
	}
}

// one runs a contender's operations between two marks for strace, and prints the result.
func one(asked string) error {
	var o bench.One
	if err := json.Unmarshal([]byte(asked), &o); err != nil {
		return fmt.Errorf("%s: %w", oneEnv, err)
	}
	r, err := o.Run(contenders())
	if err != nil {
		return err
	}
	return r.Write(os.Stdout)
}

func contenders() []bench.Contender {
	w := bench.Workload{Group: bench.CycleDurable}
	return append(bench.Idem(w.Group, nil), peers.Contenders(w)...)
}

func run(args []string, stdout, stderr io.Writer) error {
	set := flag.NewFlagSet("syncs", flag.ContinueOnError)
	set.SetOutput(stderr)
	callers := set.String("callers", "1,16", "numbers of `callers`, with commas between")
	cycles := set.Int("cycles", 256, "`cycles` of each contender, all callers together")
	only := set.String("contenders", "", "only contenders whose name matches this `regexp`, as idem/bolt")
	out := set.String("out", "", "`file` to write the table to as well")
	dir := set.String("dir", "", "`directory` for the stores; default: the system's for temporary files")
	if err := set.Parse(args); err != nil {
		return err
	}
	if set.NArg() > 0 {
		return fmt.Errorf("there is nothing to do with %q; -h lists the flags", set.Args())
	}
	matches, err := regexp.Compile(*only)
	if err != nil {
		return fmt.Errorf("-contenders: %w", err)
	}
	var numbers []int
	for field := range strings.SplitSeq(*callers, ",") {
		n, err := strconv.Atoi(field)
		if err != nil || n < 1 || n > *cycles {
			return fmt.Errorf("-callers: %q is not a number from 1 to -cycles", field)
		}
		numbers = append(numbers, n)
	}
	results, err := count(numbers, *cycles, *dir, matches)
	if err != nil {
		return err
	}
	var table bytes.Buffer
	failed := write(&table, results)
	if _, err := stdout.Write(table.Bytes()); err != nil {
		return err
	}
	if *out != "" {
		if err := os.WriteFile(*out, table.Bytes(), 0o644); err != nil {
			return err
		}
	}
	return failed
}

// count has each contender run twice: under strace, and for the bytes.
func count(callers []int, cycles int, dir string, only *regexp.Regexp) (results *bench.Results, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if dir, err = os.MkdirTemp(dir, "syncs-"); err != nil {
		return nil, fmt.Errorf("-dir: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	results = &bench.Results{}
	b := &bench.Bench{Results: results, Dir: dir, Only: only.MatchString}
	command := func(o bench.One) *exec.Cmd {
		asked, _ := json.Marshal(o) // numbers and strings: it cannot fail
		cmd := exec.Command(self)
		cmd.Env = append(os.Environ(), oneEnv+"="+string(asked))
		return cmd
	}
	o, all := bench.One{Group: bench.CycleDurable, Ops: cycles, ResultBytes: 256}, contenders()
	b.CountSyncs(o, all, callers, command)
	b.CountWritten(o, all, callers, command)
	return results, nil
}

// write writes the table and the notes, and returns an error if a contender failed.
func write(w io.Writer, r *bench.Results) error {
	fmt.Fprintf(w, "Syncs of durable cycles, counted by strace, %s\n\n", time.Now().UTC().Format(time.DateOnly))
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "contender\tcallers\tcycles\tsyncs\tsyncs/cycle\twritten/cycle\tdevice/cycle\tby")
	for _, row := range r.Rows {
		if row.Group != bench.Syncs {
			continue
		}
		each, _ := row.Value("syncs/op")
		var calls []string
		for _, v := range row.Values {
			if name, isCall := strings.CutSuffix(v.Unit, "/op"); isCall && name != "syncs" && v.Amount > 0 {
				calls = append(calls, name)
			}
		}
		by := strings.Join(calls, ", ")
		if by == "" {
			by = "nothing: IT DOES NOT SYNC"
		}
		written := bench.Match{Group: bench.Written, Params: row.Params}
		fmt.Fprintf(table, "%s\t%s\t%d\t%.0f\t%.2f\t%s\t%s\t%s\n", row.Param("backend"), row.Param("callers"),
			row.Ops, math.Round(each*float64(row.Ops)), each, figure(r, written, "written-B/op"), figure(r, written, "device-B/op"), by)
	}
	if err := table.Flush(); err != nil {
		return err
	}
	return notes(w, r)
}

// figure is a median, or a dash where there is none: the notes say why.
func figure(r *bench.Results, m bench.Match, unit string) string {
	if v, ok := r.Median(m, unit); ok {
		return strconv.FormatFloat(v, 'f', 0, 64)
	}
	return "–"
}

// notes writes why a figure is missing, and returns an error if a contender failed.
func notes(w io.Writer, r *bench.Results) error {
	var failed error
	for _, n := range r.Notes {
		fmt.Fprintf(w, "\n%s: %s: %s\n", n.Kind, n.Subject, n.Text)
		if n.Kind == "failed" {
			failed = errors.New("a contender failed; the last lines say which")
		}
	}
	return failed
}
