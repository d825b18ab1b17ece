package main

import (
	"fmt"
	"strconv"
	"strings"
	"syscall"
)

// tmpfs is the type of a file system in memory, as statfs has it.
const tmpfs = 0x01021994

// processBytes is write_bytes of a process that has its files in dir; 0: this process.
func processBytes(pid int, dir string) (uint64, error) {
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil {
		return 0, fmt.Errorf("statfs %s: %w", dir, err)
	}
	if fs.Type == tmpfs {
		return 0, fmt.Errorf("%s is in memory (tmpfs): nothing is written; take a directory on a disk", dir)
	}
	of := "self"
	if pid != 0 {
		of = strconv.Itoa(pid)
	}
	n, err := strconv.ParseUint(field("/proc/"+of+"/io", "write_bytes"), 10, 64)
	if err != nil {
		return 0, fmt.Errorf("no write_bytes in /proc/%s/io: the kernel lacks CONFIG_TASK_IO_ACCOUNTING or the file may not be read", of)
	}
	return n, nil
}

// deviceBytes is what the block device below dir was sent since the machine started.
func deviceBytes(dir string) (uint64, error) {
	var file syscall.Stat_t
	if err := syscall.Stat(dir, &file); err != nil {
		return 0, fmt.Errorf("stat %s: %w", dir, err)
	}
	dev := uint64(file.Dev) // it has 32 bits on some architectures
	major, minor := dev>>8&0xfff|dev>>32&^0xfff, dev&0xff|dev>>12&0xffffff00
	stat := fmt.Sprintf("/sys/dev/block/%d:%d/stat", major, minor)
	const sectors, sectorBytes = 6, 512 // the kernel's unit here, whatever the device's
	if f := strings.Fields(contents(stat)); len(f) > sectors {
		n, err := strconv.ParseUint(f[sectors], 10, 64)
		return n * sectorBytes, err
	}
	return 0, fmt.Errorf("%s has no block device of its own that counts", dir)
}

// syncDisks writes back every dirty page and waits for it.
func syncDisks() { syscall.Sync() }
