package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idemkv/idem/idemhttp"
	"github.com/idemkv/idem/internal/operator"
)

const settleHelp = `settle ends an attempt whose outcome you know. Find that out first: from the
bank, the broker, the service's logs. Settling a live service's operation with
-url is recorded in its log.

The operation is named by a token, or by a key or hash. A token says which
attempt is meant, and so does -fence; if another attempt has begun since, or
somebody else was faster, nothing is changed and the exit code says so. By key or
hash alone, you are shown what is there and asked. Where nobody can be asked,
-yes is needed, and so is a token or -fence.

An attempt whose lease still holds is most likely running. -running settles it
all the same, and its own result is then refused.`

func (t *tool) settleCommand() *cobra.Command {
	c := &cobra.Command{
		Use:   "settle",
		Short: "Complete, fail, release or hold an operation whose outcome you know",
		Long:  settleHelp,
		Args:  noArguments,
		RunE: func(c *cobra.Command, _ []string) error {
			return usage("settle how? complete, fail, release or hold; see idem settle -help")
		},
	}
	c.AddCommand(
		t.settling(operator.Complete, "The work was done: retries get the result", `complete records the operation as done. Every retry gets the result, so give the
one that the client should have had: -result FILE, or -result - for standard
input. -no-result records an empty one.

-format says how the result is written. "text" takes the bytes as they are,
"json" checks that they are JSON, "hex" reads hexadecimal. "http" reads a status
line, header lines, an empty line and a body: operations of idemhttp replay only
such an answer, so for their keys -format must be given.`,
			"  idem settle complete 3f2a91bc0d11 -fence 1764504000000000007 -result receipt.json -format json -store pay.db\n"+
				"  printf '201\\nContent-Type: application/json\\n\\n{\"paid\":true}' |\n"+
				"    idem settle complete idem1.1764504000000000007.b3JkZXItMTc -result - -format http -yes -store pay.db"),
		t.settling(operator.Fail, "It failed for good: retries get the reason", `fail records the operation as failed for good. Retries get the reason and never
run it. -result FILE and -format, as of idem settle complete, give a reason that
is no text, such as the HTTP answer that retries are to get.`,
			"  idem settle fail order-17 -reason 'card declined' -store pay.db\n"+
				"  idem settle fail 3f2a91bc0d11 -result declined.http -format http -store pay.db"),
		t.settling(operator.Release, "The work was not done: the next retry runs it", `release says that the work was not done, and may be. The next retry runs it as a
new attempt.`, "  idem settle release order-17 -reason 'the bank knows nothing of it' -store pay.db"),
		t.settling(operator.Hold, "The outcome is unknown: refuse retries until it is settled", `hold says that the outcome is unknown. Retries are refused until somebody settles
the operation.`, "  idem settle hold order-17 -reason 'asked the bank, ticket 4711' -store pay.db"),
	)
	return c
}

// order is what a settling command line says.
type order struct {
	action   operator.Action
	ref      reference
	fence    uint64
	fenced   bool // fence was given; zero is that of a record that cannot be read
	running  bool
	file     string
	reason   string
	format   string
	noResult bool
}

func (t *tool) settling(a operator.Action, short, long, example string) *cobra.Command {
	o := order{action: a}
	c := &cobra.Command{
		Use:     string(a) + " TOKEN|KEY|HASH",
		Short:   short,
		Long:    long + "\n\nidem settle -help says how the operation is named and when you are asked.",
		Example: example,
		Args:    exactArguments("TOKEN, KEY or HASH"),
		RunE: func(c *cobra.Command, args []string) error {
			o.ref.arg = args[0]
			return t.settle(c, o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	f := c.Flags()
	if a == operator.Complete || a == operator.Fail {
		f.StringVar(&o.file, "result", "", "`FILE` with what retries get; - is standard input")
		f.StringVar(&o.format, "format", string(operator.FormatText), "how that is written, `FORMAT`: text, json, hex or http")
		must(c.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"text", "json", "hex", "http"}, cobra.ShellCompDirectiveNoFileComp)))
	}
	if a == operator.Complete {
		f.BoolVar(&o.noResult, "no-result", false, "record an empty result")
	} else {
		f.StringVar(&o.reason, "reason", "", "`TEXT` for whoever reads the record, and for retries of a failed one")
	}
	addSettlingFlags(t, c, &o)
	return c
}

func addSettlingFlags(t *tool, c *cobra.Command, o *order) {
	c.Flags().Uint64Var(&o.fence, "fence", 0, "only the attempt with this fence `N`")
	c.Flags().BoolVar(&o.running, "running", false, "do it although its lease still holds")
	c.Flags().BoolVar(&t.yes, "yes", false, "do not ask")
	asFlag(c, &o.ref)
}

