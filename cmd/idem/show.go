package main

import (
	"context"
	"fmt"

	"github.com/spf13/cobra"
)

func (t *tool) showCommand() *cobra.Command {
	var ref reference
	c := &cobra.Command{
		Use:   "show KEY|HASH|TOKEN",
		Short: "Show one operation: its state, times, result, and what would settle it",
		Long: `show prints what the store knows of an operation. A result or reason is shown as
JSON, as the HTTP answer that idemhttp stored, as text, or else as a hex dump.

The argument is a key, a key's hash out of a log, or a token. All that it can be
is looked for, and all that match are shown: a key may look like a hash, and two
keys may share one. A key that was printed in quotes is understood in quotes.`,
		Example: "  idem show order-17 -store pay.db\n  idem show 3f2a91bc0d11 -store pay.db -json",
		Args:    exactArguments("KEY, HASH or TOKEN"),
		RunE: func(c *cobra.Command, args []string) (err error) {
			ref.arg = args[0]
			if err := ref.check(); err != nil {
				return err
			}
			src, err := t.open()
			if err != nil {
				return err
			}
			defer closing(src, &err)
			all, err := t.find(c.Context(), src, ref)
			if err != nil {
				return err
			}
			bad := 0
			for i, f := range all {
				if f.Error != "" {
					bad++
				}
				if t.json {
					if err := t.printJSON(f.Record); err != nil {
						return err
					}
					continue
				}
				if i > 0 {
					t.print("")
				}
				t.record(f.Record, t.now())
				t.stuck(f.Record, src)
				if f.stale {
					t.print("%-12s %s", "token", "of an earlier attempt: it changes nothing any more")
				} else if f.Token != "" {
					t.print("%-12s %s", "token", f.Token)
				}
			}
			if len(all) > 1 {
				t.note("idem: %s match; -as key, hash or token chooses", count(len(all), "record"))
			}
			return unreadableFailure(src, bad)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	c.Flags().BoolVar(&t.full, "full", false, "show payloads whole; else of a long one the first 64 KiB")
	asFlag(c, &ref)
	addMaxAttempts(t, c)
	return c
}

// find returns what ref stands for. Nothing is an error.
func (t *tool) find(ctx context.Context, src source, ref reference) ([]found, error) {
	p := t.progress(&progress{what: "looking it up"})
	all, err := src.find(ctx, ref)
	p.end()
	if err == nil && len(all) == 0 {
		err = &failure{
			exitNotFound, "", fmt.Errorf("no live record of that %s in %s", ref.kinds(), src.name()),
			"it may have expired or been forgotten; idem list shows what there is",
		}
	}
	return all, err
}

// addMaxAttempts adds the flag that says what counts as exhausted.
func addMaxAttempts(t *tool, c *cobra.Command) {
	c.Flags().IntVar(&t.maxAttempts, "max-attempts", 0, "the service's limit of attempts, with -store: the store does not keep it (`N`; default: no limit)")
}
