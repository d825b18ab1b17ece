package main

import (
	"bytes"
	"cmp"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/idemkv/idem/internal/operator"
)

// keyOf is the key of r as it is printed; "" if it is hidden.
func keyOf(r operator.Record) string {
	if r.KeyHex != "" {
		if b, err := hex.DecodeString(r.KeyHex); err == nil {
			return keyText(string(b))
		}
	}
	if r.Key == "" {
		return ""
	}
	return keyText(r.Key)
}

// stateOf is the state of r in a word or two.
func stateOf(r operator.Record) string {
	switch {
	case r.Error != "":
		return "unreadable"
	case r.Lapsed:
		return r.State + ", lapsed"
	}
	return r.State
}

// fenceOf is the fence of r, which is zero if r cannot be read.
func fenceOf(r operator.Record) string { return cmp.Or(r.Fence, "0") }

// rows prints records as lines with columns. Their number is not known before, so the
// widths are fixed, and what varies most comes last.
const rowFormat = "%-12s  %-17s  %7s  %-9s  %-16s  %s"

func (t *tool) rowHead() { t.print(rowFormat, "HASH", "STATE", "ATTEMPT", "CLAIMED", "NEXT", "KEY") }

func (t *tool) row(r operator.Record, now time.Time) {
	attempt, claimed := "", ""
	if r.Attempt > 0 {
		attempt = fmt.Sprint(r.Attempt)
	}
	if !r.ClaimedAt.IsZero() {
		claimed = lasting(now.Sub(r.ClaimedAt))
	}
	key := keyOf(r)
	if key == "" {
		key = "(hidden)"
	}
	if r.Error != "" {
		key += "  " + operator.Line(plainText(r.Error), 200)
	}
	t.print("%s", strings.TrimRight(fmt.Sprintf(rowFormat, r.KeyHash, stateOf(r), attempt, claimed, nextOf(r, now), key), " "))
}

// nextOf says what time will do to r.
func nextOf(r operator.Record, now time.Time) string {
	switch {
	case r.Error != "":
		return ""
	case r.State == "in_flight" && !r.Lapsed:
		return "lease " + lasting(r.LeaseUntil.Sub(now))
	case r.Unsettled:
		return "needs you"
	case r.ExpiresAt.IsZero():
		return "kept for good"
	}
	return "expires " + lasting(r.ExpiresAt.Sub(now))
}

// record prints all that is known of r.
func (t *tool) record(r operator.Record, now time.Time) {
	field := func(name, format string, args ...any) {
		t.print("%-12s %s", name, fmt.Sprintf(format, args...))
	}
	at := func(name string, when time.Time) {
		if !when.IsZero() {
			field(name, "%s", moment(when, now))
		}
	}
	if key := keyOf(r); key != "" {
		field("key", "%s", key)
	}
	field("hash", "%s", r.KeyHash)
	field("state", "%s", stateOf(r))
	if r.Error != "" {
		field("error", "%s", operator.Line(plainText(r.Error), 500))
		return
	}
	field("attempt", "%d", r.Attempt)
	field("fence", "%s", r.Fence)
	at("claimed", r.ClaimedAt)
	if r.State == "in_flight" {
		at("lease until", r.LeaseUntil)
	}
	at("finished", r.FinishedAt)
	if r.ExpiresAt.IsZero() {
		field("expires", "never")
	}
	at("expires", r.ExpiresAt)
	if r.HoldUnknown {
		field("unknown", "held: an attempt that reports nothing is not repeated")
	}
	if r.Fingerprint != "" {
		field("fingerprint", "%s", r.Fingerprint)
	}
	if r.ResultDropped {
		field("result", "not kept: it was too large or could not be encoded")
	}
	t.payload(payloadName(r), r.Result, "")
	t.payload("checkpoint", r.Checkpoint, "")
}

// payloadName says what the payload in r.Result is.
func payloadName(r operator.Record) string {
	switch r.State {
	case "completed":
		return "result"
	case "held":
		return "note"
	}
	return "reason"
}

