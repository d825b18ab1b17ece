package bolt

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"
)

// ErrBroken wraps the cause, also where bbolt gives only its words (db.go, grow
// and allocate).
func TestWordsBecomeCauses(t *testing.T) {
	t.Parallel()
	for _, n := range diskErrors {
		cause := &fs.PathError{Op: "truncate", Path: "idem.db", Err: n}
		err := withCause(fmt.Errorf("file resize error: %s", cause))
		require.ErrorIs(t, err, n)
		require.EqualError(t, err, "file resize error: "+cause.Error())
		require.Equal(t, error(cause), withCause(cause), "it has its cause")
	}
	require.NoError(t, withCause(nil))
	other := errors.New("input/output error of another kind")
	require.Equal(t, other, withCause(other))
	require.NotErrorIs(t, withCause(fmt.Errorf("resize: %s", syscall.EIO)), syscall.ENOSPC)
}

// A file that cannot be read at the moment is not taken for a damaged one.
func TestReadable(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), fileName)
	require.True(t, readable(path), "it cannot be opened")
	require.NoError(t, os.WriteFile(path, make([]byte, 1<<16), 0o600))
	require.False(t, readable(path), "there is no meta page in it")
	whole := newFilled(t, 1)
	require.True(t, readable(whole))
}
