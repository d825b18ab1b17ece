package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
)

func TestProgressLine(t *testing.T) {
	t.Parallel()
	p := &progress{what: "copying", format: size}
	require.Equal(t, "copying, 1s", p.line(1400*time.Millisecond))
	p.add(3 << 20)
	require.Equal(t, "copying 3.0 MiB, 1s", p.line(time.Second))
	p.set(3<<20, 12<<20)
	require.Equal(t, "copying [######------------------] 25% 3.0 MiB of 12.0 MiB, 1m 1s", p.line(61*time.Second))
	p.set(13<<20, 12<<20)
	require.Equal(t, "copying [########################] 100% 12.0 MiB of 12.0 MiB, 2s", p.line(2*time.Second))
}

// What is done within a second draws nothing; what takes longer is drawn, and taken away.
func TestProgressIsDrawnAfterASecond(t *testing.T) {
	t.Parallel()
	elapsed := func() time.Duration { return time.Second }
	var quick bytes.Buffer
	p := &progress{to: &quick, what: "copying", stop: make(chan struct{})}
	p.stopped.Go(func() { p.run(nil, nil, elapsed) })
	p.end()
	p.end()
	require.Empty(t, quick.String())

	var slow bytes.Buffer
	p = &progress{to: &slow, what: "copying", stop: make(chan struct{})}
	first, every := make(chan time.Time), make(chan time.Time)
	p.stopped.Go(func() { p.run(first, every, elapsed) })
	first <- time.Time{}
	every <- time.Time{}
	p.end()
	require.Equal(t, "\r\x1b[Kcopying, 1s\r\x1b[Kcopying, 1s\r\x1b[K", slow.String())

	var nobody *progress
	nobody.add(1)
	nobody.set(1, 2)
	nobody.end()
}

// Without a terminal there is no progress at all.
func TestProgressNeedsATerminal(t *testing.T) {
	t.Parallel()
	s := atTerminal(strings.NewReader(""))
	s.tool.errTerminal = false
	require.Nil(t, s.tool.progress(&progress{what: "copying"}))
}

func TestFoundFile(t *testing.T) {
	t.Parallel()
	tar := make([]byte, 512)
	copy(tar[257:], "ustar")
	for head, want := range map[string]string{
		"SQLite format 3\x00":     "SQLite",
		"idem export\n\x01":       "idem import",
		"\x1f\x8b\x08":            "gzip",
		"PK\x03\x04":              "zip",
		"\x28\xb5\x2f\xfd":        "Zstandard",
		string(tar):               "tar file",
		"\x00\x00\x00\x00":        "zeros",
		"Grüße" + "\xc3":          "text",
		"\x7fELF\x02\x01\x01\x00": "begins with 7f 45 4c 46",
	} {
		require.Contains(t, foundFile(t.TempDir()+"/file", []byte(head)), want)
	}
}

// JSON is laid out and nothing in it is written in another way.
func TestPrettyJSON(t *testing.T) {
	t.Parallel()
	require.Equal(t, "{\n  \"a\": \"<b>&\\u0041\",\n  \"n\": 9007199254740993.0\n}",
		prettyJSON(json.RawMessage(`{"a":"<b>&\u0041","n":9007199254740993.0}`)))
}

func TestLasting(t *testing.T) {
	t.Parallel()
	for d, want := range map[time.Duration]string{
		0: "0ms", 12 * time.Millisecond: "12ms", 59 * time.Second: "59s", time.Minute: "1m", 200 * time.Second: "3m 20s",
		2*time.Hour + 14*time.Minute + 59*time.Second: "2h 14m", 53 * time.Hour: "2d 5h", -time.Minute: "1m",
		10 * 365 * 24 * time.Hour: "10 years",
	} {
		require.Equal(t, want, lasting(d))
	}
	now := time.Unix(1e9, 0)
	require.Equal(t, "now", relative(now, now))
	require.Equal(t, "in 2h", relative(now.Add(2*time.Hour), now))
	require.Equal(t, "3m 20s ago", relative(now.Add(-200*time.Second), now))
}

func TestTextForPeople(t *testing.T) {
	t.Parallel()
	require.Equal(t, "999 B", size(999))
	require.Equal(t, "1.5 KiB", size(1536))
	require.Equal(t, "2.0 TiB", size(2<<40))
	require.Equal(t, "5000.0 TiB", size(5000<<40))
	require.Equal(t, "1 record", count(1, "record"))
	require.Equal(t, "1,234,567 records", count(1234567, "record"))
	require.Equal(t, "order-1", keyText("order-1"))
	require.Equal(t, `"a\x00\x1b[31m"`, keyText("a\x00\x1b[31m"))
	require.Equal(t, `"two words"`, keyText("two words"))
	require.Equal(t, `"a\xff"`, keyText("a\xff"))
	require.Equal(t, "pay.db", shellWord("pay.db"))
	require.Equal(t, `'it'\''s $HOME'`, shellWord("it's $HOME"))
}

