package idem

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/engine"
)

// steps reads operations, times and durations from fuzzed bytes. What runs out
// reads as zero.
type steps struct{ b []byte }

func (s *steps) next() byte {
	if len(s.b) == 0 {
		return 0
	}
	c := s.b[0]
	s.b = s.b[1:]
	return c
}

func (s *steps) pick(n int) int { return int(s.next()) % n }

func (s *steps) duration(least time.Duration) time.Duration {
	all := [...]time.Duration{least, 1, 10, 100, time.Hour, Forever / 2, Forever - 1, Forever}
	return all[s.pick(len(all))]
}

func (s *steps) text() []byte {
	all := [...]string{"", "", "a", "b", "longer"}
	i := s.pick(len(all))
	if i == 0 {
		return nil
	}
	return []byte(all[i])
}

// time moves on: by a little, by much, or to where something happens to e.
func (s *steps) time(now engine.Instant, e *engine.Entry) engine.Instant {
	to := now
	switch k := s.pick(8); {
	case k == 0:
		to = now + engine.Instant(s.next())
	case k == 1:
		to = now.Add(s.duration(0))
	case k < 7 && e != nil:
		to = [...]engine.Instant{e.LeaseUntil - 1, e.LeaseUntil, e.ExpiresAt - 1, e.ExpiresAt, e.Due}[k-2]
	}
	return min(max(to, now), engine.Never-1)
}

func (s *steps) action(cur *engine.Entry, granted, opening uint64) action {
	kinds := [...]actionKind{actClaim, actClaim, actComplete, actFail, actRelease, actHold, actExtend, actCheckpoint, actForget, actSweep, actUnclaim}
	a := action{kind: kinds[s.pick(len(kinds))], epoch: opening}
	switch a.kind {
	case actClaim:
		a.fence = granted + 1
		a.fingerprint = [...]Fingerprint{fpA, fpB, {}}[s.pick(3)]
		a.lease, a.retention = s.duration(1), s.duration(1)
		a.holdUnknown = s.pick(4) == 0
		a.maxAttempts = uint32(s.pick(4))
		if s.pick(4) == 0 {
			a.leasesFrom = opening
		}
		if s.pick(4) == 3 {
			a.wall = 1000
			a.issuedAt, a.lostUntil = 900+int64(s.next()), 850+int64(s.next())
		}
	case actSweep:
		if a.due = 1; cur != nil && cur.Due != 0 && s.pick(4) != 0 {
			a.due = cur.Due
		}
	case actForget:
		if s.pick(2) == 1 {
			a.fence = granted - uint64(s.pick(3))%(granted+1)
		}
	default:
		a.fence = granted - uint64(s.pick(3))%(granted+1) // the latest, mostly
		a.bytes = s.text()
		if a.kind == actExtend {
			a.bytes, a.lease = nil, s.duration(0)
		}
		if a.kind == actUnclaim {
			a.bytes = nil
		}
		if (a.kind == actComplete || a.kind == actFail) && s.pick(8) == 0 {
			a.bytes, a.dropped = nil, true
		}
		if a.kind == actComplete || a.kind == actFail || a.kind == actRelease || a.kind == actHold {
			a.unlessHeld = s.pick(4) == 0
		}
	}
	return a
}

// FuzzTransition runs random histories of one key through both models of the state
// machine.
func FuzzTransition(f *testing.F) {
	f.Add([]byte{})
	const (
		claim, complete = "\x07\x07\x00\x00\x02\x03\x01\x00\x01", "\x07\x07\x02\x00\x02\x01\x01"
		holding         = "\x07\x07\x00\x00\x02\x03\x00\x00\x01" // claim with HoldUnknown
		lapsed          = "\x07\x03\x00\x00\x02\x03\x01\x00\x01" // claim at the lease's end
		forever         = "\x07\x07\x00\x00\x07\x07\x01\x00\x01"
		other           = "\x07\x07\x00\x01\x02\x03\x01\x00\x01" // claim by another request
		release, save   = "\x07\x07\x04\x00\x00\x01", "\x07\x07\x07\x00\x02"
		swept           = "\x07\x05\x09\x01" // sweep at the record's end
	)
	f.Add([]byte(claim + complete + complete + claim))
	f.Add([]byte(claim + lapsed + complete))
	f.Add([]byte(holding + lapsed + complete))
	f.Add([]byte(forever + release + other + other))
	f.Add([]byte(claim + save + release + other + swept + other))
	f.Fuzz(func(t *testing.T, b []byte) { require.NoError(t, history(b)) })
}

