//go:build race

package idemtest

// crowdSize is small because the race detector ends the process at 8,128 goroutines,
// including those of the cases that run at the same time.
const crowdSize = 3_000

// histories is how many Run checks. Under the race detector each takes six times as
// long.
const histories = 70
