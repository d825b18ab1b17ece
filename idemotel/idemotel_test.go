package idemotel_test

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemotel"
	"github.com/idemkv/idem/idemtest"
	"github.com/idemkv/idem/memory"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// bench is a store with a tracer that keeps its spans.
type bench struct {
	*idem.Store
	clock *idemtest.Clock
	spans *tracetest.SpanRecorder
	trace.Tracer
}

func newBench(t testing.TB, observer func(context.Context, idem.Event)) *bench {
	b := &bench{clock: idemtest.NewClock(time.Unix(1_800_000_000, 0)), spans: tracetest.NewSpanRecorder()}
	var err error
	b.Store, err = idem.New(memory.New(memory.Options{}), idem.Options{Observer: observer, Clock: b.clock, Lease: time.Minute, SweepInterval: -1})
	require.NoError(t, err)
	t.Cleanup(func() { _ = b.Close() })
	b.Tracer = sdk.NewTracerProvider(sdk.WithSpanProcessor(b.spans)).Tracer("test")
	return b
}

// ended returns the spans that have ended, by name.
func (b *bench) ended(t *testing.T) map[string]sdk.ReadOnlySpan {
	t.Helper()
	spans := map[string]sdk.ReadOnlySpan{}
	for _, s := range b.spans.Ended() {
		require.NotContains(t, spans, s.Name())
		spans[s.Name()] = s
	}
	return spans
}

func events(s sdk.ReadOnlySpan) string {
	var names []string
	for _, e := range s.Events() {
		names = append(names, strings.TrimPrefix(e.Name, "idem."))
	}
	return strings.Join(names, " ")
}

func values(attributes []attribute.KeyValue) map[attribute.Key]any {
	out := map[attribute.Key]any{}
	for _, a := range attributes {
		out[a.Key] = a.Value.AsInterface()
	}
	return out
}

var request = idem.Request{Key: "order-1"}

// Claims and settlements are events of the caller's span, and nothing else is.
func TestObserveAddsEventsToTheCallersSpan(t *testing.T) {
	t.Parallel()
	b := newBench(t, idemotel.Observe)
	ctx, span := b.Start(t.Context(), "request")
	c, err := b.Claim(ctx, request)
	require.NoError(t, err)
	_, err = b.Claim(ctx, request)
	require.Equal(t, idem.ErrInFlight, err)
	require.NoError(t, b.Extend(ctx, c.Token, 0))
	require.NoError(t, b.Checkpoint(ctx, c.Token, []byte("half")))
	require.Equal(t, idem.ErrFenced, b.Complete(ctx, idem.Token{Key: "order-1", Fence: 7}, nil))
	require.NoError(t, b.Complete(ctx, c.Token, []byte("paid")))
	_, err = b.Claim(ctx, request)
	require.Equal(t, idem.ErrCompleted, err)
	require.NoError(t, b.Forget(ctx, c.Token))
	_, err = b.Sweep(ctx, 1)
	require.NoError(t, err)
	span.End()
	got := b.ended(t)["request"]
	require.Equal(t, "claim_granted claim_in_flight checkpoint_saved token_refused operation_completed claim_replayed record_forgotten", events(got))
	require.Equal(t, map[attribute.Key]any{
		idemotel.KeyHash: b.KeyHash("order-1"),
		idemotel.Attempt: int64(1),
		idemotel.Fence:   strconv.FormatUint(c.Token.Fence, 10),
	}, values(got.Events()[0].Attributes))
	assert.Empty(t, got.Attributes(), "the span is the caller's; a batch has many claims on one")
}

// The events of what does not concern a claim stay out of the caller's span.
func TestObserveShowsClaimsAndSettlementsAlone(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	ctx, span := b.Start(t.Context(), "all")
	for kind := range idem.EventKind(255) {
		idemotel.Observe(ctx, idem.Event{Kind: kind, KeyHash: "h"})
	}
	span.End()
	assert.Equal(t, "claim_granted claim_takeover claim_replayed claim_in_flight claim_mismatch claim_failed claim_held "+
		"claim_exhausted claim_full claim_too_late operation_completed operation_failed operation_released operation_held "+
		"operation_unclaimed checkpoint_saved token_refused record_forgotten", events(b.ended(t)["all"]))
}