// An argument is looked for as all that it can be.
func TestReference(t *testing.T) {
	t.Parallel()
	token, err := idem.Token{Key: "order-1", Fence: 7}.MarshalText()
	require.NoError(t, err)
	for _, c := range []struct {
		ref  reference
		keys []keyed
		hash string
	}{
		{reference{arg: "order-1"}, []keyed{{"order-1", byKey, 0}}, ""},
		{reference{arg: "0123456789ab"}, []keyed{{"0123456789ab", byKey, 0}}, "0123456789ab"},
		{reference{arg: "0123456789AB"}, []keyed{{"0123456789AB", byKey, 0}}, ""},
		{reference{arg: "0123456789ab", only: byHash}, nil, "0123456789ab"},
		{reference{arg: "0123456789ab", only: byKey}, []keyed{{"0123456789ab", byKey, 0}}, ""},
		{reference{arg: string(token)}, []keyed{{string(token), byKey, 0}, {"order-1", byToken, 7}}, ""},
		{reference{arg: string(token), only: byToken}, []keyed{{"order-1", byToken, 7}}, ""},
		{reference{arg: `"a\x00"`}, []keyed{{`"a\x00"`, byKey, 0}, {"a\x00", byKey, 0}}, ""},
		{reference{arg: strings.Repeat("k", idem.MaxKey+1)}, nil, ""},
	} {
		require.Equal(t, c.keys, c.ref.keys())
		require.Equal(t, c.hash, c.ref.hash())
		require.Equal(t, len(c.keys) == 0 && c.hash == "", c.ref.check() != nil)
	}
}

// Each kind of error ends the process with its own code, in one line that names no
// sentinel's package.
func TestExitCodes(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		err  error
		code exitCode
	}{
		{fmt.Errorf("%w: pay.db", idem.ErrLocked), exitLocked},
		{fmt.Errorf("%w: pay.db\nis damaged", idem.ErrCorrupt), exitDamaged},
		{fmt.Errorf("pay.db: %w", idem.ErrVersion), exitVersion},
		{idem.ErrNotFound, exitNotFound},
		{fmt.Errorf("%w (%w)", operator.ErrLost, idem.ErrFenced), exitLost},
		{&fs.PathError{Op: "open", Path: "pay.db", Err: fs.ErrPermission}, exitRefused},
		{idem.ErrBroken, exitUnavailable},
		{fmt.Errorf("%w: %w", idem.ErrBroken, idem.ErrCorrupt), exitUnavailable},
		{fmt.Errorf("pay.db: %w", context.Canceled), exitInterrupted},
		{idem.ErrClosed, exitUnavailable},
		{idem.ErrFull, exitFailed},
		{errors.New("else"), exitFailed},
	} {
		s := atTerminal(strings.NewReader(""))
		require.Equal(t, c.code, s.tool.report(failed(c.err, "looking")))
		require.Regexp(t, `^idem: looking: [^\n]+\n$`, s.err.String())
		require.NotContains(t, s.err.String()[len("idem: "):], "idem: ")
	}
	require.NoError(t, failed(nil, "looking"))
}

// One dash will do, and what follows -- is left alone.
func TestOneDash(t *testing.T) {
	t.Parallel()
	root := systemTool().command()
	require.Equal(t, []string{"show", "--store", "a", "--json", "-h", "--as=key", "-x", "-", "--", "-store"},
		twoDashes(root, []string{"show", "-store", "a", "--json", "-h", "-as=key", "-x", "-", "--", "-store"}))
}

// The list of what is stuck holds a bounded number of records, the oldest.
func TestOldestFirst(t *testing.T) {
	t.Parallel()
	o := oldestFirst{limit: 3}
	for i := range 5000 {
		at := time.Unix(int64((i*2971)%5000), 0)
		o.add(operator.Record{KeyHash: fmt.Sprint(i), Stuck: &operator.Stuck{Since: at}})
		require.Less(t, len(o.kept), 2*3+1001)
	}
	var since []int64
	for _, r := range o.sorted() {
		since = append(since, r.Stuck.Since.Unix())
	}
	require.Equal(t, []int64{0, 1, 2}, since)
	require.Equal(t, 5000, o.total)
}
