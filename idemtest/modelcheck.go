package idemtest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"pgregory.net/rapid"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

func (m *machine) pass(d time.Duration) {
	m.clock.Advance(d)
	m.now += int64(d)
	m.saved += int64(d)
}

func (m *machine) wall() int64 {
	wall, _ := m.clock.Now()
	return wall.UnixNano()
}

// modelFloor is a time in the past. A wall clock that reads less has not been set.
var modelFloor = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()

// drawIssued returns a time at which a request may say it was issued. Another case
// covers a wall clock that is not set.
func (m *machine) drawIssued(r *rapid.T) time.Time {
	if m.wall() < modelFloor || rapid.IntRange(0, 2).Draw(r, "issued") > 0 {
		return time.Time{}
	}
	ago := rapid.SampledFrom([]time.Duration{-time.Hour, 0, 1, time.Second, time.Minute, time.Hour, 24 * time.Hour}).Draw(r, "ago")
	return time.Unix(0, m.wall()-int64(ago)+rapid.Int64Range(-1, 1).Draw(r, "off"))
}

// tooLate reports whether q, which has no record, may have had one.
func (m *machine) tooLate(q idem.Request) bool {
	if q.IssuedAt.IsZero() {
		return false
	}
	issued := min(q.IssuedAt.UnixNano(), m.wall())
	return issued <= m.lost || q.Retention != idem.Forever && m.wall()-issued >= int64(q.Retention)
}

func (m *machine) advance(r *rapid.T) {
	m.pass(rapid.SampledFrom([]time.Duration{1, time.Microsecond, time.Second, time.Minute, 25 * time.Hour}).Draw(r, "time"))
}

// deadline moves the clock to just before, to, or just after the end of a lease or
// retention.
func (m *machine) deadline(r *rapid.T) {
	var ends []int64
	for _, rec := range m.records {
		for _, end := range []int64{rec.lease, rec.expire} {
			if end > m.now+1 && end < m.now+int64(50*24*time.Hour) {
				ends = append(ends, end)
			}
		}
	}
	if len(ends) == 0 {
		r.Skip("no deadline ahead")
	}
	slices.Sort(ends)
	end := rapid.SampledFrom(ends).Draw(r, "deadline") + rapid.Int64Range(-1, 1).Draw(r, "off")
	m.pass(time.Duration(end - m.now))
}

var modelSteps = []time.Duration{-24 * time.Hour, -1, 1, time.Second, time.Hour, -365 * 24 * time.Hour, 365 * 24 * time.Hour}

func (m *machine) step(r *rapid.T) {
	m.clock.StepWall(rapid.SampledFrom(modelSteps).Draw(r, "step"))
	if !m.h.Volatile {
		m.commit(r)
	}
}

// commit makes a commit, so the model knows the saved time.
func (m *machine) commit(r *rapid.T) {
	m.timeless++
	q := idem.Request{Key: fmt.Sprint("commit ", m.timeless)}
	c, err := m.s.Claim(context.Background(), q)
	if err == nil {
		err = m.s.Forget(context.Background(), c.Token)
	}
	if err != nil || c.Token.Fence <= m.fence {
		r.Fatalf("Claim and Forget of a new key, after fence %d: %v, %v", m.fence, c.Token, err)
	}
	m.fence = c.Token.Fence
	m.behind = m.behind && m.wall() <= m.saved
	m.saved = max(m.saved, m.wall())
}

// downtime models the time between two lives. It is what the wall clock shows beyond
// the saved one, but a week at most, and nothing after a life whose clock was behind.
func (m *machine) downtime(r *rapid.T) {
	step := rapid.SampledFrom(append([]time.Duration{0}, modelSteps...)).Draw(r, "downtime")
	m.clock.StepWall(step)
	if !m.behind {
		m.now += min(max(0, m.wall()-m.saved), int64(7*24*time.Hour))
	}
	m.behind = m.wall() < m.saved
	if rapid.Bool().Draw(r, "a new boot") {
		wall, _ := m.clock.Now()
		m.clock = NewClock(wall)
	}
}

// nextLife closes the store, or kills it, and opens what it left.
func (m *machine) nextLife(r *rapid.T) {
	if m.h.Crash != nil && rapid.Bool().Draw(r, "killed") {
		m.kill(r)
		return
	}
	m.close()
	m.downtime(r)
	m.open()
	m.commit(r)
}

// kill ends the life just after a commit, so the model knows the saved time.
func (m *machine) kill(r *rapid.T) {
	m.commit(r)
	left := m.h.Crash(m.t, m.b, m.dir)
	m.close()
	m.dir = left
	m.downtime(r)
	m.open()
	m.commit(r)
}

// check compares everything there is.
func (m *machine) check(r *rapid.T) {
	ctx := context.Background()
	for _, key := range modelKeys {
		rec, err := m.s.Get(ctx, key)
		if m.live(key) == nil {
			if !errors.Is(err, idem.ErrNotFound) {
				r.Fatalf("Get of %q, which is not there: %v", key, err)
			}
			continue
		}
		if err != nil {
			r.Fatalf("Get of %q: %v", key, err)
		}
		m.compare(r, key, rec)
	}
	if _, ok := m.b.(engine.Scanner); !ok {
		return
	}
	seen := map[string]bool{}
	for rec, err := range m.s.Records(ctx, idem.Filter{}) {
		if err != nil || seen[rec.Key] || m.live(rec.Key) == nil {
			r.Fatalf("Records yields %q: %v", rec.Key, err)
		}
		seen[rec.Key] = true
		m.compare(r, rec.Key, rec)
	}
	for key := range m.records {
		if m.live(key) != nil && !seen[key] {
			r.Fatalf("Records does not yield %q", key)
		}
	}
}

// compare requires that got is the model's record of key.
func (m *machine) compare(r *rapid.T, key string, got idem.Record) {
	want := m.live(key)
	if want == nil {
		r.Fatalf("there is no record of %q: %#v", key, got)
	}
	wall, _ := m.clock.Now()
	shown := func(t int64) time.Time {
		if t == 0 || t == modelNever {
			return time.Time{}
		}
		return wall.Add(time.Duration(t - m.now))
	}
	times := map[string][2]time.Time{
		"ClaimedAt":  {shown(want.claimed), got.ClaimedAt},
		"LeaseUntil": {shown(want.lease), got.LeaseUntil},
		"FinishedAt": {shown(want.done), got.FinishedAt},
		"ExpiresAt":  {shown(want.expire), got.ExpiresAt},
	}
	for name, pair := range times {
		if !pair[0].Equal(pair[1]) {
			r.Fatalf("%q: %s is %v, not %v", key, name, pair[1], pair[0])
		}
	}
	bytesEqual := func(a, b []byte) bool { return (a == nil) == (b == nil) && string(a) == string(b) }
	switch {
	case got.Key != key, got.State != want.state, got.Fingerprint != want.print, got.Fence != want.fence, got.Attempt != want.attempt,
		got.ResultDropped != want.dropped, got.HoldUnknown != want.unknown,
		!bytesEqual(got.Result, want.result), !bytesEqual(got.Checkpoint, want.checkpoint):
		r.Fatalf("%q is\n%v print %x result %q checkpoint %q dropped %v unknown %v, not\n%+v", key,
			got, got.Fingerprint[:2], got.Result, got.Checkpoint, got.ResultDropped, got.HoldUnknown, *want)
	}
}