// payload prints p under a heading that says what it is, indented.
func (t *tool) payload(name string, p *operator.Payload, indent string) {
	if p == nil {
		return
	}
	heading := fmt.Sprintf("%s%-12s %s", indent, name, size(int64(p.Bytes)))
	inner := indent + "  "
	switch p.Kind {
	case operator.KindEmpty:
		t.print("%s, empty", heading)
	case operator.KindHidden:
		t.print("%s, not shown", heading)
	case operator.KindHTTP:
		t.print("%s, an HTTP answer", heading)
		t.httpAnswer(p.HTTP, inner)
	case operator.KindJSON:
		t.print("%s, JSON", heading)
		t.indented(prettyJSON(p.JSON), inner)
	case operator.KindText:
		t.print("%s, text%s", heading, cutNote(p))
		t.indented(p.Text, inner)
	case operator.KindHex:
		t.print("%s, binary%s", heading, cutNote(p))
		if b, err := hex.DecodeString(p.Hex); err == nil {
			t.indented(strings.TrimRight(hex.Dump(b), "\n"), inner)
		}
	default: // a newer service
		t.print("%s, %s", heading, operator.Line(string(p.Kind), 40))
	}
}

func cutNote(p *operator.Payload) string {
	if p.Truncated {
		return ", the beginning"
	}
	return ""
}

func (t *tool) httpAnswer(h *operator.HTTP, indent string) {
	if h == nil {
		return
	}
	t.print("%s%s", indent, strings.TrimSpace(fmt.Sprintf("%d %s", h.Status, http.StatusText(h.Status))))
	if h.NotRetained {
		t.print("%sthe answer was not kept; retries get a problem instead", indent)
		return
	}
	for _, name := range slices.Sorted(maps.Keys(h.Header)) {
		for _, value := range h.Header[name] {
			t.print("%s%s: %s", indent, operator.Line(name, 200), operator.Line(value, 1000))
		}
	}
	t.payload("body", h.Body, indent)
}

// indented prints text with an indent before each line, and nothing in it that a terminal
// would obey.
func (t *tool) indented(text, indent string) {
	for line := range strings.Lines(operator.Printable(text)) {
		t.print("%s%s", indent, strings.TrimRight(line, "\r\n"))
	}
}

// prettyJSON lays JSON out over several lines. Numbers and strings stay as they are.
func prettyJSON(raw json.RawMessage) string {
	var b bytes.Buffer
	if json.Indent(&b, raw, "", "  ") != nil {
		return string(raw)
	}
	return b.String()
}

// stuck prints why r waits, and the commands that would settle it.
func (t *tool) stuck(r operator.Record, src source) {
	if r.Error != "" {
		t.print("%-12s %s", "settles it", "A backup that has it. To give it up, and let its key run again:")
		t.print("%-12s %s", "", settlingCommands(r, src)[0])
		return
	}
	if r.Stuck == nil {
		return
	}
	t.print("%-12s %s for %s: %s", "stuck", r.Stuck.Reason, lasting(r.Stuck.Age()), operator.Line(r.Stuck.Why, 500))
	t.print("%-12s %s", "settles it", operator.Line(r.Stuck.Settles, 500))
	for _, c := range settlingCommands(r, src) {
		t.print("%-12s %s", "", c)
	}
}

// settlingCommands are the command lines that would settle r, the likeliest first.
func settlingCommands(r operator.Record, src source) []string {
	// The hash and the fence say which attempt is meant, as a token would, and disclose
	// no key.
	which := fmt.Sprintf("%s -fence %s %s", r.KeyHash, fenceOf(r), src.flag())
	forget := "idem forget " + which
	if r.Stuck == nil || !slices.Contains(r.Actions, operator.Complete) {
		return []string{forget}
	}
	complete := "idem settle complete " + which + " -result FILE"
	fail := "idem settle fail " + which + " -reason TEXT"
	release := "idem settle release " + which
	switch r.Stuck.Reason {
	case operator.ReasonExhausted:
		return []string{forget, complete, fail}
	case operator.ReasonLapsed: // the next request runs it: releasing it would settle nothing
		return []string{complete, fail, forget}
	}
	return []string{complete, release, fail}
}
