//go:build race

package jcs

const raceDetector = true
