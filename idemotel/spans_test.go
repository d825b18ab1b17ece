package idemotel_test

import (
	"context"
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemotel"
)

// newSpans returns a store that makes spans of its claims.
func newSpans(t *testing.T) *bench {
	spans := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(spans))
	b := newBench(t, idemotel.Spans(provider))
	b.spans, b.Tracer = spans, provider.Tracer("test")
	return b
}

// Each claim ends as a span that says how: an attempt with the time that it took, a refused
// claim without length.
func TestSpanOfEachClaim(t *testing.T) {
	t.Parallel()
	b := newSpans(t)
	ctx := t.Context()
	r := idem.Request{Key: "order-1", Fingerprint: idem.FingerprintOf([]byte("a"))}
	claim := func() idem.Token {
		c, err := b.Claim(ctx, r)
		require.NoError(t, err)
		return c.Token
	}
	for i, step := range []struct {
		do      func() error
		err     error
		outcome string
		attempt int64
		took    time.Duration
		status  codes.Code
	}{
		{func() error { return b.Unclaim(ctx, claim()) }, nil, "operation_unclaimed", 0, 0, codes.Unset},
		{func() error { token := claim(); b.clock.Advance(time.Second); return b.Release(ctx, token, nil) }, nil, "operation_released", 1, time.Second, codes.Error},
		{func() error { token := claim(); b.clock.Advance(3 * time.Second); return b.Hold(ctx, token, nil) }, nil, "operation_held", 2, 3 * time.Second, codes.Error},
		{func() error { _, err := b.Claim(ctx, r); return err }, idem.ErrHeld, "claim_held", 2, 0, codes.Unset},
		{func() error { return b.Complete(ctx, idem.Token{Key: r.Key, Fence: 7}, nil) }, idem.ErrFenced, "token_refused", 0, 0, codes.Error},
		{func() error {
			b.clock.Advance(time.Hour)
			record, err := b.Get(ctx, r.Key)
			require.NoError(t, err)
			return b.Complete(ctx, record.Token(), nil)
		}, nil, "operation_completed", 2, time.Hour + 3*time.Second, codes.Unset},
		{func() error { _, err := b.Claim(ctx, r); return err }, idem.ErrCompleted, "claim_replayed", 2, 0, codes.Unset},
		{func() error {
			_, err := b.Claim(ctx, idem.Request{Key: r.Key, Fingerprint: idem.FingerprintOf()})
			return err
		}, idem.ErrMismatch, "claim_mismatch", 0, 0, codes.Unset},
		{func() error { return b.Forget(ctx, idem.Token{Key: r.Key}) }, nil, "", 0, 0, codes.Unset},
		{func() error { return b.Fail(ctx, claim(), nil) }, nil, "operation_failed", 1, 0, codes.Error},
	} {
		before := len(b.spans.Ended())
		require.Equal(t, step.err, step.do(), "step %d", i)
		ended := b.spans.Ended()[before:]
		if step.outcome == "" {
			require.Empty(t, ended, "step %d", i)
			continue
		}
		require.Len(t, ended, 1, "step %d: %s", i, step.outcome)
		span := ended[0]
		got := values(span.Attributes())
		assert.Equal(t, "idem.claim", span.Name())
		assert.Equal(t, step.outcome, got[idemotel.Outcome])
		assert.Equal(t, b.KeyHash(r.Key), got[idemotel.KeyHash], step.outcome)
		if attempt, ok := got[idemotel.Attempt]; ok || step.attempt > 0 {
			assert.Equal(t, step.attempt, attempt, step.outcome)
		}
		assert.Equal(t, step.took, span.EndTime().Sub(span.StartTime()), step.outcome)
		assert.Equal(t, step.status, span.Status().Code, step.outcome)
		assert.NotContains(t, fmt.Sprint(span.Attributes(), span.Events(), span.Status()), r.Key)
	}
}

