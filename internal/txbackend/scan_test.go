package txbackend

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// listed walks over all pages of a scan; between is called after each.
func listed(t require.TestingT, b *Backend, prefix string, between func(next string)) (keys []string, found map[string]engine.Scanned) {
	found = map[string]engine.Scanned{}
	for cursor, more := "", true; more; more = cursor != "" {
		page, next, err := b.Scan(ctx, prefix, cursor)
		require.NoError(t, err)
		require.LessOrEqual(t, len(page), 2*scanPage)
		for _, sc := range page {
			if strings.HasPrefix(sc.Key, prefix) { // others may be among them
				keys = append(keys, sc.Key)
				found[sc.Key] = sc
			}
		}
		cursor = next
		if between != nil {
			between(next)
		}
	}
	return keys, found
}

// numbered claims n keys that begin with prefix, in one commit for each thousand.
func (e *env) numbered(prefix string, n int) (keys []string) {
	e.t.Helper()
	var rs []idem.Request
	for i := range n {
		key := fmt.Sprintf("%s%04d", prefix, i)
		keys = append(keys, key)
		rs = append(rs, idem.Request{Key: key})
	}
	for chunk := range slices.Chunk(rs, 1000) {
		for _, r := range e.s.ClaimMany(ctx, chunk) {
			require.NoError(e.t, r.Err)
		}
	}
	return keys
}

func TestScanPages(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	keys, _ := listed(t, e.b, "", nil)
	require.Empty(t, keys)
	want := append(e.numbered("a", 3*scanPage), e.numbered("b", 5)...)
	pages := 0
	keys, _ = listed(t, e.b, "", func(string) { pages++ })
	require.Equal(t, want, keys, "in order, each once")
	require.Greater(t, pages, 3, "in pages")
	keys, _ = listed(t, e.b, "b", nil)
	require.Equal(t, want[3*scanPage:], keys)
	keys, _ = listed(t, e.b, "a0001", nil)
	require.Equal(t, []string{"a0001"}, keys)
	keys, _ = listed(t, e.b, "c", nil)
	require.Empty(t, keys)
}

func TestScanHonoursContext(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, _, err := e.b.Scan(ended, "", "")
	require.Equal(t, context.Canceled, err)
	_, err = e.b.Expiring(ended, engine.Due{}, engine.Never, 1)
	require.Equal(t, context.Canceled, err)
}

// A scan shows what a commit on its way changes, adds and removes as it
// was, wherever in a page that lies, and only within its bounds.
func TestScanDuringCommit(t *testing.T) {
	bubble(t, func(t *testing.T, e *env) {
		want := e.numbered("k", 3*scanPage)
		_, before := listed(t, e.b, "", nil)
		last := len(want) - 1
		var changes []func()
		change := func(fn func() error) {
			changes = append(changes, func() {
				if err := fn(); err != nil {
					t.Error(err)
				}
			})
		}
		// Added: before the first, between two, at the end of a page, after the last.
		for _, key := range []string{"a", "k0001-", want[scanPage-1] + "\x00", "k9", "z"} {
			change(func() error { _, err := e.s.Claim(ctx, idem.Request{Key: key}); return err })
		}
		// Removed: the first, the last of a page, the first of one, the last.
		removed := []string{want[0], want[scanPage-1], want[scanPage], want[2*scanPage-1], want[last]}
		for _, key := range removed {
			change(func() error { return e.s.Forget(ctx, idem.Token{Key: key}) })
		}
		// Changed.
		changed := []string{want[1], want[scanPage+1], want[last-1]}
		for _, key := range changed {
			change(func() error { return e.s.Release(ctx, idem.Token{Key: key, Fence: before[key].Entry.Fence}, nil) })
		}
		// The commits that let the others gather come to be visible first; the next is it.
		look := func() error {
			for _, prefix := range []string{"", "k", "k00", "k0", "k05", "k0511", "kx", "a", "z", want[last]} {
				keys, found := listed(t, e.b, prefix, nil)
				wanted := slices.DeleteFunc(slices.Clone(want), func(key string) bool { return !strings.HasPrefix(key, prefix) })
				if !slices.Equal(wanted, keys) {
					t.Errorf("prefix %q: %d keys, want %d", prefix, len(keys), len(wanted))
				}
				for _, key := range wanted {
					assert.Equal(t, before[key], found[key])
				}
			}
			return nil
		}
		looks := 0
		changes = append(changes, func() {
			e.fake.on(visible, func() error { looks++; return look() })
		})
		e.together(changes...)
		require.Equal(t, 2, looks, "the changes did not share one commit")

		after, found := listed(t, e.b, "", nil)
		for _, key := range removed {
			require.False(t, slices.Contains(after, key), key)
		}
		for _, key := range changed {
			require.Equal(t, idem.Released, found[key].Entry.State)
		}
		for _, key := range []string{"a", "k0001-", "k9", "z"} {
			require.True(t, slices.Contains(after, key), key)
		}
		require.True(t, slices.IsSorted(after))
	})
}

