//go:build race

package idemtest

// crowdSize: the race detector ends the process at 8,128 goroutines, those of the
// cases beside this one included.
const crowdSize = 3_000

// histories that Run checks. Under the race detector each takes six times as long.
const histories = 70