func (t *tool) forgetCommand() *cobra.Command {
	o := order{action: operator.Forget}
	c := &cobra.Command{
		Use:   "forget TOKEN|KEY|HASH",
		Short: "Remove a record: the next request with its key runs the work",
		Long: `forget removes a record with its result. The next request with the key runs the
work, even if it was done before. It is the way out for a record that cannot be
read, and for operations that have used up their attempts. The place that such a
record had in the index stays until it would have expired: verify names it.

The record is named, and you are asked, as with idem settle. Of an attempt whose
lease still holds, -running forgets the record; the next request then runs the
work a second time while that attempt is still at it.`,
		Example: "  idem forget 3f2a91bc0d11 -fence 1764504000000000007 -store pay.db",
		Args:    exactArguments("TOKEN, KEY or HASH"),
		RunE: func(c *cobra.Command, args []string) error {
			o.ref.arg = args[0]
			return t.settle(c, o)
		},
		ValidArgsFunction: cobra.NoFileCompletions,
	}
	addSettlingFlags(t, c, &o)
	return c
}

// settle carries out o.
func (t *tool) settle(c *cobra.Command, o order) (err error) {
	if err := o.ref.check(); err != nil {
		return err
	}
	_, exact := o.ref.token()
	if o.fenced = c.Flags().Changed("fence"); t.yes && !exact && !o.fenced {
		return usage("-yes needs a token or -fence: a key or hash stands for whatever attempt is there by then")
	}
	if err := t.mayAsk(); err != nil {
		return err
	}
	payload, err := t.payloadOf(c.Flags().Changed("result"), o)
	if err != nil {
		return err
	}
	f, err := t.look(c.Context(), o)
	if err != nil {
		return err
	}
	if err := o.allowed(f); err != nil {
		return err
	}
	if !c.Flags().Changed("format") && o.unanswered(f, payload) {
		return usage("key %s is one of idemhttp, and retries could not replay this result; add -format http, or -format text to record it all the same", f.KeyHash)
	}
	if !t.yes {
		t.describe(f)
		if err := t.confirm(c.Context(), o.question(payload)); err != nil {
			return err
		}
	}
	src, err := t.openForChange()
	if err != nil {
		return err
	}
	defer closing(src, &err)
	// A settling call of the store does not end with its context.
	if err := c.Context().Err(); err != nil {
		return &failure{exitInterrupted, "", err, "nothing was changed"}
	}
	p := t.progress(&progress{what: "settling"})
	now, err := src.settle(c.Context(), f, o.action, payload)
	p.end()
	if err != nil {
		return t.lost(src, f, o, now, err)
	}
	t.changed = true
	return t.settled(f, o, now)
}

// look returns the record that o means. It opens the store for reading and closes it
// again: what is refused changes nothing, and while the question waits for its answer the
// store is nobody's.
func (t *tool) look(ctx context.Context, o order) (f found, err error) {
	src, err := t.open()
	if err != nil {
		return found{}, err
	}
	defer closing(src, &err)
	return t.findOne(ctx, src, o)
}

// payloadOf returns what o is to record. given: there is a -result.
func (t *tool) payloadOf(given bool, o order) ([]byte, error) {
	if o.action != operator.Complete && !given {
		if o.reason == "" {
			return nil, nil
		}
		return []byte(o.reason), nil
	}
	switch {
	case given && o.reason != "":
		return nil, usage("-result and -reason are both given; give one")
	case given && o.noResult:
		return nil, usage("-result and -no-result are both given; give one")
	case o.noResult:
		return []byte{}, nil
	case o.file == "":
		return nil, usage("%s with which result? Give -result FILE (- is standard input); complete takes -no-result for an empty one", o.action)
	case o.file == "-" && !t.yes:
		return nil, usage("-result - reads standard input, which then cannot answer a question; add -yes, or give a file")
	}
	return t.readPayload(o)
}

// readPayload reads the file of -result.
func (t *tool) readPayload(o order) ([]byte, error) {
	var b []byte
	var err error
	if o.file == "-" {
		b, err = io.ReadAll(io.LimitReader(t.in, maxPayload+1))
	} else {
		b, err = readBounded(o.file)
	}
	if err != nil {
		return nil, failed(err, "reading the result")
	}
	if len(b) > maxPayload {
		return nil, usage("the result is larger than %s, which no store takes", size(maxPayload))
	}
	format := operator.Format(o.format)
	if !slices.Contains(operator.Formats(), format) || format == operator.FormatNone {
		return nil, usage("-format is %q; it must be text, json, hex or http", printable(o.format))
	}
	if b, err = operator.ParsePayload(format, string(b)); err != nil {
		return nil, &failure{code: exitUsage, doing: "reading the result", err: err}
	}
	return b, nil
}

// maxPayload is the most that any store keeps of a result.
const maxPayload = 256 << 20

func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, maxPayload+1))
}