// A record that is there throughout is seen exactly once, whatever comes and
// goes between the pages, the record that the cursor names included.
func TestScanWhileWriting(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(rt *rapid.T) {
		e := newEnv(t)
		defer func() { require.NoError(rt, e.s.Close()) }()
		want := e.numbered("k", scanPage+rapid.IntRange(1, scanPage).Draw(rt, "more"))
		stays := map[string]bool{}
		for _, key := range want {
			stays[key] = true
		}
		keys, _ := listed(rt, e.b, "", func(cursor string) {
			if cursor != "" && rapid.Bool().Draw(rt, "forget the cursor") {
				require.NoError(rt, e.s.Forget(ctx, idem.Token{Key: cursor}))
				delete(stays, cursor)
			}
			for range rapid.IntRange(0, 4).Draw(rt, "changes") {
				key := fmt.Sprintf("k%04d", rapid.IntRange(0, len(want)-1).Draw(rt, "key"))
				if rapid.Bool().Draw(rt, "add") {
					_, err := e.s.Claim(ctx, idem.Request{Key: key + "+"})
					if err != idem.ErrInFlight {
						require.NoError(rt, err)
					}
				} else {
					require.NoError(rt, e.s.Forget(ctx, idem.Token{Key: key}))
					delete(stays, key)
				}
			}
		})
		require.True(rt, slices.IsSorted(keys))
		require.Equal(rt, len(slices.Compact(slices.Clone(keys))), len(keys), "seen twice")
		seen := map[string]bool{}
		for _, key := range keys {
			seen[key] = true
		}
		for key := range stays {
			require.True(rt, seen[key], "%s was there throughout and not seen", key)
		}
	})
}

func TestPrefixEnd(t *testing.T) {
	t.Parallel()
	for prefix, want := range map[string][]byte{
		"": nil, "a": []byte("b"), "ab": []byte("ac"), "a\xff": []byte("b"), "a\xff\xff": []byte("b"),
		"\xff": nil, "\xff\xff\xff": nil, "a\xfe": []byte("a\xff"), "\x00": []byte("\x01"), "\xff\x00": []byte("\xff\x01"),
	} {
		require.Equal(t, want, prefixEnd(prefix), "%q", prefix)
	}
	few := rapid.SliceOfN(rapid.SampledFrom([]byte{0, 1, 'a', 0xfe, 0xff}), 0, 4)
	rapid.Check(t, func(rt *rapid.T) {
		prefix, key := string(few.Draw(rt, "prefix")), string(few.Draw(rt, "key"))
		end := prefixEnd(prefix)
		within := key >= prefix && (end == nil || key < string(end))
		require.Equal(rt, strings.HasPrefix(key, prefix), within)
	})
}

// Places come in the order of time, page by page, up to the time asked for.
func TestExpiring(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	places := []engine.Due{{At: 1, Key: "z"}, {At: 5, Key: "a"}, {At: 5, Key: "b"}, {At: 256, Key: "a"}, {At: engine.Never - 1, Key: "x"}}
	for _, p := range places {
		e.fake.damage(Expiry, string(codec.AppendPlace(nil, p)), func([]byte) []byte { return []byte{} })
	}
	expiring := func(from engine.Due, until engine.Instant, limit int) []engine.Due {
		t.Helper()
		got, err := e.b.Expiring(ctx, from, until, limit)
		require.NoError(t, err)
		return got
	}
	require.Equal(t, places, expiring(engine.Due{}, engine.Never, 100))
	require.Equal(t, places[:2], expiring(engine.Due{}, engine.Never, 2))
	require.Equal(t, places[2:4], expiring(places[1], engine.Never, 2), "after a place")
	require.Equal(t, places[3:], expiring(engine.Due{At: 6}, engine.Never, 100), "from a time on")
	require.Equal(t, places[1:], expiring(engine.Due{At: 5}, engine.Never, 100), "from a time on, that time included")
	require.Equal(t, places[:3], expiring(engine.Due{}, 5, 100), "up to a time, that time included")
	require.Equal(t, places[:1], expiring(engine.Due{}, 4, 100))
	require.Empty(t, expiring(engine.Due{}, 0, 100))
	require.Equal(t, places, expiring(engine.Due{}, engine.Never-1, 100))
	require.Empty(t, expiring(places[4], engine.Never, 100))
}

// What is no place is passed over, and does not hide those after it.
func TestExpiringPassesOverWhatIsNoPlace(t *testing.T) {
	t.Parallel()
	e := newEnv(t)
	for _, key := range []string{"\x00", "\x00\x01", "\x00\x02\x03", strings.Repeat("\x00", 8)} {
		e.fake.damage(Expiry, key, func([]byte) []byte { return []byte{} })
	}
	want := engine.Due{At: 9, Key: "k"}
	e.fake.damage(Expiry, string(codec.AppendPlace(nil, want)), func([]byte) []byte { return []byte{} })
	for _, limit := range []int{1, 2, 4, 5, 100} {
		got, err := e.b.Expiring(ctx, engine.Due{}, engine.Never, limit)
		require.NoError(t, err)
		require.Equal(t, []engine.Due{want}, got, "limit %d", limit)
	}
}

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
