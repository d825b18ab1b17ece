//go:build !race

package jcs

const raceDetector = false
