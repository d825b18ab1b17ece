package robustness

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/idemkv/idem/internal/selfexec"
)

// call is a system call of a traced child that changes files. Begun and ended are
// places in the order that strace saw: what it does it does between the two. Ended
// is 0 if the process ended first.
type call struct {
	begun, ended int
	nanos        int64 // Unix time at which it began, or a little later
	name         string
	path, to     string // to: of links and renames
	data         []byte
	offset       int64 // of writes; of truncations, the new size
}

// tracer is the command that traces, with its first arguments.
func tracer(t *testing.T) []string {
	t.Helper()
	if selfexec.Emulated() {
		t.Skip("strace would see the calls of the emulator, not of the program in it")
	}
	path, err := exec.LookPath("strace")
	if err != nil {
		t.Skip("system calls are logged and failed with strace, which is not installed here")
	}
	var said []byte
	for _, how := range [][]string{{path, "-f", "--seccomp-bpf"}, {path, "-f"}} {
		args := append(how[1:len(how):len(how)], "-e", "trace=write", "true")
		if said, err = exec.Command(path, args...).CombinedOutput(); err == nil {
			return how
		}
	}
	t.Skipf("strace cannot trace here: %v: %s", err, said)
	return nil
}

// traced are the calls by which a file can change. The last three are not
// understood, so that a trace with one of them is refused.
const traced = "write,pwrite64,fsync,fdatasync,ftruncate,link,linkat,rename,renameat,renameat2,unlink,unlinkat," +
	"pwritev,pwritev2,fallocate"

// trace lives p in a process under strace, and returns its calls in the order in
// which they began.
func trace(how []string, p Plan, log string) ([]*call, error) {
	plan, err := json.Marshal(p)
	if err != nil {
		return nil, err
	}
	how = append(how[:len(how):len(how)], "-e", "signal=none", "-e", "trace="+traced,
		"-ttt", "-y", "-xx", "-s", strconv.Itoa(64<<20), "-o", log)
	cmd := child(how...)
	cmd.Env = selfexec.Env(childEnv + "=" + string(plan))
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("the traced child: %w: %s", err, out)
	}
	file, err := os.Open(log)
	if err != nil {
		return nil, err
	}
	calls, err := readTrace(file)
	return calls, errors.Join(err, file.Close())
}

var (
	tracedLine = regexp.MustCompile(`^(\d+) +(\d+)\.(\d{6}) (.*)$`)
	begins     = regexp.MustCompile(`^(\w+)\(`)
	resumes    = regexp.MustCompile(`^<\.\.\. (\w+) resumed>`)
	results    = regexp.MustCompile(`= (-?\d+)[^=]*$`)
	quoted     = regexp.MustCompile(`"((?:\\x[0-9a-f]{2})*)"(\.\.\.)?`)
	ofFile     = regexp.MustCompile(`^\w+\(\d+<((?:\\x[0-9a-f]{2})*)>`)
)

// readTrace reads strace's log: a line for a call, or two when others came between
// its beginning and its end.
func readTrace(r io.Reader) (calls []*call, err error) {
	open := map[string]*call{} // by thread
	in := bufio.NewReaderSize(r, 1<<20)
	for n := 1; ; n++ {
		line, err := in.ReadString('\n')
		if err == io.EOF {
			return calls, nil
		}
		if err != nil {
			return nil, err
		}
		m := tracedLine.FindStringSubmatch(strings.TrimSuffix(line, "\n"))
		if m == nil {
			return nil, fmt.Errorf("line %d of the trace: %.200q", n, line)
		}
		thread, text := m[1], m[4]
		// The ends of threads, and calls that were begun in the last moment of the process.
		if strings.HasPrefix(text, "+++") || strings.HasPrefix(text, "---") || strings.HasPrefix(text, "???") {
			continue
		}
		var c *call
		if resumes.MatchString(text) {
			if c = open[thread]; c == nil {
				return nil, fmt.Errorf("line %d of the trace: a call goes on that has not begun: %.200q", n, line)
			}
			delete(open, thread)
		} else {
			if c, err = parseCall(text); err != nil {
				return nil, fmt.Errorf("line %d of the trace: %w: %.200q", n, err, line)
			}
			nanos, _ := strconv.ParseInt(m[2]+m[3]+"000", 10, 64) // digits alone
			c.begun, c.nanos = n, nanos+1000                      // it was cut to microseconds
			calls = append(calls, c)
			if strings.HasSuffix(text, "<unfinished ...>") {
				open[thread] = c
				continue
			}
		}
		if strings.HasSuffix(text, "= ?") { // the process ended meanwhile
			continue
		}
		result := results.FindStringSubmatch(text)
		if result == nil {
			return nil, fmt.Errorf("line %d of the trace: a call without a result: %.200q", n, line)
		}
		if got, _ := strconv.Atoi(result[1]); got < 0 || len(c.data) > 0 && got != len(c.data) {
			return nil, fmt.Errorf("line %d of the trace: a call failed: %s", n, result[0])
		}
		c.ended = n
	}
}

// parseCall reads the beginning of a call, which has all arguments.
func parseCall(text string) (*call, error) {
	m := begins.FindStringSubmatch(text)
	if m == nil {
		return nil, errors.New("not a call")
	}
	c := &call{name: m[1]}
	var strs [][]byte
	for _, q := range quoted.FindAllStringSubmatch(text, -1) {
		b, err := unhex(q[1])
		if err != nil || q[2] != "" {
			return nil, fmt.Errorf("a string that is not whole: %v", err)
		}
		strs = append(strs, b)
	}
	if m := ofFile.FindStringSubmatch(text); m != nil {
		path, err := unhex(m[1])
		if err != nil {
			return nil, err
		}
		c.path = string(path)
	}
	want := 0
	switch c.name {
	case "write", "pwrite64":
		want = 1
	case "link", "linkat", "rename", "renameat", "renameat2":
		want = 2
	case "unlink", "unlinkat":
		want = 1
	case "fsync", "fdatasync", "ftruncate":
	default:
		return nil, fmt.Errorf("%s is not understood", c.name)
	}
	if len(strs) != want {
		return nil, fmt.Errorf("%d strings, want %d", len(strs), want)
	}
	last := func() (n int64, err error) { // the last number of the arguments
		args := strings.TrimSuffix(text, " <unfinished ...>")
		if args == text {
			args = text[:strings.LastIndex(text, ")")]
		}
		return strconv.ParseInt(strings.TrimSpace(args[strings.LastIndex(args, ",")+1:]), 10, 64)
	}
	var err error
	switch c.name {
	case "write":
		c.data = strs[0]
	case "pwrite64":
		c.data = strs[0]
		c.offset, err = last()
	case "ftruncate":
		c.offset, err = last()
	case "link", "linkat", "rename", "renameat", "renameat2":
		c.path, c.to = string(strs[0]), string(strs[1])
	case "unlink", "unlinkat":
		c.path = string(strs[0])
	}
	return c, err
}

func unhex(s string) ([]byte, error) { return hex.DecodeString(strings.ReplaceAll(s, `\x`, "")) }
