// Package race tells tests whether they run under the race detector, which makes them
// take about six times as long.
package race

import "testing"

// Skip skips a test in which one goroutine works alone, or one that checks the checks:
// the race detector finds nothing in it. The Makefile names these tests, for make test to
// run them without.
func Skip(t testing.TB) {
	t.Helper()
	if Enabled {
		t.Skip("run it without -race, as make test does")
	}
}
