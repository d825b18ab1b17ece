package idem

import (
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/race"
)

// The state machine is held against the model in two ways. TestTransitionAgainstModel
// explores a small world whole; histories reach what that world leaves out: times and
// durations up to the end of time, texts that differ, many attempts and openings.
func TestTransitionOfRandomHistories(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2)) // the same every time: FuzzTransition looks further
	for range 4000 {
		b := make([]byte, 300)
		for i := range b {
			b[i] = byte(random.Uint32())
		}
		require.NoError(t, history(b))
	}
}

// A refusal is answered from the cache too, so it must cost nothing.
func TestRefuseClaimAllocatesNothing(t *testing.T) {
	cur := &engine.Entry{State: Completed, Fingerprint: fpA, ExpiresAt: engine.Never}
	a := action{kind: actClaim, fingerprint: fpA}
	assert.Zero(t, testing.AllocsPerRun(100, func() {
		if refuseClaim(cur, &a, 1) != ErrCompleted {
			panic("not refused")
		}
	}))
}

// What a same-commit function's error makes of the record.
func TestEffectFailure(t *testing.T) {
	t.Parallel()
	claim, limited := action{kind: actClaim}, action{kind: actClaim, maxAttempts: 2}
	complete := action{kind: actComplete}
	for _, a := range []*action{&claim, &limited, &complete} {
		assert.Equal(t, actFail, effectFailure(a, permanent))
		assert.Equal(t, actHold, effectFailure(a, unknown))
	}
	for _, m := range []mark{unmarked, retryable} {
		assert.Equal(t, actRelease, effectFailure(&limited, m), "the attempt counts")
		assert.Zero(t, effectFailure(&claim, m), "what it wrote is undone")
		assert.Zero(t, effectFailure(&complete, m), "the claim's holder says how it goes on")
	}
}
