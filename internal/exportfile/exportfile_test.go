package exportfile_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/exportfile"
	"github.com/idemkv/idem/internal/race"
)

const hour = engine.Instant(time.Hour)

// now is when the records are read, and there when they arrive on another timeline.
const (
	now   = 1000 * hour
	there = 7 * hour
)

func header() exportfile.Header {
	return exportfile.Header{Wall: 1_800_000_000_000_000_000, LostUntil: 17, Secret: [16]byte{1, 15: 9}, Fence: 1 << 61}
}

// named is a record as it is written.
type named struct {
	key string
	e   engine.Entry
}

func records() []named {
	claimed := engine.Entry{
		State: engine.InFlight, Attempt: 1, Fence: 5, ClaimedAt: now - hour, LeaseUntil: now + 2, ExpiresAt: now + hour,
		Lease: time.Minute, Retention: 24 * time.Hour,
	}
	held := claimed
	held.State, held.HoldUnknown, held.ExpiresAt, held.Result = engine.Held, true, engine.Never, []byte("no answer")
	released := claimed
	released.State, released.Bound, released.Checkpoint, released.Result = engine.Released, true, []byte{}, nil
	done := claimed
	done.State, done.Result, done.FinishedAt, done.Fingerprint = engine.Completed, []byte{}, now, engine.Fingerprint{3, 31: 4}
	failed := claimed
	failed.State, failed.ResultDropped, failed.FinishedAt, failed.Attempt = engine.Failed, true, now-1, math.MaxUint32
	forever := done
	forever.Retention, forever.ExpiresAt, forever.LeaseUntil = math.MaxInt64, engine.Never, engine.Never
	return []named{
		{"in flight", claimed},
		{"held", held},
		{"\x00\xff", released},
		{"done", done},
		{"failed", failed},
		{strings.Repeat("k", 1024), forever},
	}
}

func write(t require.TestingT, h exportfile.Header, rs []named, trailer exportfile.Trailer) []byte {
	var b bytes.Buffer
	w, err := exportfile.NewWriter(&b, h)
	require.NoError(t, err)
	for _, r := range rs {
		require.NoError(t, w.Record(r.key, &r.e, now))
	}
	require.NoError(t, w.Close(trailer))
	return b.Bytes()
}

// read returns all that b has, with the times as they are on arrival.
func read(r io.Reader, at engine.Instant) (x *exportfile.Reader, rs []named, err error) {
	if x, err = exportfile.NewReader(r); err != nil {
		return nil, nil, err
	}
	for {
		var r exportfile.Record
		if err := x.Next(&r); err != nil {
			if err == io.EOF {
				err = nil
			}
			return x, rs, err
		}
		rs = append(rs, named{r.Key, *r.Entry(at)})
	}
}

// Everything comes back, and each time is as far from now as it was.
func TestRecordsComeBack(t *testing.T) {
	t.Parallel()
	want := records()
	b := write(t, header(), want, exportfile.Trailer{Fence: 1<<61 + 7, Stopped: true})
	for name, r := range map[string]io.Reader{"at once": bytes.NewReader(b), "byte by byte": iotest.OneByteReader(bytes.NewReader(b))} {
		x, got, err := read(r, there)
		require.NoError(t, err, name)
		require.Equal(t, header(), x.Header)
		require.Equal(t, exportfile.Trailer{Records: uint64(len(want)), Fence: 1<<61 + 7, Stopped: true}, x.Trailer)
		for i, w := range want {
			for _, at := range []*engine.Instant{&w.e.ClaimedAt, &w.e.LeaseUntil, &w.e.FinishedAt, &w.e.ExpiresAt} {
				if *at != 0 && *at != engine.Never {
					*at += there - now
				}
			}
			require.Equal(t, w, got[i], name)
		}
	}
}

// A time before the beginning of the other timeline is its beginning. One after its end never
// comes: a record must not expire early.
func TestTimesStayWithinTheTimeline(t *testing.T) {
	t.Parallel()
	e := records()[3].e
	e.ClaimedAt, e.ExpiresAt = 1, engine.Never-1
	b := write(t, header(), []named{{"k", e}}, exportfile.Trailer{})
	_, got, err := read(bytes.NewReader(b), hour)
	require.NoError(t, err)
	require.Equal(t, engine.Instant(1), got[0].e.ClaimedAt)
	_, got, err = read(bytes.NewReader(b), 2000*hour)
	require.NoError(t, err)
	require.Equal(t, engine.Never, got[0].e.ExpiresAt)
}

