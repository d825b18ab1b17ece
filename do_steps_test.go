package idem_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/selfexec"
)

// BookTrip in processes that are really killed: after each step's effect and
// before its checkpoint, and after each checkpoint. A step whose checkpoint was saved
// is never asked for again; one that was killed before it is asked for again with the
// same key, so that the service does it once; and the last process replays.
func TestDoStepsInProcessesThatAreKilled(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("starts eight processes")
	}
	dir := t.TempDir()
	process := func(dies string) error {
		t.Helper()
		cmd := selfexec.Command(t.Context(), "-test.run=^TestDoStepsChild$", "-test.count=1")
		cmd.Env = selfexec.Env("IDEM_STEPS_DIR="+dir, "IDEM_STEPS_DIES="+dies)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if err != nil {
			require.ErrorAs(t, err, &exit, "%s", out)
			require.NotContains(t, string(out), "--- FAIL", "it was killed, it did not fail:\n%s", out)
		}
		return err
	}
	asked := func() []string {
		t.Helper()
		b, err := os.ReadFile(filepath.Join(dir, "asked"))
		require.NoError(t, err)
		return strings.Fields(string(b))
	}
	var want []string
	for _, step := range []string{"flight", "hotel", "mail"} {
		ask := step + ":" + idem.DownstreamKey("trip-7", step)
		require.Error(t, process("before "+step))
		want = append(want, ask)
		require.Equal(t, want, asked())
		require.Error(t, process("after "+step))
		want = append(want, ask)
		require.Equal(t, want, asked(), "asked again, with the same key")
	}
	require.NoError(t, process("never"))
	require.NoError(t, process("never"))
	assert.Equal(t, want, asked())
	result, err := os.ReadFile(filepath.Join(dir, "result"))
	require.NoError(t, err)
	booked := "{Flight:flight booked Hotel:hotel booked Mail:mail booked}"
	assert.Equal(t, booked+" false\n"+booked+" true\n", string(result))
}

// TestDoStepsChild is the process that the test above starts and that kills itself.
func TestDoStepsChild(t *testing.T) {
	dir, dies := os.Getenv("IDEM_STEPS_DIR"), os.Getenv("IDEM_STEPS_DIES")
	if dir == "" {
		t.Skip("is started by TestDoStepsInProcessesThatAreKilled")
	}
	die := func() {
		self, err := os.FindProcess(os.Getpid())
		require.NoError(t, errors.Join(err, self.Kill()))
		select {}
	}
	write := func(name, line string) {
		f, err := os.OpenFile(filepath.Join(dir, name), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
		require.NoError(t, err)
		_, err = fmt.Fprintln(f, line)
		require.NoError(t, errors.Join(err, f.Close()))
	}
	store, err := openTrips(filepath.Join(dir, "trips.db"))
	require.NoError(t, err)
	booked, replayed, err := bookTrip(context.Background(), store, travel{
		book: func(_ context.Context, step, key string) (string, error) {
			write("asked", step+":"+key)
			if dies == "before "+step {
				die()
			}
			return step + " booked", nil
		},
		saved: func(step string) error {
			if dies == "after "+step {
				die()
			}
			return nil
		},
	}, "trip-7")
	require.NoError(t, err)
	write("result", fmt.Sprintf("%+v %t", booked, replayed))
	require.NoError(t, store.Close())
}
