//go:build !race

package pebble

const raceShare = 1