func TestAnyRecordsComeBack(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(rapid.Just[[]byte](nil), rapid.Just([]byte{}), rapid.SliceOfN(rapid.Byte(), 1, 300))
		instant := rapid.OneOf(rapid.Int64Range(1, int64(2*now)), rapid.Just(int64(engine.Never)))
		var want []named
		for range rapid.IntRange(0, 8).Draw(t, "records") {
			at := func(name string) engine.Instant { return engine.Instant(instant.Draw(t, name)) }
			r := named{string(rapid.SliceOfN(rapid.Byte(), 1, 40).Draw(t, "key")), engine.Entry{
				State:       engine.State(rapid.IntRange(1, 5).Draw(t, "state")),
				HoldUnknown: rapid.Bool().Draw(t, "hold"), ResultDropped: rapid.Bool().Draw(t, "dropped"), Bound: rapid.Bool().Draw(t, "bound"),
				Attempt: rapid.Uint32().Draw(t, "attempt"), Fence: rapid.Uint64Range(1, 1<<63).Draw(t, "fence"),
				ClaimedAt: at("claimed"), LeaseUntil: at("lease"), ExpiresAt: at("expires"),
				Lease: time.Duration(rapid.Int64Min(0).Draw(t, "duration")), Retention: time.Duration(rapid.Int64Min(0).Draw(t, "retention")),
				Checkpoint: value.Draw(t, "checkpoint"), Result: value.Draw(t, "result"),
			}}
			copy(r.e.Fingerprint[:], rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "print"))
			if r.e.State.Final() {
				r.e.FinishedAt = at("finished")
			}
			want = append(want, r)
		}
		_, got, err := read(bytes.NewReader(write(t, header(), want, exportfile.Trailer{})), now)
		require.NoError(t, err)
		require.Equal(t, want, got)
	})
}

// oneLine requires that err is want, and says in one line what to do.
func oneLine(t require.TestingT, err, want error, says ...string) {
	require.ErrorIs(t, err, want)
	require.NotContains(t, err.Error(), "\n")
	for _, text := range says {
		require.ErrorContains(t, err, text)
	}
}

// An export that ends anywhere before its end, or has any bit wrong, is refused.
func TestDamageIsNoticed(t *testing.T) {
	t.Parallel()
	rs := records()
	whole := write(t, header(), rs, exportfile.Trailer{})
	for n := range whole {
		_, got, err := read(bytes.NewReader(whole[:n]), now)
		if n == 0 {
			oneLine(t, err, engine.ErrInvalid, "pass what Store.Export wrote")
			continue
		}
		oneLine(t, err, engine.ErrCorrupt, fmt.Sprintf("ends at byte %d, after %d records", n, len(got)), "export again")
	}
	b := bytes.Clone(whole)
	for bit := 0; bit < 8*len(whole); bit += 5*race.Share - 4 { // 1, or 11
		b[bit/8] ^= 1 << (bit % 8)
		_, got, err := read(bytes.NewReader(b), now)
		b[bit/8] ^= 1 << (bit % 8)
		if bit < 8*len(exportfile.Magic) {
			oneLine(t, err, engine.ErrInvalid)
			continue
		}
		oneLine(t, err, engine.ErrCorrupt)
		require.Less(t, len(got), len(rs)+1)
	}
	_, _, err := read(bytes.NewReader(append(bytes.Clone(whole), 0)), now)
	oneLine(t, err, engine.ErrCorrupt, "goes on after its end")
	_, _, err = read(bytes.NewReader(append(bytes.Clone(whole), whole...)), now)
	oneLine(t, err, engine.ErrCorrupt, "goes on after its end")
}

// frames takes an export apart: what begins it, and its frames.
func frames(b []byte) [][]byte {
	n := len(exportfile.Magic) + 1
	parts := [][]byte{b[:n]}
	for b = b[n:]; len(b) > 0; b = b[n:] {
		n = 5 + int(binary.LittleEndian.Uint32(b[1:])) + 4
		parts = append(parts, b[:n])
	}
	return parts
}

