package idemtest

import (
	"slices"
	"testing"
)

// Run shows that the engine of h keeps every rule. It runs each case as a parallel
// subtest of t, and Model and Histories as well.
func Run(t *testing.T, h Harness) {
	if h.Open == nil {
		t.Fatal("idemtest: Harness.Open is nil")
	}
	for _, c := range cases() {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			c.fn(t, newEnv(t, h))
		})
	}
	t.Run("model", func(t *testing.T) { t.Parallel(); Model(t, h) })
	t.Run("histories", func(t *testing.T) { t.Parallel(); runHistories(t, h) })
}

// testCase is one behaviour. Its name says which.
type testCase struct {
	name string
	fn   func(t *testing.T, e *env)
}

// cases returns every case, by topic.
func cases() []testCase {
	return slices.Concat(
		claimCases, resultCases, tokenCases, timeCases, waitCases, batchCases, recordCases, sweepCases,
		unclaimCases, issuedCases, settleCases, openingCases, moveCases, readOnlyCases, backupCases, healthCases, durableCases, brokenCases, closeCases, boundedCases,
		contractCases, observeCases,
	)
}
