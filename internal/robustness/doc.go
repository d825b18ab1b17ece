// Package robustness attacks stores, and has the oracle judge what was answered and what
// is left. It is for tests.
//
//   - make crash kills stores in the middle of their work, moves or replaces their files,
//     gives them wrong clocks, and restores backups: crash_test.go, clocks_test.go,
//     owner_test.go and moved_test.go.
//   - make power cuts the power of their disks: power_test.go.
//   - make faults lets disks fail, fill up, slow down, hang and rot: faults_test.go,
//     slow_test.go, hung_test.go, full_linux_test.go and flip_test.go.
//
// Power cuts and failing operations on Pebble are tested in package pebble, because they
// need its file system in memory.
package robustness
