//go:build !race

package attack

const raceShare = 1
