package formattest

import (
	"flag"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/storetest"
)

// Stores is what the tests of golden stores must know of an engine on disk, whose stores
// are files or directories.
type Stores struct {
	// Golden is the golden store, made once, and Made of what it got when it was made.
	// They are never made again: if the tests fail, stores in the field cannot be read.
	Golden, Made string
	Open         func(path string) (engine.Backend, error)
	// InCommit writes data of the caller's own in the commit that completes r's key with
	// the result "charged".
	InCommit func(s *idem.Store, r idem.Request) error
	// Trim removes from a store that was just made what need not be kept.
	Trim func(t testing.TB, path string)
	// Change replaces the value of a key behind the library's back. where is "records" or
	// "meta".
	Change func(t testing.TB, path, where, key string, by func(value []byte) []byte)
}

var newGolden = flag.Bool("golden-new", false, "make the golden store of a new format; refuses to make one again")

// Make makes the golden store of a new format, where that is asked for.
func (st Stores) Make(t *testing.T) {
	if !*newGolden {
		t.Skip("only with -golden-new, once for each format")
	}
	if _, err := os.Stat(st.Golden); !os.IsNotExist(err) {
		t.Fatalf("%s is there; golden files are never made again: %v", st.Golden, err)
	}
	path := filepath.Join(t.TempDir(), "new")
	text, err := st.fill(t, path).Text()
	must(t, err)
	st.Trim(t, path)
	must(t, os.MkdirAll(filepath.Dir(st.Golden), 0o755))
	st.copy(t, path, st.Golden)
	must(t, os.WriteFile(st.Made, text, 0o644))
}

// fill makes what the golden store holds, at path.
func (st Stores) fill(t testing.TB, path string) Made {
	return Fill(t, func() engine.Backend { return st.open(t, path) }, func(s *idem.Store, r idem.Request) { must(t, st.InCommit(s, r)) })
}

func (st Stores) open(t testing.TB, path string) engine.Backend {
	t.Helper()
	b, err := st.Open(path)
	must(t, err)
	return b
}

func (st Stores) copy(t testing.TB, from, to string) {
	t.Helper()
	info, err := os.Stat(from)
	must(t, err)
	if info.IsDir() {
		must(t, os.CopyFS(to, os.DirFS(from)))
		return
	}
	b, err := os.ReadFile(from)
	must(t, err)
	must(t, os.WriteFile(to, b, 0o600))
}

// Copy returns the path of a copy of the golden store.
func (st Stores) Copy(t testing.TB) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	st.copy(t, st.Golden, path)
	return path
}

// made is what the golden store got when it was made.
func (st Stores) made(t testing.TB) Made {
	t.Helper()
	text, err := os.ReadFile(st.Made)
	must(t, err)
	m, err := ParseMade(text)
	must(t, err)
	return m
}

// Check shows that the golden store opens, holds what it held, and goes on.
func (st Stores) Check(t *testing.T) {
	Check(t, func(t testing.TB) (engine.Backend, Made) { return st.open(t, st.Copy(t)), st.made(t) })
}

// CheckMadeNow shows that what this library makes holds just what the golden store does.
func (st Stores) CheckMadeNow(t *testing.T) {
	Check(t, func(t testing.TB) (engine.Backend, Made) {
		path := filepath.Join(t.TempDir(), "store")
		m := st.fill(t, path)
		return st.open(t, path), m
	})
}

// New makes a store and closes it.
func (st Stores) New(t testing.TB) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "store")
	must(t, st.open(t, path).Close())
	return path
}

// What the error says to do about a store of another version.
const (
	UseNewer = "use a newer library"
	UseOlder = "use the library that wrote it, or make a new store"
)

// CheckOtherVersions shows that a store whose meta entry another version wrote is refused.
func (st Stores) CheckOtherVersions(t *testing.T) {
	for name, c := range map[string]struct {
		meta   func(was []byte) []byte
		advice []string
	}{
		"newer":    {func(was []byte) []byte { return Newer("meta", was) }, []string{"format 255", UseNewer}},
		"format 1": {func([]byte) []byte { return Format1Meta() }, []string{"format 1", UseOlder}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := st.New(t)
			st.Change(t, path, "meta", "meta", c.meta)
			st.RefusesVersion(t, path, c.advice...)
		})
	}
}

// RefusesVersion requires that the store at path is refused as of another version, with the
// advice, and left as it is.
func (st Stores) RefusesVersion(t *testing.T, path string, advice ...string) {
	t.Helper()
	err := storetest.RefusesToOpen(t, path, func() (engine.Backend, error) { return st.Open(path) }, idem.ErrVersion)
	require.NotErrorIs(t, err, idem.ErrCorrupt)
	for _, text := range advice {
		require.ErrorContains(t, err, text)
	}
}

// CheckRecordOfAnotherVersion shows that one such record is ErrVersion for its key alone,
// and nothing is granted; it can be forgotten.
func (st Stores) CheckRecordOfAnotherVersion(t *testing.T) {
	for name, as := range map[string]func(key string, value []byte) []byte{"newer": Newer, "older": Older} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			st.checkUnreadable(t, idem.ErrVersion, func(value []byte) []byte { return as(KeyCompleted, value) })
		})
	}
}

// CheckDamagedRecord is the same with a flipped bit: ErrCorrupt for its key alone.
func (st Stores) CheckDamagedRecord(t *testing.T) {
	st.checkUnreadable(t, idem.ErrCorrupt, func(value []byte) []byte { value[100] ^= 4; return value })
}

func (st Stores) checkUnreadable(t *testing.T, want error, by func(value []byte) []byte) {
	path := st.Copy(t)
	st.Change(t, path, "records", KeyCompleted, by)
	CheckUnreadable(t, st.open(t, path), st.made(t), KeyCompleted, want)
}
