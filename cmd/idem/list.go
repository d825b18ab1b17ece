package main

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idemkv/idem/internal/operator"
)

func (t *tool) listCommand() *cobra.Command {
	var state string
	var q query
	limit := 0
	c := &cobra.Command{
		Use:   "list [PATH|URL]",
		Short: "List records",
		Long: `list prints the live records, one a line, in no particular order. The filters
may be combined.

CLAIMED says how long ago the latest attempt began, NEXT what time will do to the
record. A record that cannot be read is listed with its error, and the exit code
says so.`,
		Example: "  idem list pay.db -state held\n  idem list -url https://pay.internal/admin/idem -hash 3f2a91bc0d11\n" +
			"  idem list pay.db -prefix tenant-7/ -json | jq -r .key",
		Args: storeArgument,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if q.state, err = operator.ParseState(state); err != nil {
				return usage("%s", plain(err))
			}
			if ref := (reference{arg: q.hash, only: byHash}); q.hash != "" {
				if err := ref.check(); err != nil {
					return err
				}
			}
			if limit < 0 {
				return usage("-limit is %d; it cannot be negative", limit)
			}
			src, err := t.open(args...)
			if err != nil {
				return err
			}
			defer closing(src, &err)
			p := t.progress(&progress{what: "listing", format: records})
			defer p.end()
			if t.outTerminal {
				p.end() // the records themselves are seen
			}
			n, bad := 0, 0
			for r, err := range src.list(c.Context(), q) {
				if err != nil {
					return err
				}
				if n == 0 && !t.json {
					t.rowHead()
				}
				if r.Error != "" {
					bad++
				}
				if err := t.listed(r); err != nil {
					return err
				}
				p.add(1)
				if n++; n == limit {
					break
				}
			}
			if n == 0 && !t.json {
				t.rowHead()
			}
			return unreadableFailure(src, bad)
		},
	}
	f := c.Flags()
	f.StringVar(&state, "state", "", "only records in this `STATE`: "+strings.Join(stateNames(), ", "))
	f.StringVar(&q.prefix, "prefix", "", "only keys that begin with `TEXT`")
	f.StringVar(&q.hash, "hash", "", "only keys with this `HASH`, as found in a log")
	f.BoolVar(&q.unsettled, "unsettled", false, "only what a claim is refused for until somebody settles it")
	f.IntVar(&limit, "limit", 0, "stop after `N` records (default: all)")
	must(c.RegisterFlagCompletionFunc("state", cobra.FixedCompletions(stateNames(), cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func stateNames() []string {
	var names []string
	for _, s := range operator.States() {
		names = append(names, s.String())
	}
	return names
}

func (t *tool) listed(r operator.Record) error {
	if t.json {
		return t.printJSON(r)
	}
	t.row(r, t.now())
	return t.written()
}

func records(n int64) string { return count(n, "record") }

// unreadableFailure is how a command ends that has met records that cannot be read.
func unreadableFailure(src source, bad int) error {
	if bad == 0 {
		return nil
	}
	return &failure{
		exitDamaged, "", fmt.Errorf("%s of %s cannot be read", count(bad, "record"), src.name()),
		"idem verify names what is damaged; restore a backup, or forget these records",
	}
}