// findOne returns the one record that o means.
func (t *tool) findOne(ctx context.Context, src source, o order) (found, error) {
	all, err := t.find(ctx, src, o.ref)
	if err != nil {
		return found{}, err
	}
	if o.fenced && len(all) > 1 {
		all = slices.DeleteFunc(all, func(f found) bool { return !o.fits(f) })
		if len(all) == 0 {
			return found{}, &failure{exitLost, "", errors.New("no record that matches has that fence"), "look with idem show"}
		}
	}
	if len(all) > 1 {
		var which []string
		for _, f := range all {
			which = append(which, fmt.Sprintf("%s of a record with hash %s, %s, fence %s", f.as, f.KeyHash, stateOf(f.Record), f.Fence))
		}
		return found{}, &failure{
			exitAmbiguous, "", fmt.Errorf("the argument is the %s", strings.Join(which, "; and the ")),
			"add -fence N or -as KIND, or give a token",
		}
	}
	f := all[0]
	if f.stale || o.fenced && !o.fits(f) {
		return found{}, &failure{exitLost, "", fmt.Errorf("key %s has another attempt by now: it is %s, attempt %d, fence %s",
			f.KeyHash, stateOf(f.Record), f.Attempt, f.Fence), "nothing was changed; look with idem show"}
	}
	return f, nil
}

// fits reports whether f is the attempt that -fence names.
func (o order) fits(f found) bool {
	return fenceOf(f.Record) == strconv.FormatUint(o.fence, 10)
}

// allowed refuses what the store would refuse, and what a holder still works on.
func (o order) allowed(f found) error {
	switch {
	case !slices.Contains(f.Actions, o.action) && f.Error != "":
		return &failure{
			exitDamaged, "", fmt.Errorf("the record of key %s cannot be read: %s", f.KeyHash, printable(plainText(f.Error))),
			"restore a backup, or idem forget it",
		}
	case !slices.Contains(f.Actions, o.action):
		return &failure{
			exitLost, "", fmt.Errorf("key %s is %s, so there is no attempt to %s", f.KeyHash, stateOf(f.Record), o.action),
			"nothing was changed",
		}
	case f.State == "in_flight" && !f.Lapsed && !o.running:
		return &failure{
			exitFailed, "", fmt.Errorf("key %s is in flight and its lease holds until %s, so its attempt may be running", f.KeyHash, f.LeaseUntil.Local().Format("15:04:05")),
			"wait for the lease to lapse, or add -running; nothing was changed",
		}
	}
	return nil
}

// unanswered reports whether retries over HTTP would get a 500 in place of payload.
func (o order) unanswered(f found, payload []byte) bool {
	var answer idemhttp.Answer
	return o.action == operator.Complete && len(payload) > 0 &&
		strings.HasPrefix(cmp.Or(f.Key, f.token.Key), idemhttpKeys) && answer.UnmarshalBinary(payload) != nil
}

// idemhttpKeys is what idemhttp.StoreKey puts before each key.
const idemhttpKeys = "http/"

// describe says on stderr what the question is about, without the key: a transcript of
// the session may end up in a ticket.
func (t *tool) describe(f found) {
	now := t.now()
	t.note("key %s: %s", f.KeyHash, stateOf(f.Record))
	if f.Error != "" {
		return
	}
	t.note("  attempt %d, fence %s, claimed %s", f.Attempt, f.Fence, moment(f.ClaimedAt, now))
	if f.State == "in_flight" {
		t.note("  lease until %s", moment(f.LeaseUntil, now))
	}
	if f.Stuck != nil {
		t.note("  %s for %s: %s", f.Stuck.Reason, lasting(f.Stuck.Age()), operator.Line(f.Stuck.Why, 500))
	}
}

var questions = map[operator.Action]string{
	operator.Complete: "Complete it",
	operator.Fail:     "Fail it for good",
	operator.Release:  "Release it, to be run again",
	operator.Hold:     "Hold it",
	operator.Forget:   "Forget it, so its key may run again",
}

func (o order) question(payload []byte) string {
	q := questions[o.action]
	switch {
	case o.action == operator.Complete:
		q += " with a result of " + size(int64(len(payload)))
		var answer idemhttp.Answer
		if answer.UnmarshalBinary(payload) == nil {
			q += fmt.Sprintf(" (an HTTP answer, %d)", answer.Status)
		}
	case payload != nil:
		q += " with your reason"
	}
	return q + "?"
}

var done = map[operator.Action]string{
	operator.Complete: "completed; retries get the result",
	operator.Fail:     "failed for good; retries get the reason",
	operator.Release:  "released; the next retry runs it again",
	operator.Hold:     "held; retries are refused until somebody settles it",
	operator.Forget:   "forgotten; the next request with its key runs",
}

// settled tells that o was carried out.
func (t *tool) settled(f found, o order, now *operator.Record) error {
	if t.json {
		return t.printJSON(operator.Settled{Action: o.action, KeyHash: f.KeyHash, Fence: f.Fence, Record: now})
	}
	t.print("%s %s", f.KeyHash, done[o.action])
	return nil
}

// lost tells that o was not carried out, and what is there instead.
func (t *tool) lost(src source, f found, o order, now *operator.Record, err error) error {
	if !errors.Is(err, operator.ErrLost) {
		return failed(err, "settling key %s in %s", f.KeyHash, src.name())
	}
	there := "there is no record any more"
	if now != nil {
		there = fmt.Sprintf("it is %s, attempt %d, fence %s", stateOf(*now), now.Attempt, now.Fence)
	}
	return &failure{
		exitLost, "", &saidAs{fmt.Sprintf("somebody else was faster with key %s: %s", f.KeyHash, there), err},
		"nothing was changed; look with idem show before you " + string(o.action) + " it",
	}
}
