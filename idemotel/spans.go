package idemotel

import (
	"context"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/idemkv/idem"
)

// Spans returns an idem.Options.Observer that makes a span of each claim, by provider, or
// by the global TracerProvider if provider is nil.
//
// The span of an attempt that was granted begins at its grant and ends when it is settled,
// undone, or refused because the claim was lost (token_refused; when that attempt began is
// not known). It is an error unless the operation was completed or the claim undone. A
// claim that was refused is none: replays and mismatches are answers. For a store in
// production, choose a sampler: a span costs more than the look-up it tells of.
func Spans(provider trace.TracerProvider) func(context.Context, idem.Event) {
	if provider == nil {
		provider = otel.GetTracerProvider()
	}
	tracer := provider.Tracer(scope)
	return func(ctx context.Context, e idem.Event) {
		failed, ends := claimEnds(e.Kind)
		if !ends {
			return
		}
		now := time.Now()
		_, span := tracer.Start(ctx, "idem.claim", trace.WithTimestamp(now.Add(-max(e.Duration, 0))))
		if span.IsRecording() {
			span.SetAttributes(append(attributesOf(e), Outcome.String(e.Kind.String()))...)
			if failed {
				span.SetStatus(codes.Error, "")
			}
		}
		span.End(trace.WithTimestamp(now))
	}
}

// claimEnds reports whether an event of the kind is the last one of a claim, and whether
// the claim's attempt failed.
func claimEnds(kind idem.EventKind) (failed, ends bool) {
	switch kind {
	case idem.ClaimReplayed, idem.ClaimInFlight, idem.ClaimMismatch, idem.ClaimFailed, idem.ClaimHeld,
		idem.ClaimExhausted, idem.ClaimFull, idem.ClaimTooLate,
		idem.OperationCompleted, idem.OperationUnclaimed:
		return false, true
	case idem.OperationFailed, idem.OperationReleased, idem.OperationHeld, idem.TokenRefused:
		return true, true
	}
	return false, false
}
