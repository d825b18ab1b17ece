package idem_test

import (
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/race"
)

// Every option of a store has a row in the table of docs/CHOOSING.md, and there are no
// others.
func TestOptionsAreDocumented(t *testing.T) {
	race.Skip(t)
	t.Parallel()
	page, err := os.ReadFile("docs/CHOOSING.md")
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(page), "\n## All knobs of the store\n")
	var rows, fields []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(section, -1) {
		rows = append(rows, row[1])
	}
	of := reflect.TypeFor[idem.Options]()
	for i := range of.NumField() {
		fields = append(fields, of.Field(i).Name)
	}
	assert.ElementsMatch(t, fields, rows)
}
