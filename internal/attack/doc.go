// Package attack kills stores in the middle of their work and has the oracle judge
// what is left. It is for tests: see crash_test.go (make crash).
package attack
