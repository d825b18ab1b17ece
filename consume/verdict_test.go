package consume_test

import (
	"context"
	"errors"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

func TestNames(t *testing.T) {
	t.Parallel()
	assert.Equal(t, "retry: none", consume.Verdict{}.String(), "the zero Verdict acknowledges nothing")
	assert.Equal(t, "ack: processed", consume.Verdict{Decision: consume.Ack, Reason: consume.Processed}.String())
	assert.Equal(t, "dead: no_id: why", consume.Verdict{Decision: consume.Dead, Reason: consume.NoID, Err: errors.New("why")}.String())
	assert.Equal(t, "unknown(9): unknown(99)", consume.Verdict{Decision: 9, Reason: 99}.String())
	seen := map[string]bool{}
	for r := consume.Processed; r <= consume.Unprotected; r++ {
		seen[r.String()] = true
		assert.Regexp(t, "^[a-z_]+$", r.String())
	}
	assert.Len(t, seen, 15)
	assert.Equal(t, "unprotected", consume.Unprotected.String())
	for o, want := range map[consume.Order]string{
		consume.AnyOrder: "any_order", consume.StopAtRetry: "stop_at_retry", consume.StopAtDead: "stop_at_dead", 9: "unknown(9)",
	} {
		assert.Equal(t, want, o.String())
	}
}

// Keys are stored: a release that made others would run every message again. The hash
// was computed by another program.
func TestKeyIsFrozen(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, memory.New(memory.Options{}), idem.Options{})
	for _, c := range []struct {
		name string
		m    message
		want string
	}{
		{"billing", message{"evt-1", "x"}, "consume/billing/evt-1"},
		{"a/b", message{"1/2%", "x"}, "consume/a%2Fb/1%2F2%25"},
		{"billing", message{"", "order 7"}, "consume/billing/content/8jzqTLzC3lKBvULZRxYhg2C0QJ0qxoy4VQHLYqnz_iI"},
	} {
		o := messages()
		o.MissingID = consume.DeriveMissing
		consumer, err := consume.New(s, c.name, mustNotRun, o)
		require.NoError(t, err)
		assert.Equal(t, c.want, key(t, consumer, c.m))
	}
}

// New refuses what is left open.
func TestNewRefuses(t *testing.T) {
	t.Parallel()
	s := storetest.Open(t, memory.New(memory.Options{}), idem.Options{})
	handle := func(context.Context, message) error { return nil }
	with := func(change func(*consume.Options[message])) consume.Options[message] {
		o := messages()
		change(&o)
		return o
	}
	long := string(make([]byte, 257))
	for name, c := range map[string]struct {
		store  *idem.Store
		name   string
		handle func(context.Context, message) error
		opts   consume.Options[message]
		says   string
	}{
		"no store":               {nil, "c", handle, messages(), "the store is nil"},
		"no name":                {s, "", handle, messages(), "no name"},
		"long name":              {s, long, handle, messages(), "name"},
		"name long when escaped": {s, "////" + long[:245], handle, messages(), "takes 257 bytes"},
		"no handler":             {s, "c", nil, messages(), "handler"},
		"no ID":                  {s, "c", handle, with(func(o *consume.Options[message]) { o.ID = nil }), "Options.ID"},
		"no policy":              {s, "c", handle, with(func(o *consume.Options[message]) { o.MissingID = 0 }), "choose RejectMissing"},
		"no such policy":         {s, "c", handle, with(func(o *consume.Options[message]) { o.MissingID = 4 }), "choose RejectMissing"},
		"no body":                {s, "c", handle, with(func(o *consume.Options[message]) { o.Body = nil }), "Options.Body"},
		"lease":                  {s, "c", handle, with(func(o *consume.Options[message]) { o.Lease = -1 }), "Options.Lease is -1ns"},
		"lease of 30 ns":         {s, "c", handle, with(func(o *consume.Options[message]) { o.Lease = 30 }), "Options.Lease is 30ns"},
		"attempts":               {s, "c", handle, with(func(o *consume.Options[message]) { o.MaxAttempts = -1 }), "Options.MaxAttempts is -1"},
		"run":                    {s, "c", handle, with(func(o *consume.Options[message]) { o.MaxRun = -1 }), "Options.MaxRun -1ns"},
		"wait":                   {s, "c", handle, with(func(o *consume.Options[message]) { o.Wait = -1 }), "Options.Wait -1ns"},
		"order":                  {s, "c", handle, with(func(o *consume.Options[message]) { o.Order = 3 }), "Options.Order is 3"},
		"group without order":    {s, "c", handle, with(func(o *consume.Options[message]) { o.Group = func(m message) string { return m.id } }), "Options.Order is not"},
		"retention":              {s, "c", handle, with(func(o *consume.Options[message]) { o.Retention = -time.Hour }), "Options.Retention is -1h"},
		"both body and fingerprint": {s, "c", handle, with(func(o *consume.Options[message]) {
			o.Fingerprint = func(message) (idem.Fingerprint, error) { return idem.Fingerprint{}, nil }
		}), "one of Options.Body and Options.Fingerprint"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := consume.New(c.store, c.name, c.handle, c.opts)
			assert.Nil(t, got)
			require.ErrorIs(t, err, idem.ErrInvalid)
			assert.ErrorContains(t, err, "consume: ")
			assert.ErrorContains(t, err, c.says)
		})
	}
	_, err := consume.New(s, long[:256], handle, messages())
	require.NoError(t, err)
}

// Every option has a row in the table of docs/CONSUMERS.md, and there are no others.
func TestOptionsAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../docs/CONSUMERS.md")
	require.NoError(t, err)
	_, section, _ := strings.Cut(string(page), "\n## Options\n")
	section, _, _ = strings.Cut(section, "\n## ")
	var rows, fields []string
	for _, row := range regexp.MustCompile("(?m)^\\| `(\\w+)` \\|").FindAllStringSubmatch(section, -1) {
		rows = append(rows, row[1])
	}
	of := reflect.TypeFor[consume.Options[message]]()
	for i := range of.NumField() {
		fields = append(fields, of.Field(i).Name)
	}
	assert.ElementsMatch(t, fields, rows)
}
