package robustness

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/robustness/oracle"
	"github.com/idemkv/idem/internal/storetest"
)

// fillJob fills small file systems in memory, which only it and its children see.
type fillJob struct {
	Engine string `json:"engine"`
	Dir    string `json:"dir"` // empty
	Seed   uint64 `json:"seed"`
	From   int    `json:"from"`
	Fills  int    `json:"fills"`
}

// filled is what became of one.
type filled struct {
	Violation, Refused, Broken string
	Operations                 int
	Bytes, Inodes              int // that a store can have; no bound on inodes: 0
}

func (p *fillJob) do() error {
	at := filepath.Join(p.Dir, "disk")
	if err := os.Mkdir(at, 0o700); err != nil {
		return err
	}
	var all []filled
	for n := p.From; n < p.From+p.Fills; n++ {
		f, err := p.fill(at, n)
		if err != nil {
			return err
		}
		all = append(all, f)
	}
	if p.Fills == 0 { // can it be done here?
		if err := mounted(at, "size=64k", 0, func() error { return nil }); err != nil {
			return err
		}
	}
	return json.NewEncoder(os.Stdout).Encode(all)
}

// mounted calls do with a file system in memory at a place.
func mounted(at, options string, flags uintptr, do func() error) (err error) {
	if err := syscall.Mount("tmpfs", at, "tmpfs", flags, options); err != nil {
		return fmt.Errorf("mounting a tmpfs: %w", err)
	}
	defer func() {
		if err := syscall.Unmount(at, 0); err != nil { // a goroutine that is parked may hold a file
			_ = syscall.Unmount(at, syscall.MNT_DETACH)
		}
	}()
	return do()
}

// fill has a process use a store until its disk is full, makes room, and judges.
func (p *fillJob) fill(at string, n int) (f filled, err error) {
	rng := rand.New(rand.NewPCG(p.Seed, uint64(n)))
	t := scriptOf(p.Engine).in(at)
	t.Reopens, t.Lives, t.Errno = false, 3, syscall.ENOSPC
	t.Journal = filepath.Join(p.Dir, fmt.Sprint("journal-", n))
	f.Bytes = (16 + rng.IntN(400)) << 10
	if n%2 == 1 { // traffic, in which much stays
		f.Bytes += 1 << 20
		t.Lives, t.Load = 1, &oracle.Workload{
			Seed: rng.Uint64(), Keys: 3000, Workers: 8, Ops: 30_000, Lease: time.Second, Retention: time.Hour, MaxBytes: 16 << 10,
		}
	}
	spare := f.Bytes + 256<<10 // for what opening writes
	options := fmt.Sprintf("size=%d", f.Bytes+spare)
	if n%5 == 4 {
		f.Inodes = 5 + rng.IntN(20)
		options += fmt.Sprintf(",nr_inodes=%d", f.Inodes)
	}
	return f, mounted(at, options, 0, func() error {
		ballast := filepath.Join(at, "ballast")
		if err := os.WriteFile(ballast, make([]byte, spare), 0o600); err != nil {
			return err
		}
		var report trialReport
		err := run(job{Trial: t}.command(), &report)
		// Room again: what lay beside the store is removed, or the disk grows.
		roomErr := os.Remove(ballast)
		if n%3 != 0 || f.Inodes > 0 {
			roomErr = errors.Join(roomErr, syscall.Mount("tmpfs", at, "tmpfs", syscall.MS_REMOUNT, "size=64m,nr_inodes=1000"))
		}
		if roomErr != nil {
			return roomErr
		}
		if err == nil {
			var checker *oracle.Checker
			checker, err = t.judge(report)
			f.Operations, _, _ = checker.Tally()
		}
		if err != nil {
			f.Violation = err.Error() + "\nWhat is left is in " + kept(at)
		}
		f.Refused, f.Broken = report.Refused, report.Broken
		return nil
	})
}

