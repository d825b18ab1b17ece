//go:build race

package idemtest

// crowdSize: the race detector ends the process at 8,128 goroutines, those of the
// cases beside this one included.
const crowdSize = 3_000
