package idem_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// States, kinds of event and fingerprints are words in JSON, and are read back.
func TestTextForms(t *testing.T) {
	t.Parallel()
	print := idem.FingerprintOf([]byte("a"))
	type all struct {
		State idem.State
		Kind  idem.EventKind
		Print idem.Fingerprint
		By    map[idem.State]int
	}
	in := all{idem.Held, idem.ClaimTooLate, print, map[idem.State]int{idem.InFlight: 1}}
	b, err := json.Marshal(in)
	require.NoError(t, err)
	require.JSONEq(t, `{"State":"held","Kind":"claim_too_late","Print":"`+print.String()+`","By":{"in_flight":1}}`, string(b))
	var out all
	require.NoError(t, json.Unmarshal(b, &out))
	require.Equal(t, in, out)
	b, err = json.Marshal(all{})
	require.NoError(t, err)
	require.JSONEq(t, `{"State":"none","Kind":"none","Print":"","By":null}`, string(b))
	require.NoError(t, json.Unmarshal(b, &out))
	require.Zero(t, out.State)
	require.Zero(t, out.Kind)
	require.Zero(t, out.Print)

	for s := idem.State(0); s <= idem.Failed; s++ {
		b, err := s.MarshalText()
		require.NoError(t, err)
		var back idem.State
		require.NoError(t, back.UnmarshalText(b))
		require.Equal(t, s, back)
	}
	kinds := 0
	for k := idem.EventKind(0); k.String() != "unknown"; k++ {
		b, err := k.MarshalText()
		require.NoError(t, err)
		var back idem.EventKind
		require.NoError(t, back.UnmarshalText(b))
		require.Equal(t, k, back)
		kinds++
	}
	require.Equal(t, int(idem.StoreBroken)+1, kinds)
	require.Len(t, print.String(), 64)
	var back idem.Fingerprint
	require.NoError(t, back.UnmarshalText([]byte(strings.ToUpper(print.String()))))
	require.Equal(t, print, back)
}

// What is none of them is refused and changes nothing.
func TestTextFormsThatAreNone(t *testing.T) {
	t.Parallel()
	state, kind, print := idem.Held, idem.CacheHit, printA
	for _, text := range []string{"Held", "held ", "state(6)", "6", "unknown", strings.Repeat("x", 1000)} {
		for _, err := range []error{state.UnmarshalText([]byte(text)), kind.UnmarshalText([]byte(text)), print.UnmarshalText([]byte(text))} {
			require.ErrorIs(t, err, idem.ErrInvalid)
			require.Less(t, len(err.Error()), 200)
		}
	}
	for _, text := range []string{printA.String()[1:], printA.String() + "0", strings.Repeat("g", 64)} {
		require.ErrorIs(t, print.UnmarshalText([]byte(text)), idem.ErrInvalid)
	}
	require.ErrorIs(t, state.UnmarshalText(nil), idem.ErrInvalid)
	require.ErrorIs(t, kind.UnmarshalText(nil), idem.ErrInvalid)
	require.Equal(t, idem.Held, state)
	require.Equal(t, idem.CacheHit, kind)
	require.Equal(t, printA, print)
	_, err := idem.State(6).MarshalText()
	require.ErrorIs(t, err, idem.ErrInvalid)
	_, err = idem.EventKind(255).MarshalText()
	require.ErrorIs(t, err, idem.ErrInvalid)
}

// An event is logged with what is set, under the names of the fields.
func TestEventLogValue(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key != "event" {
			return slog.Attr{}
		}
		return a
	}}))
	for _, c := range []struct {
		event idem.Event
		want  string
	}{
		{idem.Event{Kind: idem.ClaimGranted, KeyHash: "0a1b2c3d4e5f", Fence: 7, Attempt: 1}, `{"kind":"claim_granted","key_hash":"0a1b2c3d4e5f","fence":7,"attempt":1}`},
		{idem.Event{Kind: idem.SweepDone, Count: 3, Corrupt: 1, Duration: time.Second}, `{"kind":"sweep_done","count":3,"corrupt":1,"duration":1000000000}`},
		{idem.Event{Kind: idem.StoreBroken, Err: errors.New("disk"), Stack: "at x"}, `{"kind":"store_broken","err":"disk","stack":"at x"}`},
		{idem.Event{}, `{"kind":"none"}`},
	} {
		b.Reset()
		log.Info("x", "event", c.event)
		require.JSONEq(t, `{"event":`+c.want+`}`, b.String())
		b.Reset()
		log.Info("x", "event", &c.event)
		require.JSONEq(t, `{"event":`+c.want+`}`, b.String())
	}
}

// What a store tells its observer names the key by its hash, also in a log.
func TestEventsDiscloseNoKey(t *testing.T) {
	t.Parallel()
	var b bytes.Buffer
	log := slog.New(slog.NewTextHandler(&b, nil))
	told := new(recorder)
	s := memoryStore(idem.Options{Observer: told.observe})
	defer s.Close()
	const key = "a secret order"
	c := mustClaim(t, s, idem.Request{Key: key})
	require.NoError(t, s.Fail(t.Context(), c.Token, []byte("a secret reason")))
	events := told.take()
	require.NotEmpty(t, events)
	for _, e := range events {
		log.Info("told", "event", e)
	}
	require.Contains(t, b.String(), "event.key_hash="+s.KeyHash(key))
	require.NotContains(t, b.String(), "secret")
}
