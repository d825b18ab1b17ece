package codec

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
)

// testdata/format2.json holds records, places and meta entries of format 2, each
// with the bytes that stand for it. It was made once, by a program that knew
// nothing but docs/FORMAT.md, and is never made again: if this test fails, the
// format was changed and old stores cannot be read.
type goldenFile struct {
	Format  int            `json:"format"`
	Records []goldenRecord `json:"records"`
	Places  []goldenPlace  `json:"places"`
	Metas   []goldenMeta   `json:"metas"`
}

type goldenRecord struct {
	Name          string         `json:"name"`
	Key           hexBytes       `json:"key"`
	State         string         `json:"state"`
	HoldUnknown   bool           `json:"hold_unknown"`
	ResultDropped bool           `json:"result_dropped"`
	Bound         bool           `json:"bound"`
	Attempt       uint32         `json:"attempt"`
	Fence         uint64         `json:"fence"`
	Epoch         uint64         `json:"opening"`
	ClaimedAt     engine.Instant `json:"claimed_at"`
	LeaseUntil    engine.Instant `json:"lease_until"`
	FinishedAt    engine.Instant `json:"finished_at"`
	ExpiresAt     engine.Instant `json:"expires_at"`
	Due           engine.Instant `json:"due"`
	Lease         time.Duration  `json:"lease"`
	Retention     time.Duration  `json:"retention"`
	Fingerprint   hexBytes       `json:"fingerprint"`
	Checkpoint    hexBytes       `json:"checkpoint"`
	Result        hexBytes       `json:"result"`
	Bytes         hexBytes       `json:"bytes"`
}

type goldenPlace struct {
	At    engine.Instant `json:"at"`
	Key   hexBytes       `json:"key"`
	Bytes hexBytes       `json:"bytes"`
}

type goldenMeta struct {
	Time      engine.Instant `json:"time"`
	Wall      int64          `json:"wall"`
	Fence     uint64         `json:"fence"`
	Epoch     uint64         `json:"opening"`
	LostUntil int64          `json:"lost_until"`
	Secret    hexBytes       `json:"secret"`
	Bytes     hexBytes       `json:"bytes"`
}

// hexBytes is hexadecimal in JSON; null is nil and "" is empty.
type hexBytes []byte

func (h *hexBytes) UnmarshalJSON(text []byte) error {
	var s *string
	if err := json.Unmarshal(text, &s); err != nil || s == nil {
		*h = nil
		return err
	}
	b, err := hex.DecodeString(*s)
	*h = append(hexBytes{}, b...)
	return err
}

func golden(t testing.TB) goldenFile {
	t.Helper()
	text, err := os.ReadFile("testdata/format2.json")
	require.NoError(t, err)
	d := json.NewDecoder(bytes.NewReader(text))
	d.DisallowUnknownFields()
	var g goldenFile
	require.NoError(t, d.Decode(&g))
	require.Equal(t, 2, g.Format)
	require.NotEmpty(t, g.Records)
	require.NotEmpty(t, g.Places)
	require.NotEmpty(t, g.Metas)
	return g
}

func (g goldenRecord) entry(t testing.TB) *engine.Entry {
	states := map[string]idem.State{
		"in_flight": idem.InFlight, "released": idem.Released, "held": idem.Held, "completed": idem.Completed, "failed": idem.Failed,
	}
	require.Contains(t, states, g.State)
	require.Len(t, g.Fingerprint, 32)
	return &engine.Entry{
		State: states[g.State], HoldUnknown: g.HoldUnknown, ResultDropped: g.ResultDropped, Bound: g.Bound, Attempt: g.Attempt,
		Fence: g.Fence, Epoch: g.Epoch, Fingerprint: idem.Fingerprint(g.Fingerprint),
		ClaimedAt: g.ClaimedAt, LeaseUntil: g.LeaseUntil, FinishedAt: g.FinishedAt, ExpiresAt: g.ExpiresAt, Due: g.Due,
		Lease: g.Lease, Retention: g.Retention, Checkpoint: g.Checkpoint, Result: g.Result,
	}
}

// Format 2 is read and written byte for byte as it was when it was new.
func TestGolden(t *testing.T) {
	t.Parallel()
	g := golden(t)
	seen := map[string]bool{}
	for _, r := range g.Records {
		t.Run("record/"+r.Name, func(t *testing.T) {
			want := r.entry(t)
			got, err := DecodeRecord(string(r.Key), r.Bytes)
			require.NoError(t, err)
			require.Equal(t, want, got)
			require.Equal(t, hex.EncodeToString(r.Bytes), hex.EncodeToString(AppendRecord(nil, string(r.Key), want)))
		})
		seen[r.State] = true
	}
	require.Len(t, seen, 5, "a record of every state")
	for _, p := range g.Places {
		want := engine.Due{At: p.At, Key: string(p.Key)}
		got, ok := DecodePlace(p.Bytes)
		require.True(t, ok)
		require.Equal(t, want, got)
		require.Equal(t, hex.EncodeToString(p.Bytes), hex.EncodeToString(AppendPlace(nil, want)))
	}
	for _, m := range g.Metas {
		require.Len(t, m.Secret, 16)
		want := engine.Meta{
			Time: m.Time, Wall: m.Wall, Fence: m.Fence, Epoch: m.Epoch,
			LostUntil: m.LostUntil, Secret: [16]byte(m.Secret),
		}
		if m.LostUntil < 0 { // as it is in the bytes
			want.LostUntil, want.Importing = ^m.LostUntil, true
		}
		got, err := DecodeMeta(m.Bytes)
		require.NoError(t, err)
		require.Equal(t, want, got)
		require.Equal(t, hex.EncodeToString(m.Bytes), hex.EncodeToString(AppendMeta(nil, want)))
	}
}