// history runs the history of one key that b spells through both models.
func history(b []byte) error {
	s := &steps{b}
	var cur *engine.Entry
	now, granted, opening := engine.Instant(1000), uint64(0), uint64(1)
	for len(s.b) > 0 {
		if s.pick(16) == 0 {
			opening++
		}
		now = s.time(now, cur)
		next, err := compareStep(transition, cur, s.action(cur, granted, opening), now)
		if err != nil {
			return err
		}
		if cur = next; cur != nil {
			granted = max(granted, cur.Fence)
		}
	}
	return nil
}

// FuzzToken: a text that parses is the one spelling of its token, and every valid
// token survives its text.
func FuzzToken(f *testing.F) {
	f.Add([]byte("idem1.7.dHhuXzAwMQ"), "txn_001", uint64(7))
	f.Add([]byte("idem1.18446744073709551615._w"), "\xff", uint64(1<<64-1))
	f.Add([]byte("idem1.07.dHhuXzAwMQ"), "\x00", uint64(1))
	f.Add([]byte("idem1.+7.dHhuXzAwMQ"), strings.Repeat("k", MaxKey), uint64(1))
	f.Add([]byte("idem1.7.dHhuXzAwMQ=="), strings.Repeat("k", MaxKey+1), uint64(1))
	f.Add([]byte("idem1.7.dHhu\nXzAwMQ"), "", uint64(0))
	f.Add([]byte("idem1.7.dHhuXzAwMR"), "é", uint64(10))
	f.Add([]byte("idem1..."), "a.b", uint64(10))
	f.Add([]byte("idem2.7.dHhuXzAwMQ"), "a/b", uint64(10))
	f.Fuzz(func(t *testing.T, text []byte, key string, fence uint64) {
		was := Token{Key: "untouched", Fence: 3}
		parsed := was
		if err := parsed.UnmarshalText(text); err == nil {
			again, err := parsed.MarshalText()
			require.NoError(t, err)
			require.Equal(t, string(text), string(again))
		} else {
			require.ErrorIs(t, err, ErrInvalid)
			require.Equal(t, was, parsed)
		}

		token := Token{Key: key, Fence: fence}
		out, err := token.MarshalText()
		if key == "" || len(key) > MaxKey || fence == 0 {
			require.ErrorIs(t, err, ErrInvalid)
			return
		}
		require.NoError(t, err)
		require.NoError(t, parsed.UnmarshalText(out))
		require.Equal(t, token, parsed)
	})
}

// FuzzJoinKey: the parts can be told from the key, so that different parts give
// different keys.
func FuzzJoinKey(f *testing.F) {
	f.Add("", "")
	f.Add("tenant,charge,txn_001", ",")
	f.Add("a/b,c", ",")
	f.Add("a,b/c", ",")
	f.Add("%,%25,%2F,%2f,,", ",")
	f.Add("/", "")
	f.Add("\x00\xff,\x80", ",")
	f.Fuzz(func(t *testing.T, list, separator string) {
		parts := strings.Split(list, separator)
		key := JoinKey(parts...)
		require.Equal(t, parts, splitKey(t, key))
		if len(parts) > 1 {
			require.True(t, strings.HasPrefix(key, JoinKey(parts[0])+"/"))
		}
	})
}

// splitKey undoes JoinKey, byte by byte.
func splitKey(t *testing.T, key string) []string {
	parts, part := []string{}, []byte{}
	if key == "" {
		return parts
	}
	for i := 0; i < len(key); i++ {
		switch {
		case key[i] == '/':
			parts, part = append(parts, string(part)), []byte{}
		case strings.HasPrefix(key[i:], "%25"):
			part, i = append(part, '%'), i+2
		case strings.HasPrefix(key[i:], "%2F"):
			part, i = append(part, '/'), i+2
		case key[i] == '%':
			require.Empty(t, part, "a lone %% stands for an empty part")
			require.True(t, i+1 == len(key) || key[i+1] == '/', "a lone %% is a whole part")
		default:
			part = append(part, key[i])
		}
	}
	return append(parts, string(part))
}