// The span of a claim is in the trace of whoever settles it. What is not sampled stays so.
func TestSpanOfAClaimIsInItsTrace(t *testing.T) {
	t.Parallel()
	b := newSpans(t)
	ctx, root := b.Start(t.Context(), "request")
	c, err := b.Claim(ctx, request)
	require.NoError(t, err)
	require.NoError(t, b.Complete(ctx, c.Token, nil))
	root.End()
	spans := b.ended(t)
	claim := spans["idem.claim"]
	assert.Equal(t, root.SpanContext().SpanID(), claim.Parent().SpanID())
	assert.Equal(t, root.SpanContext().TraceID(), claim.SpanContext().TraceID())
	assert.Equal(t, strconv.FormatUint(c.Token.Fence, 10), values(claim.Attributes())[idemotel.Fence])
	assert.Equal(t, "github.com/idemkv/idem/idemotel", claim.InstrumentationScope().Name)

	before := len(b.spans.Ended())
	notSampled, _ := sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample())).Tracer("test").Start(t.Context(), "request")
	_, err = b.Claim(notSampled, request)
	require.Equal(t, idem.ErrCompleted, err)
	assert.Len(t, b.spans.Ended(), before)
}

// Events that end no claim make no span, those of a newer store neither.
func TestSpansOfKinds(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	observe := idemotel.Spans(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	for kind := range idem.EventKind(255) {
		observe(t.Context(), idem.Event{Kind: kind, KeyHash: "h", Duration: -time.Second})
	}
	var outcomes []any
	for _, s := range spans.Ended() {
		outcomes = append(outcomes, values(s.Attributes())[idemotel.Outcome])
		assert.Zero(t, s.EndTime().Sub(s.StartTime()), "a clock that fell")
	}
	assert.Equal(t, []any{
		"claim_replayed", "claim_in_flight", "claim_mismatch", "claim_failed", "claim_held", "claim_exhausted", "claim_full", "claim_too_late",
		"operation_completed", "operation_failed", "operation_released", "operation_held", "operation_unclaimed", "token_refused",
	}, outcomes)
}

// The global provider is used where none is at hand. A consumer that got its trace from
// another process has no span of its own yet, but only the other's context, whose provider
// makes no spans. Not parallel: it sets the global provider.
func TestGlobalProvider(t *testing.T) {
	was := otel.GetTracerProvider()
	t.Cleanup(func() { otel.SetTracerProvider(was) })
	spans := tracetest.NewSpanRecorder()
	otel.SetTracerProvider(sdk.NewTracerProvider(sdk.WithSpanProcessor(spans)))
	remote := trace.NewSpanContext(trace.SpanContextConfig{
		TraceID: trace.TraceID{1}, SpanID: trace.SpanID{2}, TraceFlags: trace.FlagsSampled, Remote: true,
	})
	b := newBench(t, idemotel.Spans(nil))
	ctx := trace.ContextWithRemoteSpanContext(context.Background(), remote)
	_, _, err := idemotel.Do(ctx, b.Store, request, func(context.Context, idem.Claim) (int, error) { return 1, nil })
	require.NoError(t, err)
	ended := spans.Ended()
	require.Len(t, ended, 2)
	claim, do := ended[0], ended[1]
	assert.Equal(t, "idem.claim", claim.Name())
	assert.Equal(t, "idem.Do", do.Name())
	assert.Equal(t, remote.TraceID(), do.SpanContext().TraceID())
	assert.Equal(t, remote.SpanID(), do.Parent().SpanID())
	assert.Equal(t, do.SpanContext().SpanID(), claim.Parent().SpanID())
	assert.Contains(t, do.Attributes(), attribute.Bool("idem.replayed", false))
}

func BenchmarkSpans(b *testing.B) {
	observe := idemotel.Spans(sdk.NewTracerProvider(sdk.WithSampler(sdk.ParentBased(sdk.NeverSample()))))
	e := idem.Event{Kind: idem.ClaimReplayed, KeyHash: "0123456789ab", Fence: 1 << 60, Attempt: 1}
	b.ReportAllocs()
	for b.Loop() {
		observe(context.Background(), e)
	}
}
