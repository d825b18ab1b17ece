package oracle

import (
	"fmt"
	"strings"
)

// Violation is a broken promise.
type Violation struct {
	What string
	Key  string // empty if it does not concern a single key
	Life int
	// Lines are the events of the journal that it is about. The last one is the one that
	// cannot be true.
	Lines []string

	states []config // the states that were possible
	found  *Record
	image  bool
}

// lastLines bounds how much of a long journal is printed.
const lastLines = 60

func (v *Violation) Error() string {
	var b strings.Builder
	fmt.Fprintf(&b, "life %d: %s\n", v.Life, v.What)
	if v.image {
		b.WriteString("The disk was seen after the last of these lines.\n")
	}
	b.WriteString("The journal:\n")
	for _, line := range v.Lines {
		b.WriteString("  " + line + "\n")
	}
	return b.String()
}

// explain adds what the journal says about the violation's key.
func (c *Checker) explain(v *Violation) *Violation {
	v.Life = c.life
	end := min(c.next+1, len(c.events))
	if v.image {
		end = c.next
	}
	var lines []string
	for n := end - 1; n >= 0 && len(lines) < lastLines; n-- {
		e := c.events[n]
		about := e.Life != nil
		switch {
		case e.Call != nil:
			about = v.Key == "" && n > end-20 || e.Call.Key == v.Key && v.Key != ""
		case e.Return != nil:
			key := c.calls[e.Return.ID].Key
			about = v.Key == "" && n > end-20 || key == v.Key && v.Key != ""
		case e.Audit != nil:
			rec, there := e.Audit.Records[v.Key]
			one := &Audit{Began: e.Audit.Began, Records: map[string]Record{}, Balances: e.Audit.Balances}
			if there {
				one.Records[v.Key] = rec
			}
			e, about = &Event{T: e.T, Audit: one}, true
		}
		if about {
			lines = append(lines, fmt.Sprintf("%6d %s", n, e))
		}
	}
	for i := range lines {
		v.Lines = append(v.Lines, lines[len(lines)-1-i])
	}
	if v.found != nil && v.found.State != 0 {
		v.Lines = append(v.Lines, fmt.Sprintf("found: %+v", *v.found))
	}
	for i, cf := range v.states {
		if i == 5 {
			v.Lines = append(v.Lines, fmt.Sprintf("and %d more", len(v.states)-i))
			break
		}
		v.Lines = append(v.Lines, fmt.Sprintf("it might have been: %+v", cf.state))
	}
	return v
}
