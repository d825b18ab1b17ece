package oracle

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
	"github.com/idemkv/idem/internal/race"
	"github.com/idemkv/idem/internal/txbackend"
)

func cuts(f faults, seed uint64, images int) *Cuts {
	return &Cuts{
		Fresh: func(rng *rand.Rand) Disk { return newToyDisk(f, rng) },
		Seed:  seed, Images: images, Every: 12, Lives: 4, Ops: 150,
	}
}

// A store that keeps its promises passes.
func TestHealthy(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	images := 400
	if testing.Short() {
		images = 80
	}
	c := cuts(faults{}, rand.Uint64N(1<<32), images)
	require.NoError(t, c.Run())
	t.Logf("%d images of %d stores, %d operations", c.Judged, c.Stores, c.Operations)
}

// change changes one record of a kind that the disk has; nil removes it.
func change(s *spaces, rng *rand.Rand, of func(*engine.Entry) bool, to func(*engine.Entry) *engine.Entry) {
	keys := slices.Sorted(maps.Keys(s[txbackend.Records]))
	rng.Shuffle(len(keys), func(i, j int) { keys[i], keys[j] = keys[j], keys[i] })
	for _, key := range keys {
		e, err := codec.DecodeRecord(key, []byte(s[txbackend.Records][key]))
		if err != nil || !of(e) || e.ExpiresAt < engine.Instant(time.Now().UnixNano()) {
			continue
		}
		changed := *e
		if next := to(&changed); next == nil {
			delete(s[txbackend.Records], key)
		} else {
			s[txbackend.Records][key] = string(codec.AppendRecord(nil, key, next))
		}
		return
	}
}

func inState(state idem.State) func(*engine.Entry) bool {
	return func(e *engine.Entry) bool { return e.State == state }
}

func gone(*engine.Entry) *engine.Entry { return nil }

// meta changes what the last commit saved.
func meta(s *spaces, to func(*engine.Meta)) {
	for key, value := range s[txbackend.Meta] {
		m, err := codec.DecodeMeta([]byte(value))
		if err != nil || m.Fence == 0 {
			return
		}
		to(&m)
		s[txbackend.Meta][key] = string(codec.AppendMeta(nil, m))
	}
}

// Each store that breaks a promise is found out.
func TestMutants(t *testing.T) {
	t.Parallel()
	race.Skip(t)
	lose := func(loses func(*rand.Rand, *spaces)) faults { return faults{loses: loses} }
	loseRecord := func(of func(*engine.Entry) bool, to func(*engine.Entry) *engine.Entry) faults {
		return lose(func(rng *rand.Rand, s *spaces) { change(s, rng, of, to) })
	}
	for name, f := range map[string]faults{
		"acknowledges before the commit": {acksEarly: true},
		"shows before the commit":        {showsEarly: true},
		"forgets a completion":           loseRecord(inState(idem.Completed), gone),
		"forgets a failure":              loseRecord(inState(idem.Failed), gone),
		"forgets a claim":                loseRecord(inState(idem.InFlight), gone),
		"forgets a hold":                 loseRecord(inState(idem.Held), gone),
		"forgets a release":              loseRecord(inState(idem.Released), gone),
		"loses a checkpoint":             loseRecord(func(e *engine.Entry) bool { return e.Checkpoint != nil }, func(e *engine.Entry) *engine.Entry { e.Checkpoint = nil; return e }),
		"half of a completion": loseRecord(inState(idem.Completed), func(e *engine.Entry) *engine.Entry {
			e.Result = bytes.TrimSuffix(e.Result, e.Result[max(0, len(e.Result)-1):])
			return e
		}),
		"undoes a completion": loseRecord(inState(idem.Completed), func(e *engine.Entry) *engine.Entry { e.State, e.FinishedAt, e.Result = idem.InFlight, 0, nil; return e }),
		"undoes an extension": loseRecord(inState(idem.InFlight), func(e *engine.Entry) *engine.Entry { e.LeaseUntil = e.ClaimedAt + engine.Instant(e.Lease); return e }),
		"grants a live claim": {overlooks: 50},
		"gives a fence twice": lose(func(_ *rand.Rand, s *spaces) { meta(s, func(m *engine.Meta) { m.Fence -= 1 << 33 }) }), // more than an opening steps ahead
		"replays another result": loseRecord(func(e *engine.Entry) bool { return len(e.Result) > 0 }, func(e *engine.Entry) *engine.Entry {
			e.Result = bytes.ToUpper(append([]byte("x"), e.Result[1:]...))
			return e
		}),
		"loses the time":                    lose(func(_ *rand.Rand, s *spaces) { meta(s, func(m *engine.Meta) { m.Time -= 1e9 }) }),
		"the effect without the completion": {withholds: []txbackend.Space{txbackend.Records}},
		"the completion without the effect": {withholds: []txbackend.Space{own}},
		"runs an effect twice in a commit":  {runsTwice: true},
		"loses an update of a balance":      {spoilsCommit: loseBalance},
		"removes a record before its time":  {spoilsCommit: loseAny},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := cuts(f, 1, 20_000)
			err := c.Run()
			require.Error(t, err, "%d images of %d stores were judged", c.Judged, c.Stores)
			t.Logf("found in image %d of store %d: %.300v", c.Judged, c.Stores, err)
			var v *Violation
			if errors.As(err, &v) && v.Key != "" {
				require.NotEmpty(t, v.Lines)
			}
		})
	}
}

func loseBalance(rng *rand.Rand, writes []write) {
	for i, w := range writes {
		if w.space == own && rng.IntN(20) == 0 && w.key[0] == balancePrefix[0] {
			writes[i].key = fmt.Sprint(balancePrefix, 100)
		}
	}
}

// loseAny turns a record that is written into one that is removed.
func loseAny(rng *rand.Rand, writes []write) {
	for i, w := range writes {
		if w.space == txbackend.Records && w.value != nil && rng.IntN(50) == 0 {
			writes[i].value = nil
		}
	}
}
