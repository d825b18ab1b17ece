package idemhttp

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http/httptest"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Every type leads to a heading of docs/HTTP.md, has a title and a row in the table
// there, and there are no others.
func TestTypesAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/HTTP.md")
	require.NoError(t, err)
	text := string(page)
	for kind := range titles {
		require.True(t, strings.HasPrefix(kind, docs), kind)
		name := strings.TrimPrefix(kind, docs)
		require.Contains(t, text, "\n### "+name+"\n")
		require.Contains(t, text, "\n| ["+name+"](#"+name+") |")
	}
	_, problems, _ := strings.Cut(text, "\n## Problems\n")
	problems, _, _ = strings.Cut(problems, "\n## What is held\n")
	require.Len(t, regexp.MustCompile(`(?m)^### `).FindAllString(problems, -1), len(titles))

	f, err := parser.ParseFile(token.NewFileSet(), "problem.go", nil, 0)
	require.NoError(t, err)
	constants := 0
	ast.Inspect(f, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok && strings.HasPrefix(v.Names[0].Name, "Type") {
			constants++
		}
		return true
	})
	require.Equal(t, len(titles), constants)
}

// Every option of the middleware and of Transport has its place in a table of
// docs/HTTP.md, and there are no others.
func TestOptionsAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/HTTP.md")
	require.NoError(t, err)
	for heading, of := range map[string]reflect.Type{
		"Options":    reflect.TypeFor[Options](),
		"The client": reflect.TypeFor[Transport](),
	} {
		_, section, _ := strings.Cut(string(page), "\n## "+heading+"\n")
		section, _, _ = strings.Cut(section, "\n## ")
		var rows []string
		for _, row := range regexp.MustCompile("(?m)^\\| (`[A-Z]\\w+`[^|]*) \\|").FindAllStringSubmatch(section, -1) {
			for _, name := range regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(row[1], -1) {
				rows = append(rows, name[1])
			}
		}
		var fields []string
		for i := range of.NumField() {
			fields = append(fields, of.Field(i).Name)
		}
		require.ElementsMatch(t, fields, rows, heading)
	}
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]string{0: "", 1: "1", time.Second: "1", time.Second + 1: "2", 90 * time.Second: "90"} {
		w := httptest.NewRecorder()
		WriteProblem(w, nil, Problem{Status: 503, RetryAfter: after})
		require.Equal(t, want, w.Header().Get("Retry-After"))
	}
}

// A client reads a problem with encoding/json; what is not sent stays away.
func TestProblemJSON(t *testing.T) {
	t.Parallel()
	sent := Problem{
		Type: TypeInFlight, Title: "busy", Status: 409, Detail: "again", KeyHash: "hash",
		RetryAfter: time.Second, Err: errors.New("secret"),
	}
	w := httptest.NewRecorder()
	WriteProblem(w, nil, sent)
	require.JSONEq(t, `{"type":"`+TypeInFlight+`","title":"busy","status":409,"detail":"again"}`, w.Body.String())
	var got Problem
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	sent.KeyHash, sent.RetryAfter, sent.Err = "", 0, nil
	require.Equal(t, sent, got)
}