func TestDoCoversItsWork(t *testing.T) {
	t.Parallel()
	b := newBench(t, idemotel.Observe)
	ctx, root := b.Start(t.Context(), "request")
	work := func(ctx context.Context, c idem.Claim) (string, error) {
		inner, span := b.Start(ctx, "bank")
		defer span.End()
		return "paid", b.Checkpoint(inner, c.Token, []byte("half"))
	}
	value, replayed, err := idemotel.Do(ctx, b.Store, request, work)
	require.NoError(t, err)
	require.False(t, replayed)
	require.Equal(t, "paid", value)
	root.End()
	spans := b.ended(t)
	do := spans["idem.Do"]
	require.NotNil(t, do)
	assert.Equal(t, root.SpanContext().SpanID(), do.Parent().SpanID())
	assert.Equal(t, do.SpanContext().SpanID(), spans["bank"].Parent().SpanID())
	assert.Equal(t, "github.com/idemkv/idem/idemotel", do.InstrumentationScope().Name)
	assert.Equal(t, "claim_granted operation_completed", events(do))
	assert.Equal(t, "checkpoint_saved", events(spans["bank"]), "where it happened")
	assert.Empty(t, events(spans["request"]))
	record, err := b.Get(t.Context(), "order-1")
	require.NoError(t, err)
	assert.Equal(t, map[attribute.Key]any{
		idemotel.KeyHash:  b.KeyHash("order-1"),
		idemotel.Attempt:  int64(1),
		idemotel.Fence:    strconv.FormatUint(record.Fence, 10),
		idemotel.Outcome:  "operation_completed",
		idemotel.Replayed: false,
	}, values(do.Attributes()))
	assert.Equal(t, codes.Unset, do.Status().Code)
}

var errBank = errors.New("card 4111 refused")

// The span of Do says how it ended, whoever settled the claim.
func TestOutcomeOfDo(t *testing.T) {
	t.Parallel()
	type work = func(context.Context, idem.Claim) (string, error)
	never := func(context.Context, idem.Claim) (string, error) { panic("it must not run") }
	for name, c := range map[string]struct {
		before   func(t *testing.T, b *bench)
		work     func(b *bench) work
		outcome  string
		attempt  int64
		replayed bool
		status   string // empty: no error
	}{
		"replayed": {
			before: func(t *testing.T, b *bench) {
				require.NoError(t, b.Complete(t.Context(), b.claim(t), []byte(`"paid"`)))
			},
			work: func(*bench) work { return never }, outcome: "claim_replayed", attempt: 1, replayed: true,
		},
		"failed before": {
			before: func(t *testing.T, b *bench) { require.NoError(t, b.Fail(t.Context(), b.claim(t), []byte("no money"))) },
			work:   func(*bench) work { return never }, outcome: "claim_failed", attempt: 1, replayed: true, status: idem.ErrFailed.Error(),
		},
		"held before": {
			before: func(t *testing.T, b *bench) { require.NoError(t, b.Hold(t.Context(), b.claim(t), nil)) },
			work:   func(*bench) work { return never }, outcome: "claim_held", attempt: 1, status: idem.ErrHeld.Error(),
		},
		"taken over": {
			before: func(t *testing.T, b *bench) { b.claim(t); b.clock.Advance(time.Minute) },
			work: func(*bench) work {
				return func(context.Context, idem.Claim) (string, error) { return "paid", nil }
			}, outcome: "operation_completed", attempt: 2,
		},
		"released": {
			work: func(*bench) work {
				return func(context.Context, idem.Claim) (string, error) { return "", errBank }
			}, outcome: "operation_released", attempt: 1, status: "the work returned an error",
		},
		"failed": {
			work: func(*bench) work {
				return func(context.Context, idem.Claim) (string, error) { return "", idem.Permanent(errBank) }
			}, outcome: "operation_failed", attempt: 1, status: "the work returned an error",
		},
		"held by the work, which then returns an error without a mark": {
			work: func(b *bench) work {
				return func(ctx context.Context, c idem.Claim) (string, error) {
					return "", errors.Join(b.Hold(ctx, c.Token, nil), errBank)
				}
			}, outcome: "operation_held", attempt: 1, status: "the work returned an error",
		},
		"lost": {
			work: func(b *bench) work {
				return func(ctx context.Context, c idem.Claim) (string, error) {
					return "paid", b.Forget(context.Background(), c.Token)
				}
			}, outcome: "token_refused", attempt: 1, status: idem.ErrFenced.Error(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, idemotel.Observe)
			if c.before != nil {
				c.before(t, b)
			}
			ctx, root := b.Start(t.Context(), "request")
			_, _, err := idemotel.Do(ctx, b.Store, request, c.work(b))
			root.End()
			require.Equal(t, c.status == "", err == nil, "%v", err)
			do := b.ended(t)["idem.Do"]
			got := values(do.Attributes())
			assert.Equal(t, c.outcome, got[idemotel.Outcome])
			assert.Equal(t, c.attempt, got[idemotel.Attempt])
			assert.Equal(t, c.replayed, got[idemotel.Replayed])
			assert.Equal(t, c.status, do.Status().Description)
			assert.NotContains(t, fmt.Sprintf("%+v %+v", do.Attributes(), do.Events()), "4111")
			assert.NotContains(t, fmt.Sprintf("%+v %+v", do.Attributes(), do.Events()), "order-1")
		})
	}
}

