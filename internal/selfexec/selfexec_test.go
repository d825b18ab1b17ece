package selfexec

import (
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const childEnv = "IDEM_SELFEXEC_CHILD"

func TestCommandRunsThisProgram(t *testing.T) {
	if os.Getenv(childEnv) != "" {
		return
	}
	cmd := Command(t.Context(), "-test.run=^TestCommandRunsThisProgram$", "-test.v")
	cmd.Env = Env(childEnv + "=1")
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	assert.Contains(t, string(out), "PASS: TestCommandRunsThisProgram")
}

func TestPrefixComesFirst(t *testing.T) {
	t.Setenv(PrefixEnv, "emulator -cpu max")
	self, err := os.Executable()
	require.NoError(t, err)
	assert.Equal(t, []string{"emulator", "-cpu", "max", self}, Words())
	assert.Equal(t, []string{"emulator", "-cpu", "max", self, "-x"}, Command(t.Context(), "-x").Args)
	assert.True(t, Emulated())
	t.Setenv(PrefixEnv, "")
	assert.Equal(t, []string{self}, Words())
	assert.False(t, Emulated())
}
