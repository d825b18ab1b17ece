package idemhttp

import (
	"encoding/json"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http/httptest"
	"os"
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

// Every option has a row in the table of docs/HTTP.md, and there are no others.
func TestOptionsAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/HTTP.md")
	require.NoError(t, err)
	_, table, _ := strings.Cut(string(page), "\n## Options\n")
	table, _, _ = strings.Cut(table, "\n## ")
	var rows []string
	for _, m := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(table, -1) {
		rows = append(rows, m[1])
	}
	f, err := parser.ParseFile(token.NewFileSet(), "options.go", nil, 0)
	require.NoError(t, err)
	var options []string
	ast.Inspect(f, func(n ast.Node) bool {
		if s, ok := n.(*ast.TypeSpec); ok && s.Name.Name == "Options" {
			for _, field := range s.Type.(*ast.StructType).Fields.List {
				options = append(options, field.Names[0].Name)
			}
		}
		return true
	})
	require.NotEmpty(t, options)
	require.ElementsMatch(t, options, rows)
}

func TestRetryAfterIsRoundedUp(t *testing.T) {
	t.Parallel()
	for after, want := range map[time.Duration]string{0: "", 1: "1", time.Second: "1", time.Second + 1: "2", 90 * time.Second: "90"} {
		w := httptest.NewRecorder()
		WriteProblem(w, nil, Problem{Status: 503, RetryAfter: after})
		require.Equal(t, want, w.Header().Get("Retry-After"))
	}
}

// A client reads a problem with encoding/json; what is not sent stays away (E3).
func TestE3ProblemJSON(t *testing.T) {
	t.Parallel()
	sent := Problem{
		Type: TypeInFlight, Title: "busy", Status: 409, Detail: "again", KeyHash: "hash",
		RetryAfter: time.Second, Err: errors.New("secret"),
	}
	w := httptest.NewRecorder()
	WriteProblem(w, nil, sent)
	require.JSONEq(t, `{"type":"`+TypeInFlight+`","title":"busy","status":409,"detail":"again","key_hash":"hash"}`, w.Body.String())
	var got Problem
	require.NoError(t, json.Unmarshal(w.Body.Bytes(), &got))
	sent.RetryAfter, sent.Err = 0, nil
	require.Equal(t, sent, got)
}
