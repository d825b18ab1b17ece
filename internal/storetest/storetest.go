// Package storetest has a stub engine, and what the tests of several packages do with a store.
package storetest

import (
	"cmp"
	"context"
	"crypto/sha256"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/selfexec"
)

// Open opens a store on b. It is closed at the end of the test, if it is not by then. Its
// commits may take any time unless o says otherwise, because they do on a busy machine.
func Open(t testing.TB, b engine.Backend, o idem.Options) *idem.Store {
	t.Helper()
	o.Stall = cmp.Or(o.Stall, -1)
	s, err := idem.New(b, o)
	require.NoError(t, err)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// Claim claims key, and requires that it is granted.
func Claim(t testing.TB, s *idem.Store, key string) idem.Claim {
	t.Helper()
	c, err := s.Claim(context.Background(), idem.Request{Key: key})
	require.NoError(t, err, "Claim")
	return c
}

// Complete claims key and completes it.
func Complete(t testing.TB, s *idem.Store, key, result string) idem.Claim {
	t.Helper()
	c := Claim(t, s, key)
	require.NoError(t, s.Complete(context.Background(), c.Token, []byte(result)), "Complete")
	return c
}

// Refused claims key, and requires that the answer is want.
func Refused(t testing.TB, s *idem.Store, key string, want error) idem.Record {
	t.Helper()
	c, err := s.Claim(context.Background(), idem.Request{Key: key})
	require.ErrorIs(t, err, want, "Claim")
	require.Zero(t, c.Token, "a refused claim has no token")
	return c.Record
}

// Digest is of every file at or below path but locks, by name and content.
func Digest(t testing.TB, path string) map[string][32]byte {
	t.Helper()
	sums := map[string][32]byte{}
	require.NoError(t, filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || d.Name() == "LOCK" {
			return err
		}
		b, err := os.ReadFile(name)
		sums[name] = sha256.Sum256(b)
		return err
	}))
	return sums
}

// RefusesToOpen requires that open, of what is at path, answers want in one line that names
// path, and that nothing there or beside it is changed or left behind. That it ends is for
// go test to watch.
func RefusesToOpen[B io.Closer](t testing.TB, path string, open func() (B, error), want error) error {
	t.Helper()
	before := Digest(t, filepath.Dir(path))
	b, err := open()
	if err == nil {
		_ = b.Close()
	}
	require.ErrorIs(t, err, want)
	require.Nil(t, b)
	require.ErrorContains(t, err, path)
	require.NotContains(t, err.Error(), "\n", "one line, for logs")
	require.Equal(t, before, Digest(t, filepath.Dir(path)), "what was refused was changed, or something was left")
	return err
}

// Elsewhere runs the test of that name in another process, with env set to value, and
// requires that it passes there.
func Elsewhere(t testing.TB, name, env, value string) {
	t.Helper()
	cmd := selfexec.Command(t.Context(), "-test.run=^"+name+"$", "-test.v")
	cmd.Env = selfexec.Env(env + "=" + value)
	out, err := cmd.CombinedOutput()
	require.NoError(t, err, "%s", out)
	require.Contains(t, string(out), "PASS: "+name)
}
