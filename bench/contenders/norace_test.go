//go:build !race

package contenders

const raceDetector = false
