package bench

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"
)

// Machine returns what is known of the machine, of the file system that dir is on,
// and of the code: the header of the results. What cannot be told is left out.
func Machine(dir string) []Param {
	h := []Param{
		{"goos", runtime.GOOS},
		{"goarch", runtime.GOARCH},
		{"pkg", module + "/bench"},
		{"cpu", field("/proc/cpuinfo", "model name", ":")},
		{"cores", fmt.Sprint(runtime.NumCPU())},
		{"memory", field("/proc/meminfo", "MemTotal", ":")},
		{"kernel", firstLine("/proc/sys/kernel/osrelease")},
	}
	h = append(h, fileSystem(dir)...)
	h = append(h,
		Param{"disk-sync", syncCost(dir)},
		Param{"clock-cost", clockCost().String()},
		Param{"go", runtime.Version()},
		Param{"commit", commit()},
		Param{"load-before", Load1()},
	)
	return slices.DeleteFunc(h, func(p Param) bool { return p.Value == "" })
}

// Load1 is the machine's load average: how much else it had to do.
func Load1() string { return firstLine("/proc/loadavg") }

func firstLine(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(line)
}

// field returns the first value of a name in a file of names and values.
func field(path, name, separator string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for _, line := range strings.Split(string(b), "\n") {
		if k, v, ok := strings.Cut(line, separator); ok && strings.TrimSpace(k) == name {
			return strings.TrimSpace(v)
		}
	}
	return ""
}

// fileSystem says what dir is on, from Linux's table of mounts.
func fileSystem(dir string) []Param {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil
	}
	if real, err := filepath.EvalSymlinks(dir); err == nil {
		dir = real
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil
	}
	var device, point, kind, options string
	for _, line := range strings.Split(string(mounts), "\n") {
		f := strings.Fields(line)
		if len(f) < 4 || f[1] != "/" && dir != f[1] && !strings.HasPrefix(dir, f[1]+"/") || len(f[1]) < len(point) {
			continue
		}
		device, point, kind, options = f[0], f[1], f[2], f[3]
	}
	if point == "" {
		return nil
	}
	out := []Param{{"filesystem", fmt.Sprintf("%s on %s (%s)", kind, device, options)}}
	return append(out, Param{"disk", disk(filepath.Base(device))})
}

// disk describes a block device from what the kernel says of it.
func disk(name string) string {
	for ; name != ""; name = name[:len(name)-1] { // vda1 is a part of vda
		queue := filepath.Join("/sys/block", name, "queue")
		if _, err := os.Stat(queue); err != nil {
			continue
		}
		kind := "rotational=" + firstLine(filepath.Join(queue, "rotational"))
		if cache := firstLine(filepath.Join(queue, "write_cache")); cache != "" {
			kind += ", cache: " + cache
		}
		if model := firstLine(filepath.Join("/sys/block", name, "device/model")); model != "" {
			kind += ", " + model
		}
		return name + ", " + kind
	}
	return ""
}

// syncCost is what it takes to make 512 appended bytes durable: what a commit cannot
// do without. It is the median of some.
func syncCost(dir string) string {
	f, err := os.CreateTemp(dir, "sync-")
	if err != nil {
		return ""
	}
	defer func() { _, _ = f.Close(), os.Remove(f.Name()) }()
	var took []float64
	for range 100 {
		start := time.Now()
		if _, err := f.Write(randomBytes(512)); err != nil {
			return ""
		}
		if err := f.Sync(); err != nil {
			return ""
		}
		took = append(took, float64(time.Since(start)))
	}
	s, _ := spreadOf(took)
	return fmt.Sprintf("%s to append 512 bytes and fsync (median of %d, from %s to %s)",
		humanNs(s.Median), len(took), humanNs(s.Min), humanNs(s.Max))
}

// commit is the revision of the code that is measured.
func commit() string {
	head, err := exec.Command("git", "rev-parse", "HEAD").Output()
	if err != nil {
		return "unknown"
	}
	changed, err := exec.Command("git", "status", "--porcelain", "--untracked-files=no").Output()
	if err != nil || len(bytes.TrimSpace(changed)) > 0 {
		return strings.TrimSpace(string(head)) + " with changes"
	}
	return strings.TrimSpace(string(head))
}