// inNamespace runs j where mounts are its own.
func inNamespace(j *fillJob, report any) error {
	cmd := job{Fill: j}.command()
	cmd.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS}
	if uid := os.Getuid(); uid != 0 {
		cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWUSER
		cmd.SysProcAttr.UidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: uid, Size: 1}}
		cmd.SysProcAttr.GidMappings = []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getgid(), Size: 1}}
	}
	return run(cmd, report)
}

// A disk that is full, in earnest. Stores are used until it is; afterwards there is
// room again, and what was acknowledged is there. Make faults does many.
func TestFaultsFullDisk(t *testing.T) {
	t.Parallel()
	asked(t, "fill")
	var none []filled
	if err := inNamespace(&fillJob{Dir: t.TempDir()}, &none); err != nil {
		t.Skipf("no file system can be mounted here: %v", err)
	}
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	fills := 6 / race.Share
	if testing.Short() {
		fills = 2
	}
	if n := storetest.Setting(t, faultsEnv, 0); n > 0 {
		fills = 10 + int(n)/50
	}
	eachEngine(t, func(t *testing.T, engine string) {
		var one, all []filled
		for n := range fills {
			name := fmt.Sprint("fill-", n)
			if only := os.Getenv(caseEnv); only != "" && only != name {
				continue
			}
			dir := keptDir(t)
			err := inNamespace(&fillJob{Engine: engine, Dir: dir, Seed: seed, From: n, Fills: 1}, &one)
			if err == nil && one[0].Violation != "" {
				err = errors.New(one[0].Violation)
			}
			if err != nil {
				t.Fatalf("%s, seed %d, %s, %+v: %v\nIts journal is in %s. Try it again:\n\tmake faults ENGINE=%s SEED=%d FAULTS=%d CASE=%s",
					engine, seed, name, one, err, dir, engine, seed, 50*n, name)
			}
			all = append(all, one...)
		}
		tally := map[string]int{}
		for _, f := range all {
			what := "never full"
			switch {
			case f.Broken != "":
				what = "broken"
			case f.Refused != "":
				what = "refused to open"
			}
			tally[what]++
			tally["operations"] += f.Operations
			if f.Inodes > 0 {
				tally["with few inodes"]++
			}
		}
		if len(all) > 5 {
			require.Greater(t, tally["broken"], 0)
		}
		t.Logf("%s, seed %d: %d full disks: %s; %s", engine, seed, len(all), storetest.Told(tally), verdict(t))
	})
}

// Files may not grow any more (RLIMIT_FSIZE): EFBIG, and a signal that would end
// most processes.
func TestFaultsFileSizeLimit(t *testing.T) {
	t.Parallel()
	asked(t)
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	limits := 2 + int(storetest.Setting(t, faultsEnv, 0)/200)
	eachEngine(t, func(t *testing.T, engine string) {
		rng := rand.New(rand.NewPCG(seed, 11))
		tally := map[string]int{}
		for range limits {
			p := scriptOf(engine).in(fastDir(t))
			p.Script.Large = 400_000 // in one write of Pebble's; the journal stays below
			p.Errno, p.FileSize, p.Reopens = syscall.EFBIG, uint64(120_000+rng.IntN(300_000)), false
			var report trialReport
			err := run(job{Trial: p}.command(), &report)
			if err == nil {
				_, err = p.judge(report)
			}
			if err != nil {
				t.Fatalf("%s, seed %d, %d bytes: %v\nTry it again:\n\tmake faults ENGINE=%s SEED=%d", engine, seed, p.FileSize, err, engine, seed)
			}
			require.NotEmpty(t, report.Broken+report.Refused, "%d bytes", p.FileSize)
			tally[map[bool]string{true: "broken", false: "refused to open"}[report.Broken != ""]]++
		}
		t.Logf("%s, seed %d: %d limits of file size: %s; %s", engine, seed, limits, storetest.Told(tally), verdict(t))
	})
}
