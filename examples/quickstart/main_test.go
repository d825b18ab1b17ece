package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// The first run prints what README.md shows, and charges. The second replays.
func TestQuickstart(t *testing.T) {
	readme, err := os.ReadFile("../../README.md")
	require.NoError(t, err)
	t.Chdir(t.TempDir())
	first := output(t, main)
	require.True(t, strings.Contains(strings.ReplaceAll(string(readme), "\r\n", "\n"), "```text\n"+first+"```"),
		"README.md does not show this output:\n%s", first)
	require.Equal(t, strings.Repeat("receipt 42 true <nil>\n", 3), output(t, main))
}

// output returns what run writes to standard output.
func output(t *testing.T, run func()) string {
	t.Helper()
	stdout := os.Stdout
	defer func() { os.Stdout = stdout }()
	path := filepath.Join(t.TempDir(), "stdout")
	file, err := os.Create(path)
	require.NoError(t, err)
	os.Stdout = file
	run()
	require.NoError(t, file.Close())
	text, err := os.ReadFile(path)
	require.NoError(t, err)
	return string(text)
}
