//go:build race

package robustness

// raceShare: under the race detector everything takes six times as long, so a share of
// the cases has to do. Without it all are run, as by make cover.
const raceShare = 3
