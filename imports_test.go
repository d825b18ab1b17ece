package idem_test

import (
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// The rooms of the module and who may know whom. Package engine knows nobody. The root
// knows it and no engine, engines know it, the root where they offer Do, and never each
// other, integrations know only the root; programs know everything.

const module = "github.com/idemkv/idem"

// room is a package: what the files that are not tests import, and whether it is a
// program.
type room struct {
	program bool
	imports map[string]bool
}

var (
	engines      = []string{"memory", "bolt", "pebble"}
	integrations = []string{"idemhttp", "consume"}
	// testing help is imported by tests alone, and may import what tests do.
	testingHelp = []string{"idemtest", "internal/formattest", "internal/robustness", "internal/outcomes", "internal/progress"}
	testLibs    = []string{"github.com/stretchr/testify", "pgregory.net/rapid", "github.com/anishathalye/porcupine", "go.uber.org/goleak"}
	// everything else that is not of the standard library, and the room it belongs to.
	libraryOf = map[string]string{
		"github.com/cockroachdb/pebble": "pebble",
		"go.etcd.io/bbolt":              "bolt",
		"github.com/hashicorp":          ".",
		"github.com/HdrHistogram":       "bench",
		"golang.org/x/sys":              "internal/diskspace",
	}
)

func under(path string, roots ...string) bool {
	return slices.ContainsFunc(roots, func(r string) bool { return path == r || strings.HasPrefix(path, r+"/") })
}

// knowsEverything: programs, the folders that hold nothing but such, and the one
// that attacks every engine.
func knowsEverything(path string, r room) bool {
	return r.program || under(path, "cmd", "bench", "examples") || path == "internal/robustness"
}

// misdirected returns the imports that go the wrong way, as "from -> to".
func misdirected(rooms map[string]room) (wrong []string) {
	for from, r := range rooms {
		for to := range r.imports {
			if !allowed(from, r, to) {
				wrong = append(wrong, from+" -> "+to)
			}
		}
	}
	slices.Sort(wrong)
	return wrong
}

func allowed(from string, r room, to string) bool {
	if knowsEverything(from, r) {
		return true
	}
	ours, isOurs := strings.CutPrefix(to, module+"/")
	if to == module {
		ours, isOurs = ".", true
	}
	if !isOurs {
		if !strings.Contains(strings.Split(to, "/")[0], ".") {
			return true // the standard library
		}
		if under(to, testLibs...) {
			return under(from, testingHelp...)
		}
		for library, home := range libraryOf {
			if under(to, library) {
				return from == home || home != "." && under(from, home)
			}
		}
		return false
	}
	switch {
	case from == ".":
		return slices.Contains([]string{"engine", "ttl", "internal/jcs", "internal/stripe"}, ours)
	case from == "ttl", from == "engine":
		return false
	case under(ours, "cmd", "bench", "examples"):
		return false
	case under(ours, testingHelp...):
		return under(from, testingHelp...)
	case under(from, integrations...):
		return ours == "." || under(ours, from)
	case under(from, "idemtest"):
		return ours == "." || under(ours, "idemtest", "engine")
	case under(from, testingHelp...):
		return ours == "." || under(ours, "internal", "engine")
	case under(from, "memory", "internal"): // these need nothing of the store
		return under(ours, from, "internal", "engine")
	}
	for _, e := range engines {
		if under(from, e) {
			return ours == "." || under(ours, e, "internal", "engine")
		}
	}
	return false
}

// packageFiles calls visit with every Go file of this module that is not a test.
func packageFiles(t *testing.T, visit func(dir, file string)) {
	t.Helper()
	require.NoError(t, filepath.WalkDir(".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if name := d.Name(); path != "." && (name == "testdata" || strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")) {
				return filepath.SkipDir
			}
			if _, err := os.Stat(filepath.Join(path, "go.mod")); path != "." && err == nil {
				return filepath.SkipDir // a nested module
			}
			return nil
		}
		if strings.HasSuffix(path, ".go") && !strings.HasSuffix(path, "_test.go") {
			visit(filepath.ToSlash(filepath.Dir(path)), path)
		}
		return nil
	}))
}

