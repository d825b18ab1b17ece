package main

import (
	"cmp"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idemkv/idem/internal/operator"
)

func (t *tool) stuckCommand() *cobra.Command {
	limit := 0
	reason := ""
	c := &cobra.Command{
		Use:   "stuck [PATH|URL]",
		Short: "List what waits for somebody: why, how long, and what settles it",
		Long: `stuck lists the operations that do not go on by themselves, the oldest first:

  held       the outcome is unknown, and somebody said so
  unknown    its lease lapsed, and it must not be repeated blindly
  exhausted  its attempts are used up
  lapsed     its lease lapsed, and nobody has taken it over
  released   its last attempt failed, and nobody has retried it

Each comes with its age and the commands that would settle it. The first two
refuse every retry until somebody settles them.

Of a process that was killed, attempts count as lapsed only when their lease has
ended. Until then they are not listed here; idem list -state in_flight has them.`,
		Example: "  idem stuck pay.db\n  idem stuck -url https://pay.internal/admin/idem -reason held -json",
		Args:    storeArgument,
		RunE: func(c *cobra.Command, args []string) (err error) {
			want, err := operator.ParseReason(reason)
			if err != nil {
				return usage("%s", plain(err))
			}
			if limit < 0 {
				return usage("-limit is %d; it cannot be negative", limit)
			}
			src, err := t.open(args...)
			if err != nil {
				return err
			}
			defer closing(src, &err)
			p := t.progress(&progress{what: "looking for what is stuck", format: records})
			defer p.end()
			oldest := oldestFirst{limit: limit}
			bad := 0
			for r, err := range src.list(c.Context(), query{stuck: true}) {
				switch {
				case err != nil:
					return err
				case r.Error != "":
					bad++
				case r.Stuck != nil && (want == "" || r.Stuck.Reason == want):
					oldest.add(r)
					p.add(1)
				}
			}
			p.end()
			if err := t.stuckList(src, oldest); err != nil {
				return err
			}
			return unreadableFailure(src, bad)
		},
	}
	f := c.Flags()
	f.StringVar(&reason, "reason", "", "only what is stuck for this `REASON`: "+strings.Join(reasonNames(), ", "))
	f.IntVar(&limit, "limit", 100, "print the `N` oldest; 0: all")
	addMaxAttempts(t, c)
	must(c.RegisterFlagCompletionFunc("reason", cobra.FixedCompletions(reasonNames(), cobra.ShellCompDirectiveNoFileComp)))
	return c
}

func reasonNames() []string {
	var names []string
	for _, r := range operator.Reasons() {
		names = append(names, string(r))
	}
	return names
}

func (t *tool) stuckList(src source, oldest oldestFirst) error {
	list := oldest.sorted()
	for i, r := range list {
		if t.json {
			if err := t.printJSON(r); err != nil {
				return err
			}
			continue
		}
		if i > 0 {
			t.print("")
		}
		key := keyOf(r)
		if key == "" {
			key = "(hidden)"
		}
		t.print("%s  %s for %s, attempt %d  %s", r.KeyHash, r.Stuck.Reason, lasting(r.Stuck.Age()), r.Attempt, key)
		t.print("  %s", operator.Line(r.Stuck.Why, 500))
		if said := saidOf(r.Result); said != "" {
			t.print("  %s: %s", payloadName(r), said)
		}
		t.print("  %s", operator.Line(r.Stuck.Settles, 500))
		for _, command := range settlingCommands(r, src) {
			t.print("    %s", command)
		}
	}
	switch {
	case oldest.total == 0:
		t.note("idem: nothing is stuck in %s", src.name())
	case len(list) < oldest.total:
		t.note("idem: %s of %s shown, the oldest; -limit 0 shows all", grouped(len(list)), grouped(oldest.total))
	}
	return nil
}

// saidOf is a reason or note on one line; "" if it is none, hidden or not text.
func saidOf(p *operator.Payload) string {
	if p == nil {
		return ""
	}
	switch p.Kind {
	case operator.KindText:
		return operator.Line(p.Text, 200)
	case operator.KindJSON:
		return operator.Line(string(p.JSON), 200)
	}
	return ""
}

// oldestFirst keeps the records that are stuck longest, at most limit of them.
type oldestFirst struct {
	limit int // 0: all
	total int
	kept  []operator.Record
}

func (o *oldestFirst) add(r operator.Record) {
	o.total++
	o.kept = append(o.kept, r)
	if o.limit > 0 && len(o.kept) >= 2*o.limit+1000 {
		o.kept = slices.Clip(o.sorted())
	}
}

func (o *oldestFirst) sorted() []operator.Record {
	slices.SortStableFunc(o.kept, func(a, b operator.Record) int {
		return cmp.Or(a.Stuck.Since.Compare(b.Stuck.Since), cmp.Compare(a.KeyHash, b.KeyHash))
	})
	if o.limit > 0 && len(o.kept) > o.limit {
		o.kept = o.kept[:o.limit]
	}
	return o.kept
}
