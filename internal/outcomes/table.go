// Package outcomes says what becomes of an operation, given how its work ended. One
// table holds for all doors, which are idem.Do, the same-commit functions, messages and
// HTTP. Run tests a door against the table; docs/OUTCOMES.md shows it to users.
package outcomes

import (
	"fmt"
	"strings"

	"github.com/idemkv/idem"
)

// Way is how the work ended.
type Way uint8

// The ways. If a door expresses one in something other than errors, its column of the
// documentation says so.
const (
	Result    Way = iota // it returned its result
	Plain                // an error without a mark; a status of 500
	Permanent            // an error marked idem.Permanent
	Unknown              // an error marked idem.Unknown
	Retryable            // an error marked idem.Retryable
	NotNow               // a status that turns the request away, such as 429
	Panic                // it panicked
	Goexit               // it called runtime.Goexit
	Half                 // it panicked when half of its answer was written
	Stopped              // its context ended, and it gave up without a result
	Silent               // it wrote no answer, and reported an error
	Left                 // its caller went away, and it returned its result
	Hung                 // it ran on after MaxRun, until its lease had lapsed
	ways
)

// Fate is what happens to the next call with the key.
type Fate uint8

// The fates.
const (
	None   Fate = iota // this door has no such way
	Replay             // it gets the result
	Refuse             // it learns that the operation has failed for good
	Hold               // it is refused until someone has settled the operation
	Again              // it runs the work again, and the attempt before counted
	Undone             // it runs the work as if this attempt had never been
)

// Fates are the fates of a claim without and with Request.HoldUnknown.
type Fates [2]Fate

func always(f Fate) Fates { return Fates{f, f} }

// undeclared is for work that did not say how it ended.
var undeclared = Fates{Again, Hold}

// Row holds the fates of one way for each kind of door.
type Row struct {
	Way  Way
	Does string // for people
	// Do is idem.Do, SameCommit bolt.Do and pebble.Do. Consume is for message handlers
	// and HTTP for request handlers.
	Do, SameCommit, Consume, HTTP Fates
}

// Table is the whole rule for work that has not settled its own claim.
var Table = [...]Row{
	{Result, "returns its result", always(Replay), always(Replay), always(Replay), always(Replay)},
	{Plain, "returns an error; HTTP: a 5xx", undeclared, always(Undone), undeclared, undeclared},
	{Permanent, "returns `idem.Permanent(err)`; HTTP: calls `Final`", always(Refuse), always(Refuse), always(Refuse), always(Replay)},
	{Unknown, "returns `idem.Unknown(err)`; HTTP: calls `Unknown`", always(Hold), always(Hold), always(Hold), always(Hold)},
	{Retryable, "returns `idem.Retryable(err)`; HTTP: calls `Retryable`", always(Again), always(Undone), always(Again), always(Again)},
	{NotNow, "turns the request away: 401, 429, 503 with Retry-After, …", always(None), always(None), always(None), always(Undone)},
	{Panic, "panics", undeclared, always(Undone), undeclared, undeclared},
	{Goexit, "calls `runtime.Goexit`", undeclared, always(Undone), undeclared, undeclared},
	{Half, "panics halfway through its answer", always(None), always(None), always(None), undeclared},
	{Stopped, "gives up because its context ended", undeclared, always(Undone), undeclared, undeclared},
	{Silent, "writes no answer and reports an error", always(None), always(None), always(None), undeclared},
	{Left, "returns its result after its caller left", always(Replay), always(Replay), always(Replay), always(Replay)},
	{Hung, "runs on past MaxRun and its lease", always(None), always(None), undeclared, undeclared},
}

// Itself holds the fates of a claim that the work settled or held with its own token,
// whatever else it does. Same-commit functions may not call the store.
var Itself = map[idem.State]Fate{
	idem.Completed: Replay, idem.Failed: Refuse, idem.Held: Hold, idem.Released: Again,
}

var fateTexts = [...]string{None: "–", Replay: "result", Refuse: "failed", Hold: "held", Again: "again", Undone: "anew"}

// String returns the fate in one word; the documentation explains the words.
func (f Fate) String() string { return fateTexts[f] }

// text returns the table cell for f. The door holds unknown outcomes if the named
// option is set. If byDefault, it holds them unless the option is set.
func (f Fates) text(option string, byDefault bool) string {
	if f[0] == f[1] {
		return f[0].String()
	}
	if byDefault {
		f[0], f[1] = f[1], f[0]
	}
	return fmt.Sprintf("%v (%v with `%s`)", f[0], f[1], option)
}

// Markdown returns the table as the documentation shows it.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| the work … | `idem.Do` | `bolt.Do`, `pebble.Do` | `consume` | `idemhttp` |\n| --- | --- | --- | --- | --- |\n")
	for _, r := range Table {
		const hold = "HoldUnknown"
		fmt.Fprintf(&b, "| %s | %s | %s | %s | %s |\n", r.Does, r.Do.text(hold, false), r.SameCommit.text(hold, false),
			r.Consume.text(hold, false), r.HTTP.text("RetryUnknown", true))
	}
	b.WriteString("\n| the work, with its own token, … | then, whatever it returns |\n| --- | --- |\n")
	for _, s := range []struct {
		state idem.State
		call  string
	}{{idem.Completed, "Complete"}, {idem.Failed, "Fail"}, {idem.Held, "Hold"}, {idem.Released, "Release"}} {
		fmt.Fprintf(&b, "| calls `%s` | %v |\n", s.call, Itself[s.state])
	}
	return b.String()
}