func TestImportsGoOneWay(t *testing.T) {
	t.Parallel()
	rooms := map[string]room{}
	packageFiles(t, func(dir, file string) {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.ImportsOnly)
		require.NoError(t, err)
		r, seen := rooms[dir]
		if !seen {
			r.imports = map[string]bool{}
		}
		r.program = f.Name.Name == "main"
		for _, i := range f.Imports {
			path, err := strconv.Unquote(i.Path.Value)
			require.NoError(t, err)
			r.imports[path] = true
		}
		rooms[dir] = r
	})
	for _, must := range append([]string{".", "ttl", "idemtest", "consume", "internal/codec"}, engines...) {
		require.Contains(t, slices.Collect(maps.Keys(rooms)), must, "the walk missed a room")
	}
	assert.Empty(t, misdirected(rooms))
	assert.Contains(t, rooms["pebble"].imports, "github.com/cockroachdb/pebble/v2", "the walk reads imports")
}

// The rules find what they are there for.
func TestImportRulesFindWhatIsWrong(t *testing.T) {
	t.Parallel()
	const pebbledb, bbolt, testify = "github.com/cockroachdb/pebble/v2/vfs", "go.etcd.io/bbolt", "github.com/stretchr/testify/assert"
	imports := func(paths ...string) room {
		r := room{imports: map[string]bool{}}
		for _, p := range paths {
			r.imports[p] = true
		}
		return r
	}
	program := imports(module+"/bolt", pebbledb, bbolt)
	program.program = true
	assert.Empty(t, misdirected(map[string]room{
		".":              imports("context", module+"/ttl", module+"/internal/jcs", "github.com/hashicorp/golang-lru/v2/simplelru"),
		"bolt":           imports(module, module+"/internal/txbackend", bbolt),
		"pebble":         imports(module, module+"/internal/txbackend", pebbledb),
		"idemtest":       imports(module, testify, "pgregory.net/rapid"),
		"internal/x":     imports(module+"/engine", module+"/internal/codec"),
		"internal/prog":  program,
		"examples/pay":   imports(module, module+"/pebble", pebbledb),
		"bench/backends": imports(module+"/memory", bbolt),
	}))
	assert.Equal(t, []string{
		". -> github.com/idemkv/idem/internal/codec",
		". -> github.com/idemkv/idem/memory",
		". -> github.com/stretchr/testify/assert",
		". -> go.etcd.io/bbolt",
		"bolt -> github.com/cockroachdb/pebble/v2/vfs",
		"bolt -> github.com/idemkv/idem/idemtest",
		"bolt -> github.com/idemkv/idem/pebble",
		"bolt -> github.com/stretchr/testify/assert",
		"consume -> github.com/idemkv/idem/bolt",
		"idemhttp -> github.com/idemkv/idem/consume",
		"idemhttp -> github.com/idemkv/idem/internal/codec",
		"idemtest -> github.com/idemkv/idem/memory",
		"internal/codec -> github.com/idemkv/idem/bolt",
		"internal/codec -> go.etcd.io/bbolt",
		"memory -> github.com/google/btree",
		"memory -> github.com/idemkv/idem/examples/payments",
		"ttl -> github.com/hashicorp/golang-lru/v2/simplelru",
		"ttl -> github.com/idemkv/idem",
	}, misdirected(map[string]room{
		".":              imports(module+"/memory", module+"/internal/codec", testify, bbolt),
		"bolt":           imports(module+"/pebble", module+"/idemtest", pebbledb, testify),
		"consume":        imports(module, module+"/bolt"),
		"idemhttp":       imports(module, module+"/consume", module+"/internal/codec"),
		"idemtest":       imports(module + "/memory"),
		"internal/codec": imports(module+"/bolt", bbolt),
		"memory":         imports("github.com/google/btree", module+"/examples/payments"),
		"ttl":            imports(module, "github.com/hashicorp/golang-lru/v2/simplelru"),
	}))
}
