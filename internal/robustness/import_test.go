package robustness

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// importJob imports what is on its standard input.
type importJob struct {
	Engine string `json:"engine"`
	Path   string `json:"path"`
}

func (j *importJob) do() error {
	s, err := Open(j.Engine, j.Path, Sizes{MemTable: 256 << 10}, idem.Options{SweepInterval: time.Millisecond})
	if err != nil {
		return err
	}
	_, err = s.Store.Import(context.Background(), os.Stdin)
	return errors.Join(err, s.Store.Close())
}

// Killed again and again in the middle of an import, a store grants nothing that it was
// yet to be told of, and takes the import in the end.
func TestCrashImport(t *testing.T) {
	t.Parallel()
	kills := int(storetest.Setting(t, roundsEnv, 2))
	seed := storetest.Setting(t, seedEnv, rand.Uint64N(1<<32))
	eachEngine(t, func(t *testing.T, engine string) {
		rng := rand.New(rand.NewPCG(seed, 7))
		ctx := t.Context()
		from := storetest.Open(t, memory.New(memory.Options{}), idem.Options{})
		want := map[string]idem.Record{}
		const records = 1200
		for i := range records {
			key := fmt.Sprint("k", rng.Uint32())
			c, err := from.Claim(ctx, idem.Request{Key: key, Lease: time.Hour, Retention: idem.Forever, HoldUnknown: i%3 == 0})
			if errors.Is(err, idem.ErrInFlight) || errors.Is(err, idem.ErrCompleted) {
				continue
			}
			require.NoError(t, err)
			if i%2 == 0 {
				require.NoError(t, from.Complete(ctx, c.Token, make([]byte, rng.IntN(32<<10))))
			}
			want[key], err = from.Get(ctx, key)
			require.NoError(t, err)
		}
		var export bytes.Buffer
		require.NoError(t, from.Export(ctx, &export))
		path := filepath.Join(t.TempDir(), "store")
		begun, whole := 0, 0
		for range kills {
			killImport(t, importJob{engine, path}, export.Bytes()[:1+rng.IntN(export.Len())])
			s, err := Open(engine, path, Sizes{}, idem.Options{})
			require.NoError(t, err, "seed %d", seed)
			found := 0
			for r, err := range s.Store.Records(ctx, idem.Filter{}) {
				require.NoError(t, err)
				require.Equal(t, want[r.Key].Fence, r.Fence)
				require.Equal(t, want[r.Key].Result, r.Result)
				found++
			}
			health := s.Store.Health(ctx)
			switch {
			case found > 0 || errors.Is(health, idem.ErrInvalid):
				require.ErrorIs(t, health, idem.ErrInvalid, "seed %d", seed)
				_, err := s.Store.Claim(ctx, idem.Request{Key: "new"})
				require.ErrorIs(t, err, idem.ErrInvalid)
				begun++
			default:
				require.NoError(t, health)
				whole++
			}
			require.NoError(t, s.Store.Close())
		}
		cmd := job{Import: &importJob{engine, path}}.command()
		cmd.Stdin = bytes.NewReader(export.Bytes())
		out, err := cmd.CombinedOutput()
		require.NoError(t, err, "seed %d: %s", seed, out)
		s, err := Open(engine, path, Sizes{}, idem.Options{})
		require.NoError(t, err)
		defer s.Store.Close()
		require.NoError(t, s.Store.Health(ctx))
		found := 0
		for r, err := range s.Store.Records(ctx, idem.Filter{}) {
			require.NoError(t, err)
			require.Equal(t, want[r.Key].Fence, r.Fence)
			require.Equal(t, want[r.Key].State, r.State)
			require.Equal(t, want[r.Key].Result, r.Result)
			found++
		}
		require.Len(t, want, found)
		t.Logf("seed %d: %d kills in the middle, %d before the first commit", seed, begun, whole)
	})
}

// killImport gives the job a part of an export, and kills it when it has read that.
func killImport(t *testing.T, j importJob, part []byte) {
	t.Helper()
	cmd := job{Import: &j}.command()
	in, err := cmd.StdinPipe()
	require.NoError(t, err)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	require.NoError(t, cmd.Start())
	_, err = in.Write(part) // but for what the pipe holds
	require.NoError(t, err)
	require.NoError(t, cmd.Process.Kill())
	require.Error(t, cmd.Wait(), "it was killed: %s", stderr.String())
	require.Empty(t, stderr.String())
}
