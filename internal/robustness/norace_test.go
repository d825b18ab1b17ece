//go:build !race

package robustness

const raceShare = 1
