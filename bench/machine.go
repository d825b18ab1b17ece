package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"github.com/idemkv/idem/bench/chart"
	c "github.com/idemkv/idem/bench/contenders"
)

// machine says what is known of the machine, of the file system that dir is on, and of
// the code. What cannot be told is left out.
func (r *results) machine(dir string) {
	r.set("goos", "%s", runtime.GOOS)
	r.set("goarch", "%s", runtime.GOARCH)
	r.set("pkg", "%s", "github.com/idemkv/idem/bench")
	r.set("cpu", "%s", field("/proc/cpuinfo", "model name"))
	r.set("cores", "%d", runtime.NumCPU())
	r.set("memory", "%s", field("/proc/meminfo", "MemTotal"))
	r.set("kernel", "%s", contents("/proc/sys/kernel/osrelease"))
	r.set("filesystem", "%s", output("findmnt", "-n", "-o", "FSTYPE,SOURCE,OPTIONS", "-T", dir))
	device := filepath.Base(output("findmnt", "-n", "-o", "SOURCE", "-T", dir))
	r.set("disk", "%s", output("lsblk", "-d", "-n", "-o", "NAME,MODEL,ROTA,WC", "/dev/"+device))
	r.set("disk-sync", "%s", syncCost(dir))
	r.set("clock-cost", "%s", clockCost())
	r.set("go", "%s", runtime.Version())
	r.set("commit", "%s", output("git", "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"))
	r.set("load-before", "%s", load1())
}

// load1 is the machine's load average: how much else it has to do.
func load1() string { return contents("/proc/loadavg") }

// output is what a command prints; nothing if there is none, or it fails.
func output(name string, args ...string) string {
	out, err := exec.Command(name, args...).Output()
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(out))
}

func contents(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(b))
}

// field is the first value of a name in a file of lines as "name: value".
func field(path, name string) string {
	for line := range strings.Lines(contents(path)) {
		if k, v, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// syncCost is what it takes to make 512 appended bytes durable, which a commit cannot do
// without: the median of some.
func syncCost(dir string) string {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return ""
	}
	defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
	bytes, took := c.Workload{ResultBytes: 512}.Result(), make([]float64, 100)
	for i := range took {
		start := time.Now()
		if _, err := f.Write(bytes); err != nil || f.Sync() != nil {
			return ""
		}
		took[i] = time.Since(start).Seconds()
	}
	s, _ := summary(took)
	show := func(sec float64) string { return chart.Format(sec, "sec") }
	return show(s.Center) + " to append 512 bytes and fsync (95 % interval " + show(s.Lo) + " to " + show(s.Hi) + ")"
}

// clockCost is what reading the clock twice adds to a latency.
func clockCost() string {
	h := newHistogram()
	for range 20_000 {
		start := time.Now()
		record(h, time.Since(start))
	}
	return time.Duration(h.ValueAtPercentile(50)).String()
}
