package main

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/require"
)

const pagePath = "../../docs/TOOL.md"

// docs/TOOL.md is made of the help texts: what is written there is what the program says.
func TestPage(t *testing.T) {
	t.Parallel()
	got := page(t, systemTool().command())
	if *update {
		require.NoError(t, os.WriteFile(pagePath, []byte(got), 0o644))
		return
	}
	want, err := os.ReadFile(pagePath)
	require.NoError(t, err)
	require.Equal(t, string(want), got, "go test -run TestPage -update writes it anew")
}

const pageHead = `# The command line tool

<!-- Made of the help texts in cmd/idem: go test -run TestPage -update, in that folder. -->

` + "```sh" + `
go install github.com/idemkv/idem/cmd/idem@latest
idem stuck -store /var/lib/pay/idem.db
` + "```" + `

Building it takes Go %s or newer.

`

// page is the tool's documentation, by command.
func page(t *testing.T, root *cobra.Command) string {
	t.Helper()
	mod, err := os.ReadFile("go.mod")
	require.NoError(t, err)
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindSubmatch(mod)
	require.NotNil(t, version)
	var b strings.Builder
	fmt.Fprintf(&b, pageHead, version[1])
	code(&b, "", root.Long)
	b.WriteString("Flags of all commands:\n\n")
	flags(&b, root.PersistentFlags())
	b.WriteString("## Commands\n\n| command | what it does |\n| --- | --- |\n")
	all := commands(root)
	for _, c := range all {
		fmt.Fprintf(&b, "| [`%s`](#%s) | %s |\n", c.CommandPath(), strings.ReplaceAll(c.CommandPath(), " ", "-"), c.Short)
	}
	b.WriteString("\n")
	for _, c := range all {
		fmt.Fprintf(&b, "## %s\n\n", c.CommandPath())
		if c.Runnable() && !c.HasSubCommands() {
			code(&b, "sh", c.UseLine())
		}
		code(&b, "", c.Long)
		if c.Example != "" {
			code(&b, "sh", unindent(c.Example))
		}
		if c.NonInheritedFlags().HasAvailableFlags() {
			flags(&b, c.NonInheritedFlags())
		}
	}
	return strings.TrimRight(b.String(), "\n") + "\n"
}

// commands are those that a user gives, in the order of the help text.
func commands(root *cobra.Command) (all []*cobra.Command) {
	for _, c := range root.Commands() {
		if !c.IsAvailableCommand() || c.Name() == "completion" {
			continue
		}
		all = append(append(all, c), commands(c)...)
	}
	return all
}

func code(b *strings.Builder, language, text string) {
	fmt.Fprintf(b, "```%s\n%s\n```\n\n", language, strings.TrimSpace(text))
}

func flags(b *strings.Builder, set *pflag.FlagSet) {
	b.WriteString("| flag | meaning |\n| --- | --- |\n")
	set.VisitAll(func(f *pflag.Flag) {
		if f.Name == "help" || f.Hidden {
			return
		}
		name, usage := pflag.UnquoteUsage(f)
		fmt.Fprintf(b, "| `%s` | %s |\n", strings.TrimSpace("-"+f.Name+" "+name), strings.ReplaceAll(usage, "|", "\\|"))
	})
	b.WriteString("\n")
}

func unindent(text string) string {
	lines := strings.Split(text, "\n")
	for i := range lines {
		lines[i] = strings.TrimPrefix(lines[i], "  ")
	}
	return strings.Join(lines, "\n")
}

// Every command has a help text and an example, and fits a terminal.
func TestHelp(t *testing.T) {
	t.Parallel()
	root := systemTool().command()
	for _, c := range append(commands(root), root) {
		require.NotEmpty(t, c.Long, c.CommandPath())
		if c.Runnable() && !c.HasSubCommands() {
			require.NotEmpty(t, c.Example, c.CommandPath())
		}
		for line := range strings.Lines(c.Long) {
			require.LessOrEqual(t, len([]rune(line)), 84, "%s: %s", c.CommandPath(), line)
		}
	}
	for code, means := range exitMeanings {
		require.NotEmpty(t, means, code)
		require.Contains(t, root.Long, means)
	}
}
