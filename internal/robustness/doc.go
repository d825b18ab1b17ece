// Package robustness kills stores in the middle of their work, cuts the power of their
// disks, lets the disks fail, fill up, slow down, hang and rot, takes stores away from
// their owners, gives them wrong clocks, restores backups of them, and has the oracle
// judge what was answered and what is left. It is for tests: see crash_test.go,
// clocks_test.go, owner_test.go and moved_test.go (make crash), power_test.go (make
// power), and faults_test.go, slow_test.go, hung_test.go, full_linux_test.go and
// flip_test.go (make faults). Power cuts and failing operations on Pebble are in its own
// package, because they need its file system in memory.
package robustness
