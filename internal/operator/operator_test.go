package operator_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/internal/operator"
	"github.com/idemkv/idem/internal/storetest"
)

const (
	secretKey     = "tenant/4111111111111111"
	secretPayload = "payload-5555"
)

func secretRecord(t *testing.T, s *idem.Store) idem.Record {
	t.Helper()
	ctx := t.Context()
	c, err := s.Claim(ctx, idem.Request{Key: secretKey, Fingerprint: idem.FingerprintOf([]byte(secretPayload))})
	require.NoError(t, err)
	require.NoError(t, s.Checkpoint(ctx, c.Token, []byte(secretPayload)))
	require.NoError(t, s.Hold(ctx, c.Token, []byte(secretPayload)))
	rec, err := s.Get(ctx, secretKey)
	require.NoError(t, err)
	return rec
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	require.NoError(t, err)
	return string(b)
}

// Each part of a record is shown only when it is revealed, and its size always is.
func TestRecordHides(t *testing.T) {
	t.Parallel()
	s := newStore(t, idem.Options{})
	rec := secretRecord(t, s)
	token, err := rec.Token().MarshalText()
	require.NoError(t, err)
	fingerprint := strings.Trim(encoded(t, fmt.Sprintf("%x", rec.Fingerprint[:])), `"`)
	for _, reveal := range []operator.Reveal{{}, {Keys: true}, {Payloads: true}, {Keys: true, Payloads: true}} {
		r := operator.ViewOf(s, reveal).Record(rec)
		text := encoded(t, r)
		for _, secret := range []string{secretKey, string(token), fingerprint} {
			assert.Equal(t, reveal.Keys, strings.Contains(text, secret), "%+v: %s", reveal, text)
		}
		assert.Equal(t, reveal.Payloads, strings.Contains(text, secretPayload))
		assert.Equal(t, s.KeyHash(secretKey), r.KeyHash)
		assert.Equal(t, len(secretPayload), r.Result.Bytes)
		assert.Equal(t, len(secretPayload), r.Checkpoint.Bytes)
		assert.True(t, r.Unsettled)
		assert.Equal(t, operator.ReasonHeld, r.Stuck.Reason)
		assert.Equal(t, fmt.Sprint(rec.Fence), r.Fence)
	}
}

// A key of any bytes, and a record that cannot be read, can be shown as JSON.
func TestRecordOfAnyKey(t *testing.T) {
	t.Parallel()
	s := newStore(t, idem.Options{})
	rec := storetest.Complete(t, s, "\xff\x00", "\xfe").Record
	v := operator.ViewOf(s, operator.Reveal{Keys: true, Payloads: true})
	r := v.Record(rec)
	assert.Empty(t, r.Key)
	assert.Equal(t, "ff00", r.KeyHex)
	bad := v.Unreadable("\xff\x00", fmt.Errorf("%w: flipped", idem.ErrCorrupt))
	assert.Equal(t, r.KeyHash, bad.KeyHash)
	assert.Equal(t, []operator.Action{operator.Forget}, bad.Actions)
	var back operator.Record
	require.NoError(t, json.Unmarshal([]byte(encoded(t, bad)), &back))
	assert.Equal(t, bad, back)
}

// The JSON of a record can be read back: the command line reads what the pages write.
func TestRecordRoundTrip(t *testing.T) {
	t.Parallel()
	s := newStore(t, idem.Options{})
	r := operator.ViewOf(s, operator.Reveal{Keys: true, Payloads: true}).Record(secretRecord(t, s))
	var back operator.Record
	require.NoError(t, json.Unmarshal([]byte(encoded(t, r)), &back))
	assert.JSONEq(t, encoded(t, r), encoded(t, back))
	assert.True(t, r.ClaimedAt.Equal(back.ClaimedAt))
}

// Settling is by the fence that was shown. Whoever comes second changes nothing.
func TestSettleLost(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := newStore(t, idem.Options{})
	old := claimed(t, s, "k", idem.Released)
	current := storetest.Claim(t, s, "k").Token
	before, err := s.Get(ctx, "k")
	require.NoError(t, err)
	for _, action := range operator.Actions() {
		err := operator.Settle(ctx, s, operator.Order{Token: old, Action: action})
		require.ErrorIs(t, err, operator.ErrLost, action)
		require.ErrorIs(t, err, idem.ErrFenced, action)
	}
	require.ErrorIs(t, operator.Settle(ctx, s, operator.Order{Token: current, Action: operator.Forget, State: idem.Held}), operator.ErrLost)
	require.ErrorIs(t, operator.Settle(ctx, s, operator.Order{Token: idem.Token{Key: "k"}, Action: operator.Forget}), operator.ErrLost, "fence zero is for what cannot be read")
	after, err := s.Get(ctx, "k")
	require.NoError(t, err)
	require.Equal(t, before, after)

	require.NoError(t, operator.Settle(ctx, s, operator.Order{Token: current, Action: operator.Complete, Payload: []byte("1")}))
	require.NoError(t, operator.Settle(ctx, s, operator.Order{Token: current, Action: operator.Complete, Payload: []byte("1")}), "again")
	err = operator.Settle(ctx, s, operator.Order{Token: current, Action: operator.Complete, Payload: []byte("2")})
	require.ErrorIs(t, err, operator.ErrLost)
	require.ErrorIs(t, err, idem.ErrCompleted)
	require.ErrorIs(t, operator.Settle(ctx, s, operator.Order{Token: current, Action: operator.Forget, State: idem.InFlight}), operator.ErrLost,
		"it was completed since it was shown")
	require.NoError(t, operator.Settle(ctx, s, operator.Order{Token: current, Action: operator.Forget, State: idem.Completed}))
	require.ErrorIs(t, operator.Settle(ctx, s, operator.Order{Token: current, Action: operator.Forget}), idem.ErrNotFound)
}

// A payload over the store's limit changes nothing, whatever the action. The store alone
// would drop or cut it.
func TestSettleTooLarge(t *testing.T) {
	t.Parallel()
	s := newStore(t, idem.Options{MaxResult: 10})
	tok := storetest.Claim(t, s, "k").Token
	for _, action := range operator.Actions() {
		err := operator.Settle(t.Context(), s, operator.Order{Token: tok, Action: action, Payload: make([]byte, 11)})
		require.ErrorIs(t, err, idem.ErrInvalid, action)
	}
	require.ErrorIs(t, operator.Settle(t.Context(), s, operator.Order{Token: tok, Action: "explode"}), idem.ErrInvalid)
	rec, err := s.Get(t.Context(), "k")
	require.NoError(t, err)
	require.Equal(t, idem.InFlight, rec.State)
}

func TestCause(t *testing.T) {
	t.Parallel()
	for want, err := range map[string]error{
		"closed": idem.ErrClosed, "broken": fmt.Errorf("%w: %w", idem.ErrBroken, idem.ErrCorrupt), "full": idem.ErrFull,
		"timeout": context.DeadlineExceeded, "corrupt": idem.ErrCorrupt, "version": idem.ErrVersion, "locked": idem.ErrLocked,
		"invalid": idem.ErrInvalid, "other": errors.New("x"),
	} {
		assert.Equal(t, want, operator.Cause(err))
	}
	assert.Equal(t, operator.Health{Ready: true}, operator.HealthOf(nil))
	assert.Equal(t, operator.Health{Cause: "full", Error: idem.ErrFull.Error()}, operator.HealthOf(idem.ErrFull))
}
