package idemtest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

var moveCases = []testCase{
	{"Export and Import keep every record", moved},
	{"an import that was killed starts over", importKilled},
}

// exported fills the store with what a case moves, and returns its export and its records.
// n of them are completed, with small results.
func (e *env) exported(n int) (export []byte, records map[string]idem.Record) {
	e.t.Helper()
	e.scanner()
	r := idem.Request{Fingerprint: printA, Lease: time.Minute, Retention: time.Hour}
	claim := func(key string) idem.Token {
		r.Key = key
		return e.claim(r).Token
	}
	for name, b := range map[string][]byte{"nil": nil, "empty": {}, "bytes": []byte("\x00p\xff")} {
		require.NoError(e.t, e.s.Checkpoint(e.ctx, claim("in flight "+name), b))
		for state := range outcomes {
			require.NoError(e.t, e.end(claim(state.String()+" "+name), state, b))
		}
		require.NoError(e.t, e.s.Release(e.ctx, claim("undone "+name), b))
		require.NoError(e.t, e.s.Unclaim(e.ctx, claim("undone "+name)))
	}
	r.HoldUnknown, r.Retention = true, idem.Forever
	claim("unknown")
	for i := 0; i < n; i += 500 {
		requests := make([]idem.Request, min(500, n-i))
		for j := range requests {
			requests[j] = idem.Request{Key: fmt.Sprint("many ", i+j), Retention: time.Hour}
		}
		done := make([]idem.Completion, len(requests))
		for j, c := range e.s.ClaimMany(e.ctx, requests) {
			require.NoError(e.t, c.Err)
			done[j] = idem.Completion{Token: c.Claim.Token, Result: []byte(requests[j].Key)}
		}
		for _, err := range e.s.CompleteMany(e.ctx, done) {
			require.NoError(e.t, err)
		}
	}
	e.clock.Advance(time.Second)
	var b bytes.Buffer
	require.NoError(e.t, e.s.Export(e.ctx, &b))
	return b.Bytes(), e.listed()
}

// listed is records for many of them: testify looks through a map one by one.
func (e *env) listed() map[string]idem.Record {
	e.t.Helper()
	all := map[string]idem.Record{}
	for r, err := range e.s.Records(e.ctx, idem.Filter{}) {
		require.NoError(e.t, err, "Records")
		if _, twice := all[r.Key]; twice {
			e.t.Fatalf("%q is seen twice", r.Key)
		}
		all[r.Key] = r
	}
	return all
}

// holds requires that the store has the records, and no others.
func (e *env) holds(records map[string]idem.Record) {
	e.t.Helper()
	got := e.listed()
	require.Len(e.t, got, len(records))
	for key, want := range records {
		e.same(want, got[key])
	}
}

// moved: what an engine of this kind holds goes to another one, field by field, with its
// places in the expiry index.
func moved(t *testing.T, e *env) {
	e.open(idem.Options{})
	export, want := e.exported(10)
	hash := e.s.KeyHash("k")
	token := want["in flight nil"].Token()
	e.close()
	e.dir = t.TempDir()
	e.open(idem.Options{})
	report, err := e.s.Import(e.ctx, bytes.NewReader(export))
	require.NoError(t, err)
	require.Equal(t, len(want), report.Records)
	e.alsoReopened(func() {
		e.holds(want)
		require.Equal(t, hash, e.s.KeyHash("k"))
		for key, r := range want {
			require.Equal(t, key == "undone nil" || key == "undone empty" || key == "undone bytes", e.entry(key).Bound, key)
			require.Equal(t, r.Fence, e.entry(key).Fence)
		}
	})
	require.ErrorIs(t, e.asks("new", e.wall().Add(-time.Second), 0), idem.ErrTooLate, "the other store was not stopped")
	c := e.claim(idem.Request{Key: "new"})
	for key, r := range want {
		require.Greater(t, c.Token.Fence, r.Fence, key)
	}
	require.NoError(t, e.s.Complete(e.ctx, token, []byte("r")))
	if e.canExpire() {
		e.clock.Advance(25 * time.Hour)
		require.Equal(t, len(want)+1-4, e.sweepAll(), "all but those that are held, and the new one too")
	}
}

// halfway is a reader that calls f once, when half of b has been read. It gives little at a
// time: who reads ahead must not be far ahead.
type halfway struct {
	b    []byte
	from int
	f    func()
}

func (h *halfway) Read(p []byte) (int, error) {
	if h.from == len(h.b) {
		return 0, io.EOF
	}
	half := len(h.b) / 2
	if h.from == half && h.f != nil {
		h.f()
		h.f = nil
	}
	end := len(h.b)
	if h.from < half {
		end = half
	}
	n := copy(p, h.b[h.from:min(end, h.from+4<<10)])
	h.from += n
	return n, nil
}

// importKilled: what a kill in the middle of an import leaves grants nothing, and takes the
// import again.
func importKilled(t *testing.T, e *env) {
	e.crashable()
	e.open(idem.Options{})
	export, want := e.exported(2500)
	e.close()
	e.dir = t.TempDir()
	e.open(idem.Options{})
	var left string
	_, err := e.s.Import(e.ctx, &halfway{b: export, f: func() { left = e.h.Crash(t, e.backend, e.dir) }})
	require.NoError(t, err)
	e.holds(want)
	e.close()

	e.dir = left
	e.open(idem.Options{})
	part := e.listed()
	require.NotEmpty(t, part)
	require.Less(t, len(part), len(want))
	e.alsoReopened(func() {
		require.ErrorIs(t, e.s.Health(e.ctx), idem.ErrInvalid)
		_, err := e.s.Claim(e.ctx, idem.Request{Key: "new"})
		require.ErrorIs(t, err, idem.ErrInvalid)
		for key, r := range part {
			if r.State == idem.InFlight || r.State == idem.Held {
				require.ErrorIs(t, e.s.Complete(e.ctx, r.Token(), nil), idem.ErrInvalid, key)
			}
		}
		e.holds(part)
	})
	broken := errors.New("cable pulled")
	_, err = e.s.Import(e.ctx, io.MultiReader(bytes.NewReader(export[:len(export)/3]), failed{broken}))
	require.ErrorIs(t, err, broken, "a second try that fails")
	_, err = e.s.Import(e.ctx, bytes.NewReader(export))
	require.NoError(t, err)
	e.alsoReopened(func() {
		e.holds(want)
		require.NoError(t, e.s.Health(e.ctx))
	})
	e.claim(idem.Request{Key: "new"})
}

// failed is a reader that fails.
type failed struct{ err error }

func (f failed) Read([]byte) (int, error) { return 0, f.err }
