package main

import (
	"time"

	"github.com/spf13/cobra"

	"github.com/idemkv/idem/internal/operator"
)

func (t *tool) statsCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "stats [PATH|URL]",
		Short: "Count the records by state",
		Long: `stats counts the records by state and says how large the store is. It walks over
all records, so it takes time in proportion to them.

"lapsed" are those in flight whose lease no longer holds; "unswept" have expired
and take only space. Cache and commits are counted since the store was opened, so
they say something of a live service only.`,
		Example: "  idem stats pay.db\n  idem stats -json -url https://pay.internal/admin/idem",
		Args:    storeArgument,
		RunE: func(c *cobra.Command, args []string) (err error) {
			src, err := t.open(args...)
			if err != nil {
				return err
			}
			defer closing(src, &err)
			p := t.progress(&progress{what: "counting"})
			st, err := src.stats(c.Context())
			p.end()
			if err != nil {
				return err
			}
			if t.json {
				return t.printJSON(st)
			}
			t.stats(src, st)
			return nil
		},
	}
}

// closing closes src at the end of a command that has done its work.
func closing(src source, err *error) {
	if closeErr := src.close(); *err == nil {
		*err = closeErr
	}
}

func (t *tool) stats(src source, st operator.Stats) {
	line := func(name string, n int, note string) {
		t.print("%-12s %12s%s", name, grouped(n), note)
	}
	if l, ok := src.(*local); ok {
		t.print("%-12s %s, a %s store", "store", l.path, l.kind)
	} else {
		t.print("%-12s %s, live", "store", src.name())
	}
	if st.EngineBytes > 0 {
		t.print("%-12s %s", "on disk", size(st.EngineBytes))
	}
	inFlight := ""
	if st.InFlight > 0 {
		inFlight = "   the oldest claimed " + lasting(time.Duration(st.OldestInFlightSeconds*float64(time.Second))) + " ago"
	}
	line("in flight", st.InFlight, inFlight)
	line("  lapsed", st.Lapsed, "")
	line("released", st.Released, "")
	line("held", st.Held, "")
	line("unsettled", st.Unsettled, "   of those: claims are refused until somebody settles them")
	line("completed", st.Completed, "")
	line("failed", st.Failed, "")
	line("unswept", st.Expired, "")
	line("unreadable", st.Corrupt, "")
	if _, live := src.(*remote); live {
		t.print("%-12s %12s   in %s", "commits", grouped(st.Commits), count(st.CommittedOps, "operation"))
		t.print("%-12s %12s   of %s looked up", "cache hits", grouped(st.CacheHits), count(st.CacheHits+st.CacheMisses, "record"))
	}
	if st.Corrupt > 0 {
		t.note("idem: %s cannot be read; idem verify names them", count(st.Corrupt, "record"))
	}
	if stuck := st.Lapsed + st.Held + st.Released; stuck > 0 {
		t.note("idem: %s may wait for somebody; idem stuck says why", count(stuck, "operation"))
	}
}
