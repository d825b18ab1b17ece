//go:build !race

package idem

const raceDetector = false
