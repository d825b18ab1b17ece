package main

import (
	"context"
	"math"

	"github.com/spf13/cobra"

	"github.com/idemkv/idem/bolt"
	idempebble "github.com/idemkv/idem/pebble"
)

func (t *tool) sweepCommand() *cobra.Command {
	limit := 0
	c := &cobra.Command{
		Use:   "sweep [PATH]",
		Short: "Remove expired records from a stopped store",
		Long: `sweep removes records that have expired. A service does that by itself while it
runs; only the size of the store depends on it. Afterwards compact gives the space
back.`,
		Example: "  idem sweep pay.db && idem compact pay.db",
		Args:    storeArgument,
		RunE: func(c *cobra.Command, args []string) (err error) {
			if limit < 0 {
				return usage("-limit is %d; it cannot be negative", limit)
			}
			if limit == 0 {
				limit = math.MaxInt
			}
			l, err := t.openHere(c, true, args...)
			if err != nil {
				return err
			}
			defer closing(l, &err)
			p := t.progress(&progress{what: "sweeping"})
			n, err := l.store.Sweep(c.Context(), limit)
			p.end()
			t.changed = n > 0
			if t.json && err == nil {
				return t.printJSON(struct {
					Removed int `json:"removed"`
				}{n})
			}
			if n > 0 || err == nil {
				t.print("%s removed", count(n, "expired record"))
			}
			return failed(err, "sweeping %s", l.path)
		},
	}
	c.Flags().IntVar(&limit, "limit", 0, "look at `N` records at most (default: all)")
	return c
}

func (t *tool) compactCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "compact [PATH]",
		Short: "Give a stopped store's unused space back to the system",
		Long: `compact makes a store as small as what it holds. The records stay as they are. It
needs room for a second copy while it works.`,
		Example: "  idem compact pay.db",
		Args:    storeArgument,
		RunE: func(c *cobra.Command, args []string) error {
			k, err := t.pathOf(c, args...)
			if err != nil {
				return err
			}
			before := sizeAt(t.store)
			p := t.progress(&progress{what: "compacting", format: size})
			err = t.compact(p.within(c.Context()), k)
			p.end()
			if err != nil {
				return err
			}
			t.changed = true
			after := sizeAt(t.store)
			if t.json {
				return t.printJSON(struct {
					Before int64 `json:"bytes_before"`
					After  int64 `json:"bytes_after"`
				}{before, after})
			}
			t.print("%s: %s, before %s", t.store, size(after), size(before))
			return nil
		},
	}
}

// compact compacts the store at -store, each engine in its way.
func (t *tool) compact(ctx context.Context, k kind) (err error) {
	if k == boltKind {
		if err := bolt.Compact(ctx, t.store, bolt.Options{LockTimeout: t.lockTimeout}); err != nil {
			if ctx.Err() != nil {
				return failed(err, "compacting %s", t.store)
			}
			return openError(t.store, err)
		}
		return nil
	}
	l, err := t.openLocal(t.store, true)
	if err != nil {
		return err
	}
	defer closing(l, &err)
	b, ok := l.engine.(*idempebble.Backend)
	if !ok {
		return l.lacks("compaction")
	}
	return failed(b.Compact(ctx), "compacting %s", l.path)
}
