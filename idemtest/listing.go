package idemtest

import (
	"cmp"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// scanOnce lists the engine while entries are written around those that stay.
func scanOnce(t *testing.T, e *env) {
	const n = 400
	e.open(idem.Options{})
	scanner := e.scanner()
	var rs []idem.Request
	for i := range n {
		rs = append(rs, idem.Request{Key: fmt.Sprintf("%c/%03d", 'a'+i%3, i)})
	}
	tokens := map[string]idem.Token{}
	for _, c := range e.s.ClaimMany(e.ctx, rs) {
		require.NoError(t, c.Err)
		tokens[c.Token.Key] = c.Token
	}
	for _, prefix := range []string{"", "a/", "b/1", "c/", "d"} {
		seen := map[string]int{}
		pages := 0
		for cursor := ""; ; pages++ {
			page, next, err := scanner.Scan(e.ctx, prefix, cursor)
			require.NoError(t, err)
			for _, sc := range page {
				require.NoError(t, sc.Err)
				seen[sc.Key]++
			}
			// Between pages, keys come and go on either side of the cursor, and those that
			// stay are rewritten.
			if pages < 12 {
				for i := range 4 {
					at := fmt.Sprintf("%c/%03d+%d", 'a'+i%3, (pages*37+i*101)%n, pages%2)
					if e.entry(at) == nil {
						e.claim(idem.Request{Key: at})
					} else {
						require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: at}))
					}
					r := rs[(pages*53+i*97)%n].Key
					require.NoError(t, e.s.Checkpoint(e.ctx, tokens[r], make([]byte, pages*100)))
				}
			}
			if next == "" {
				break
			}
			require.NotEqual(t, cursor, next, "the scan does not get on")
			cursor = next
		}
		for _, r := range rs {
			if strings.HasPrefix(r.Key, prefix) {
				require.Equal(t, 1, seen[r.Key], "%q, listing %q", r.Key, prefix)
			}
		}
		for key, times := range seen {
			require.Equal(t, 1, times, "%q, listing %q", key, prefix)
		}
	}
}

// expiringOrder pages through the expiry index in many ways and compares the result
// with the entries.
func expiringOrder(t *testing.T, e *env) {
	const n = 300
	e.open(idem.Options{})
	x := e.expirer()
	rng := rand.New(rand.NewPCG(1, 2))
	var rs []idem.Request
	for i := range n {
		// Many share an instant, to make the order of keys count too.
		rs = append(rs, idem.Request{Key: fmt.Sprintf("k%03d", i), Retention: time.Duration(1+rng.IntN(60)) * time.Second})
	}
	rng.Shuffle(n, func(i, j int) { rs[i], rs[j] = rs[j], rs[i] })
	var tokens []idem.Token
	for _, c := range e.s.ClaimMany(e.ctx, rs) {
		require.NoError(t, c.Err)
		tokens = append(tokens, c.Token)
	}
	for i, tok := range tokens {
		switch i % 7 {
		case 0:
			require.NoError(t, e.s.Complete(e.ctx, tok, nil))
		case 1:
			require.NoError(t, e.s.Hold(e.ctx, tok, nil)) // leaves the index
		case 2:
			require.NoError(t, e.s.Hold(e.ctx, tok, nil))
			e.clock.Advance(time.Millisecond)
			require.NoError(t, e.s.Release(e.ctx, tok, nil)) // and comes back
		case 3:
			require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: tok.Key}))
		case 4:
			require.NoError(t, e.s.Forget(e.ctx, idem.Token{Key: tok.Key}))
			e.claim(idem.Request{Key: tok.Key, Retention: time.Duration(1+rng.IntN(60)) * time.Second})
		}
	}
	if !e.h.Volatile {
		e.reopen()
		x = e.expirer()
	}
	current := map[engine.Due]bool{}
	for _, tok := range tokens {
		if entry := e.entry(tok.Key); entry != nil && entry.Due != 0 {
			current[engine.Due{At: entry.Due, Key: tok.Key}] = true
		}
	}
	order := func(a, b engine.Due) int { return cmp.Or(cmp.Compare(a.At, b.At), cmp.Compare(a.Key, b.Key)) }
	var sorted []engine.Due
	for d := range current {
		sorted = append(sorted, d)
	}
	slices.SortFunc(sorted, order)

	second := engine.Instant(time.Second)
	begin := engine.Instant(start.UnixNano())
	for _, limit := range []int{1, 2, 7, 64, 1000} {
		for _, until := range []engine.Instant{0, begin, begin + second, begin + 30*second, sorted[len(sorted)/2].At, sorted[len(sorted)/2].At - 1, engine.Never} {
			for _, from := range []engine.Due{{}, {At: begin + 20*second}, sorted[10], sorted[len(sorted)-1], {At: engine.Never}} {
				var want, got []engine.Due
				for _, d := range sorted {
					if order(d, from) > 0 && d.At <= until {
						want = append(want, d)
					}
				}
				for at := from; ; {
					page, err := x.Expiring(e.ctx, at, until, limit)
					require.NoError(t, err)
					require.LessOrEqual(t, len(page), limit)
					if len(page) == 0 {
						break
					}
					for _, d := range page {
						if order(d, at) <= 0 || d.At > until {
							t.Fatalf("%v follows %v, until %v", d, at, until)
						}
						if at = d; current[d] { // a stale place is allowed
							got = append(got, d)
						}
					}
				}
				require.Equal(t, want, got, "from %v until %v, %d at a time", from, until, limit)
			}
		}
	}
}
