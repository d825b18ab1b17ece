// Package attack kills stores in the middle of their work, cuts the power of their
// disks, and has the oracle judge what is left. It is for tests: see crash_test.go
// (make crash) and power_test.go (make power). The power cuts of Pebble are in its
// own package, because they need its file system in memory.
package attack