// Records that are whole themselves are refused where they do not belong.
func TestFramesAreInOrder(t *testing.T) {
	t.Parallel()
	parts := frames(write(t, header(), records(), exportfile.Trailer{}))
	join := func(at ...int) []byte {
		var b []byte
		for _, i := range at {
			b = append(b, parts[i]...)
		}
		return b
	}
	_, _, err := read(bytes.NewReader(join(0, 1, 2, 3, 4, 5, 6, 7, 8)), now)
	require.NoError(t, err)
	for name, at := range map[string][]int{
		"left out": {0, 1, 2, 4, 5, 6, 7, 8}, "twice": {0, 1, 2, 2, 3, 4, 5, 6, 7, 8}, "swapped": {0, 1, 3, 2, 4, 5, 6, 7, 8},
		"no header": {0, 2, 3, 4, 5, 6, 7, 8}, "nothing but the end": {0, 1, 8}, "header twice": {0, 1, 1, 2, 3, 4, 5, 6, 7, 8},
	} {
		_, _, err := read(bytes.NewReader(join(at...)), now)
		require.Error(t, err, name)
		oneLine(t, err, engine.ErrCorrupt)
	}
}

// made is an export of frames whose checksums are right.
func made(version byte, frames ...[]byte) []byte {
	b := append([]byte(exportfile.Magic), version)
	table := crc32.MakeTable(crc32.Castagnoli)
	sum := crc32.Checksum(b, table)
	for _, f := range frames {
		head := binary.LittleEndian.AppendUint32([]byte{f[0]}, uint32(len(f)-1))
		sum = crc32.Update(crc32.Update(sum, table, head), table, f[1:])
		b = append(append(b, head...), f[1:]...)
		b = binary.LittleEndian.AppendUint32(b, sum)
	}
	return b
}

// payload is the kind and payload of a frame.
func payload(frame []byte) []byte { return append([]byte{frame[0]}, frame[5:len(frame)-4]...) }

// What another version wrote is told from what is damaged, and nothing is believed only
// because its checksum is right.
func TestWellSummedAndWrong(t *testing.T) {
	t.Parallel()
	parts := frames(write(t, header(), records()[3:4], exportfile.Trailer{}))
	head, record, end := payload(parts[1]), payload(parts[2]), payload(parts[3])
	with := func(frame []byte, at int, bytes ...byte) []byte {
		b := slices.Clone(frame)
		copy(b[at:], bytes)
		return b
	}
	ff := bytes.Repeat([]byte{0xff}, 8)
	_, _, err := read(bytes.NewReader(made(exportfile.Version, head, record, end)), now)
	require.NoError(t, err, "as it was")
	_, _, err = read(bytes.NewReader(made(exportfile.Version+1, append([]byte("H"), "what a later version says"...))), now)
	oneLine(t, err, engine.ErrVersion, "version 2", "use a newer library")
	for name, b := range map[string][]byte{
		"version 0":              made(0, head, record, end),
		"a header cut":           made(1, head[:20], record, end),
		"no secret":              made(1, with(head, 17, make([]byte, 16)...), record, end),
		"a negative time":        made(1, with(head, 1, ff...), record, end),
		"a fence at the limit":   made(1, with(head, 33, ff...), record, end),
		"a record cut":           made(1, head, record[:50], end),
		"a long key":             made(1, head, with(record, 3, 0xff, 0xff), end),
		"state 0":                made(1, head, with(record, 1, 0), end),
		"state 6":                made(1, head, with(record, 1, 6), end),
		"a flag too many":        made(1, head, with(record, 2, 0x80), end),
		"no fence":               made(1, head, with(record, 9, make([]byte, 8)...), end),
		"the last fence":         made(1, head, with(record, 9, ff...), end),
		"never finished":         made(1, head, with(record, 33, 0, 0, 0, 0, 0, 0, 0, 0x80), end),
		"a negative lease":       made(1, head, with(record, 49, ff...), end),
		"values that do not fit": made(1, head, with(record, 97, ff[:4]...), end),
		"a kind of its own":      made(1, head, with(record, 0, 'X'), end),
		"a trailer cut":          made(1, head, record, end[:10]),
		"a trailer's flag":       made(1, head, record, with(end, 17, 2)),
		"a record too few":       made(1, head, end),
		"no key":                 made(1, head, append(with(record[:1+104], 3, 0, 0), record[1+104+4:]...), end),
	} {
		_, _, err := read(bytes.NewReader(b), now)
		require.Error(t, err, name)
		oneLine(t, err, engine.ErrCorrupt, "export")
	}
}

