package txbackend

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// tangled is an engine whose scans come back to where they were.
type tangled struct {
	*fake
	pairs []Pair
}

func (e tangled) Scan(space Space, from, to []byte, limit int) ([]Pair, error) {
	if space == Meta {
		return e.fake.Scan(space, from, to, limit)
	}
	return e.pairs, nil
}

// Keys that do not come in order are damage, and never an endless list.
func TestKeysOutOfOrder(t *testing.T) {
	t.Parallel()
	keys := func(keys ...string) (pairs []Pair) {
		for _, k := range keys {
			pairs = append(pairs, Pair{Key: []byte(k)})
		}
		return pairs
	}
	for name, pairs := range map[string][]Pair{
		"going back": keys("b", "a"), "standing still": keys("a", "a"), "before the beginning": keys("0"),
	} {
		for _, what := range []string{"Scan", "Expiring"} {
			b := New(tangled{newFake(), pairs})
			(&host{}).bind(t, b)
			var err error
			if what == "Scan" {
				_, _, err = b.Scan(ctx, "", "0")
			} else {
				b = New(tangled{newFake(), keys("b", "a")})
				(&host{}).bind(t, b)
				_, err = b.Expiring(ctx, engine.Due{}, engine.Never, 10)
			}
			require.ErrorIs(t, err, idem.ErrBroken, "%s, %s", what, name)
			require.ErrorIs(t, err, idem.ErrCorrupt, "%s, %s", what, name)
			require.NoError(t, b.Close())
		}
	}
}
