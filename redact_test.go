package idem_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"pgregory.net/rapid"

	"github.com/idemkv/idem"
)

// secrets are the spellings in which text could give itself away.
func secrets(text []byte) []string {
	return []string{
		string(text), hex.EncodeToString(text), strings.ToUpper(hex.EncodeToString(text)),
		base64.StdEncoding.EncodeToString(text), base64.RawURLEncoding.EncodeToString(text),
		strings.Trim(fmt.Sprint(text), "[]"), strings.Trim(fmt.Sprintf("%#v", text), "[]byte{}"), fmt.Sprintf("%q", text),
	}
}

// renderings are the ways in which a value gets into a log, one after the other.
func renderings(t require.TestingT, v any) string {
	var out bytes.Buffer
	for _, format := range []string{"%v", "%+v", "%s", "%q", "%#v", "%x", "%X", "% x"} {
		fmt.Fprintf(&out, format+"\n", v)
	}
	fmt.Fprintln(&out, v, fmt.Errorf("wrapped: %v", v))
	for _, h := range []slog.Handler{slog.NewJSONHandler(&out, nil), slog.NewTextHandler(&out, nil)} {
		log := slog.New(h)
		log.Info("direct", "v", v)
		log.With("v", v).WithGroup("g").Info("attached", slog.Any("v", v))
	}
	require.Equal(t, 2, strings.Count(out.String(), "attached"))
	return out.String()
}

// Tokens, records and requests can be logged: neither the key nor payloads and
// fingerprints show, nor anything by which a key could be tried.
func TestLogsDiscloseNothing(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		text := rapid.SliceOfN(rapid.Byte(), 12, 40)
		key, result, point := text.Draw(t, "key"), text.Draw(t, "result"), text.Draw(t, "point")
		print := idem.Fingerprint(rapid.SliceOfN(rapid.Byte(), 32, 32).Draw(t, "print"))
		token := idem.Token{Key: string(key), Fence: 7}
		request := idem.Request{Key: string(key), Fingerprint: print, Lease: time.Minute, Retention: time.Hour, HoldUnknown: true}
		record := idem.Record{Key: string(key), State: idem.Held, Fingerprint: print, Fence: 7, Attempt: 2, Checkpoint: point, Result: result}
		kept := slices.Concat(secrets(key), secrets(result), secrets(point), secrets(print[:]))
		claim := idem.Claim{Token: token, Record: record}
		completion := idem.Completion{Token: token, Result: result}
		ending := idem.Ending{Token: token, State: idem.Completed, Result: result}
		for _, v := range []any{
			token, &token, request, &request, record, &record, claim, &claim, completion, &completion, ending, &ending,
			idem.ClaimResult{Claim: claim, Err: idem.ErrHeld},
		} {
			logged := renderings(t, v)
			for _, secret := range kept {
				if strings.Contains(logged, secret) {
					t.Fatalf("%T discloses %q in %s", v, secret, logged)
				}
			}
		}
		// A list of them, or a map, shows each as it shows itself.
		for _, v := range []any{[]idem.Token{token}, []idem.Completion{completion}, []idem.Ending{ending}, map[string]any{"record": record}} {
			line := fmt.Sprintf("%v %+v %#v", v, v, v)
			for _, secret := range kept {
				if strings.Contains(line, secret) {
					t.Fatalf("%T discloses %q in %s", v, secret, line)
				}
			}
		}
	})
}

// What a log does show is enough to follow an operation.
func TestLogsNameTheOperation(t *testing.T) {
	t.Parallel()
	token := idem.Token{Key: "txn_001", Fence: 7}
	record := idem.Record{Key: "txn_001", State: idem.Completed, Fence: 7, Attempt: 2, Result: []byte("abc"), Checkpoint: []byte("de")}
	request := idem.Request{Key: "txn_001", Lease: time.Minute, Retention: time.Hour, HoldUnknown: true}
	assert.Equal(t, "token(fence 7)", token.String())
	assert.Equal(t, "record(completed, fence 7, attempt 2)", record.String())
	assert.Equal(t, "request(key of 7 bytes, lease 1m0s, retention 1h0m0s)", request.String())
	ending := idem.Ending{Token: token, State: idem.Held, Result: []byte("abc")}
	assert.Equal(t, "ending(token(fence 7), held, 3 bytes)", ending.String())
	assert.Equal(t, token, record.Token())

	var b bytes.Buffer
	log := slog.New(slog.NewJSONHandler(&b, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && (a.Key == slog.TimeKey || a.Key == slog.LevelKey) {
			return slog.Attr{}
		}
		return a
	}}))
	log.Info("x", "token", token, "record", record, "request", request,
		"completion", idem.Completion{Token: token, Result: []byte("abc")}, "ending", ending,
		"result", idem.ClaimResult{Claim: idem.Claim{Token: token}, Err: idem.ErrHeld})
	assert.JSONEq(t, `{"msg":"x",
		"token":{"fence":7},
		"record":{"state":"completed","fence":7,"attempt":2,"result_bytes":3,"checkpoint_bytes":2},
		"request":{"key_bytes":7,"lease":60000000000,"retention":3600000000000,"hold_unknown":true},
		"completion":{"token":{"fence":7},"result_bytes":3},
		"ending":{"token":{"fence":7},"state":"held","result_bytes":3},
		"result":{
			"claim":{
				"token":{"fence":7},
				"record":{"state":"none","fence":0,"attempt":0,"result_bytes":0,"checkpoint_bytes":0}},
			"err":"idem: operation is held, its outcome is unknown"}}`, b.String())
}

func TestStateNames(t *testing.T) {
	t.Parallel()
	for state, want := range map[idem.State]string{
		0: "none", idem.InFlight: "in_flight", idem.Released: "released", idem.Held: "held",
		idem.Completed: "completed", idem.Failed: "failed", 6: "state(6)", 255: "state(255)",
	} {
		assert.Equal(t, want, state.String())
		assert.Equal(t, state == idem.Completed || state == idem.Failed, state.Final())
	}
}