func TestForeignFilesAreRefused(t *testing.T) {
	t.Parallel()
	for _, text := range []string{"", "\n", "PK\x03\x04", "idem import\n", strings.Repeat("a", 1000)} {
		_, err := exportfile.NewReader(strings.NewReader(text))
		oneLine(t, err, engine.ErrInvalid, "no export")
	}
}

// A damaged length does not make room for what is not there.
func TestDamagedLengthTakesNoMemory(t *testing.T) {
	b := append([]byte{}, write(t, header(), nil, exportfile.Trailer{})[:len(exportfile.Magic)+1]...)
	b = append(b, frames(write(t, header(), nil, exportfile.Trailer{}))[1]...)
	b = append(b, 'R', 0, 0, 0, 0x1f) // half a gigabyte
	b = append(b, make([]byte, 10_000)...)
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	_, _, err := read(bytes.NewReader(b), now)
	runtime.ReadMemStats(&after)
	oneLine(t, err, engine.ErrCorrupt)
	require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(1<<20))
	b[len(b)-10_001] = 0xff
	_, _, err = read(bytes.NewReader(b), now)
	oneLine(t, err, engine.ErrCorrupt, "record 1", "longer than it can be")
}

var errDisk = errors.New("input/output error")

// failing fails after n bytes.
type failing struct {
	n int
	w io.Writer
}

func (f *failing) Write(b []byte) (int, error) {
	if f.n -= len(b); f.n < 0 {
		return 0, errDisk
	}
	return f.w.Write(b)
}

// What fails below is said as it is.
func TestErrorsBelowAreKept(t *testing.T) {
	t.Parallel()
	whole := write(t, header(), records(), exportfile.Trailer{})
	for n := 1; n < len(whole); n += 7 {
		_, _, err := read(io.MultiReader(bytes.NewReader(whole[:n]), iotest.ErrReader(errDisk)), now)
		oneLine(t, err, errDisk, fmt.Sprintf("reading the export at byte %d", n))
	}
	_, _, err := read(io.MultiReader(bytes.NewReader(whole), iotest.ErrReader(errDisk)), now)
	oneLine(t, err, errDisk)
	big := named{"big", records()[3].e}
	big.e.Result = make([]byte, 200<<10)
	for _, n := range []int{0, 70 << 10, 150 << 10} {
		w, err := exportfile.NewWriter(&failing{n: n, w: io.Discard}, header())
		require.NoError(t, err, "it is in the buffer")
		err = errors.Join(w.Record(big.key, &big.e, now), w.Close(exportfile.Trailer{}))
		require.ErrorIs(t, err, errDisk)
	}
}

// The reader takes anything, and what it lets pass is written again as it was.
func FuzzReader(f *testing.F) {
	f.Add(write(f, header(), records(), exportfile.Trailer{Fence: 9, Stopped: true}))
	f.Add(write(f, header(), nil, exportfile.Trailer{}))
	f.Add([]byte(exportfile.Magic))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, rs, err := read(bytes.NewReader(b), now)
		if err != nil {
			if !errors.Is(err, engine.ErrInvalid) && !errors.Is(err, engine.ErrCorrupt) && !errors.Is(err, engine.ErrVersion) {
				t.Fatalf("an error of its own: %v", err)
			}
			return
		}
		again := write(t, x.Header, rs, x.Trailer)
		y, same, err := read(bytes.NewReader(again), now)
		require.NoError(t, err)
		require.Equal(t, x.Header, y.Header)
		require.Equal(t, x.Trailer, y.Trailer)
		require.Equal(t, rs, same)
	})
}

// FuzzFrames is FuzzReader with checksums that are right.
func FuzzFrames(f *testing.F) {
	parts := frames(write(f, header(), records()[1:2], exportfile.Trailer{}))
	f.Add(payload(parts[1]), payload(parts[2]), payload(parts[3]))
	f.Fuzz(func(t *testing.T, head, record, end []byte) {
		if len(head) == 0 || len(record) == 0 || len(end) == 0 {
			return
		}
		x, rs, err := read(bytes.NewReader(made(exportfile.Version, head, record, end)), now)
		if err != nil {
			oneLine(t, err, engine.ErrCorrupt)
			return
		}
		_, same, err := read(bytes.NewReader(write(t, x.Header, rs, x.Trailer)), now)
		require.NoError(t, err)
		require.Equal(t, rs, same)
	})
}
