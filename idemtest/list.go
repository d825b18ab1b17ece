package idemtest

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// listInParts: a list in parts that end anywhere in an engine's pages shows each record
// that stays exactly once, while records around it come, go and change.
func listInParts(t *testing.T, e *env) {
	const stay = 300
	e.open(idem.Options{Lease: time.Hour})
	e.scanner()
	tokens := make([]idem.Token, 0, stay)
	rs := make([]idem.Request, 0, stay)
	for i := range stay {
		rs = append(rs, idem.Request{Key: fmt.Sprintf("stay %03d", i)})
	}
	for _, c := range e.s.ClaimMany(e.ctx, rs) {
		require.NoError(t, c.Err)
		tokens = append(tokens, c.Token)
	}
	for _, part := range []idem.Part{{Limit: 11}, {Look: 23}, {Limit: 1000, Look: 100}, {}} {
		seen := map[string]int{}
		for n := 0; ; n++ {
			require.Less(t, n, 10*stay, "the list has an end")
			l, err := e.s.List(e.ctx, idem.Filter{Prefix: "stay"}, part)
			require.NoError(t, err)
			for _, r := range l.Records {
				require.NoError(t, r.Err)
				seen[r.Key]++
			}
			if part.After = l.Next; part.After == "" {
				break
			}
			if n%4 != 0 { // commits take time
				continue
			}
			comes := fmt.Sprintf("stay %03d comes and goes", n*89%stay)
			if _, err := e.s.Claim(e.ctx, idem.Request{Key: comes}); err != nil {
				require.Equal(t, idem.ErrInFlight, err) // from a part before
			}
			require.NoError(t, e.s.Checkpoint(e.ctx, tokens[n*31%stay], make([]byte, n%2000)))
			if n%8 == 0 {
				require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: comes}))
			}
		}
		for _, tok := range tokens {
			require.Equal(t, 1, seen[tok.Key], "%q was there throughout, %+v", tok.Key, part)
		}
	}
}
