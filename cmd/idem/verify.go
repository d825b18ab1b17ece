package main

import (
	"context"
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/operator"
)

// damage is what verify found, as -json prints it.
type damage struct {
	// What is the record, index place, page or file.
	What string `json:"what"`
	// KeyHash stands for the key of a record, where it is known.
	KeyHash string `json:"key_hash,omitempty"`
	// Error says what is wrong with it.
	Error string `json:"error"`
}

func (t *tool) verifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify [PATH]",
		Short: "Read everything and name what is damaged",
		Long: `verify reads every record, every place in the index both ways, and every page,
block and checksum of the engine. It prints what is damaged, one a line, records
by the hash of their key, and changes nothing.

A store with a few damaged records goes on working: those keys are not granted,
all others are. Restore a backup to have them again, or forget them. If the
engine's own pages are damaged, stop the service and restore.`,
		Example: "  idem verify pay.db || mail -s 'pay.db is damaged' oncall@example.com </dev/null",
		Args:    storeArgument,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if _, err := t.pathOf(c, args...); err != nil {
				return err
			}
			l, err := t.openEngine(t.store, false)
			if err != nil {
				var f *failure
				if errors.As(err, &f) && f.code == exitDamaged {
					f.advice = "restore a backup" // and do not look here
				}
				return err
			}
			defer closing(l, &err)
			// Without a store there are no key hashes. Damage may be the reason.
			if bindErr := l.bind(0); bindErr != nil && !unreadable(bindErr) {
				return openError(l.path, bindErr)
			}
			p := t.progress(&progress{what: "verifying", format: size})
			defer p.end()
			n, err := t.verify(p.within(c.Context()), l)
			p.end()
			if err != nil {
				return err
			}
			if n > 0 {
				return &failure{exitDamaged, "", errDamaged(l, n), "restore a backup, or forget the records named"}
			}
			if !t.json {
				t.print("%s is whole", l.path)
			}
			return nil
		},
	}
}

// verify prints what is wrong with l and counts the damage. A clock that ran ahead is worth
// a line and damages nothing.
func (t *tool) verify(ctx context.Context, l *local) (n int, err error) {
	v, ok := l.engine.(engine.Verifier)
	if !ok {
		return 0, l.lacks("verification")
	}
	var printErr error
	err = v.Verify(ctx, func(d engine.Damage) {
		if unreadable(d.Err) {
			n++
		}
		wrong := strings.TrimPrefix(plain(d.Err), "record is corrupt: ") // the sentinel's text, of whatever it is
		if t.json {
			if err := t.printJSON(damage{d.What, d.KeyHash, wrong}); printErr == nil {
				printErr = err
			}
			return
		}
		which := d.What
		if d.KeyHash != "" {
			which += " of key " + d.KeyHash
		}
		t.print("%s: %s", operator.Line(which, 200), wrong)
	})
	if err != nil {
		return n, failed(err, "verifying %s", l.path)
	}
	return n, printErr
}