func (b *bench) claim(t *testing.T) idem.Token {
	c, err := b.Claim(t.Context(), request)
	require.NoError(t, err)
	return c.Token
}

// What the work claims under other keys does not become the outcome of the Do.
func TestDoWithinDo(t *testing.T) {
	t.Parallel()
	b := newBench(t, idemotel.Observe)
	ctx, root := b.Start(t.Context(), "request")
	_, _, err := idemotel.Do(ctx, b.Store, request, func(ctx context.Context, own idem.Claim) (string, error) {
		done := b.Complete(ctx, own.Token, []byte(`"paid"`)) // so another's event is the last
		c, err := b.Claim(ctx, idem.Request{Key: "another"})
		return "paid", errors.Join(done, err, b.Hold(ctx, c.Token, nil))
	})
	require.NoError(t, err)
	root.End()
	do := b.ended(t)["idem.Do"]
	assert.Equal(t, "claim_granted operation_completed claim_granted operation_held", events(do))
	assert.Equal(t, b.KeyHash("order-1"), values(do.Attributes())[idemotel.KeyHash])
	assert.Equal(t, "operation_completed", values(do.Attributes())[idemotel.Outcome])
}

// A panic and a Goexit go on as they were, and the span ends as an error.
func TestSpanOfWorkThatDoesNotReturn(t *testing.T) {
	t.Parallel()
	for name, leave := range map[string]func(){
		"panic":  func() { panic("card 4111") },
		"Goexit": runtime.Goexit,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := newBench(t, idemotel.Observe)
			ctx, root := b.Start(t.Context(), "request")
			left := make(chan any, 1)
			go func() {
				defer func() { left <- recover() }()
				_, _, _ = idemotel.Do(ctx, b.Store, request, func(context.Context, idem.Claim) (int, error) { leave(); return 0, nil })
			}()
			if value := <-left; name == "panic" {
				require.Equal(t, "card 4111", value)
			} else {
				require.Nil(t, value)
			}
			root.End()
			do := b.ended(t)["idem.Do"]
			assert.Equal(t, codes.Error, do.Status().Code)
			assert.Equal(t, "operation_released", values(do.Attributes())[idemotel.Outcome])
			assert.NotContains(t, fmt.Sprintf("%+v", do.Events()), "4111")
		})
	}
}

// Without the observer, the span has what Do knows itself.
func TestDoWithoutObserver(t *testing.T) {
	t.Parallel()
	b := newBench(t, nil)
	ctx, root := b.Start(t.Context(), "request")
	_, _, err := idemotel.Do(ctx, b.Store, request, func(context.Context, idem.Claim) (int, error) { return 1, nil })
	require.NoError(t, err)
	root.End()
	assert.Equal(t, map[attribute.Key]any{
		idemotel.KeyHash: b.KeyHash("order-1"), idemotel.Replayed: false,
	}, values(b.ended(t)["idem.Do"].Attributes()))
}

// Without a span in the context, Do takes the global provider, which does nothing unless
// the program has set one.
func TestDoWithoutTracing(t *testing.T) {
	t.Parallel()
	b := newBench(t, idemotel.Observe)
	value, _, err := idemotel.Do(t.Context(), b.Store, request, func(context.Context, idem.Claim) (int, error) { return 1, nil })
	require.NoError(t, err)
	assert.Equal(t, 1, value)
	assert.Empty(t, b.spans.Ended())
}

// An event for a context without a span, or with one that is not sampled, costs nothing.
func TestObserveWithoutASpanDoesNotAllocate(t *testing.T) {
	notSampled, _ := sdk.NewTracerProvider(sdk.WithSampler(sdk.NeverSample())).Tracer("test").Start(context.Background(), "request")
	for name, ctx := range map[string]context.Context{"no span": context.Background(), "not sampled": notSampled} {
		e := idem.Event{Kind: idem.ClaimGranted, KeyHash: "0123456789abcdef", Fence: 1 << 60, Attempt: 1}
		assert.Zero(t, testing.AllocsPerRun(100, func() { idemotel.Observe(ctx, e) }), name)
	}
}

func BenchmarkObserve(b *testing.B) {
	provider := sdk.NewTracerProvider()
	recording, span := provider.Tracer("test").Start(context.Background(), "request")
	defer span.End()
	e := idem.Event{Kind: idem.ClaimGranted, KeyHash: "0123456789abcdef", Fence: 1 << 60, Attempt: 1}
	for name, ctx := range map[string]context.Context{"span=none": context.Background(), "span=recording": recording} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				idemotel.Observe(ctx, e)
			}
		})
	}
}
