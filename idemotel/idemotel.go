// Package idemotel shows in traces what became of a claim.
//
//	store, err := idem.New(backend, idem.Options{Observer: idemotel.Observe})
//
// With that line, each claim and settlement is an event on the span that is current where
// it happens: the server span of a request that idemhttp handles, the consumer span of a
// message, or your own. A trace then answers what an engineer asks first: was this a
// replay, which attempt ran, did it take the operation over, how did it end.
//
// Do is idem.Do within a span of its own, for work that has no span yet. The span covers
// the claim, the wait for a duplicate in flight, the work, and its completion. Spans that
// the work starts are its children.
//
// # A span for each claim
//
// Spans returns another observer. It makes a span named "idem.claim" of each claim, for
// tools that look for spans and pass over events:
//
//	spans := idemotel.Spans(nil)
//	Observer: func(ctx context.Context, e idem.Event) { idemotel.Observe(ctx, e); spans(ctx, e) }
//
// A span covers an attempt from its grant to its settlement. It is made when the attempt is
// settled, because the two calls may be days apart and in two processes: nothing is kept in
// between. So it is a child of the span that is current at the settlement, what the work
// started is next to it and not below, and an attempt whose process died has none; that of
// the attempt after it says so by its number. A refused claim has a span without length.
//
// # What is in them
//
// Names of events are those of idem.EventKind after "idem.": idem.claim_granted,
// idem.claim_replayed, idem.operation_completed and so on. Their attributes:
//
//	idem.key_hash   stands for the key; see idem.Store.KeyHash. Logs have the same one
//	idem.attempt    from 1
//	idem.fence      a string: the numbers are too large for what reads attributes as floats
//
// The spans of Do and Spans have the same attributes, and:
//
//	idem.outcome    the kind of its last event: claim_replayed, operation_completed, …
//	idem.replayed   of Do: whether an earlier call's value or failure was returned
//
// In Do the outcome claim_granted is that of an attempt whose end could not be recorded, and
// claim_in_flight with idem.replayed that of a duplicate that waited for the answer.
//
// Keys, fingerprints and payloads are not in spans, and neither are the texts of errors
// that the work returns.
//
// Look-ups in the cache, extensions of leases, commits and sweeps make no events. They are
// frequent, and idemprom counts them. To have both, call one observer after the other:
//
//	Observer: func(ctx context.Context, e idem.Event) { metrics.Observe(ctx, e); idemotel.Observe(ctx, e) }
package idemotel

import (
	"context"
	"slices"
	"strconv"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/idemkv/idem"
)

// The attributes of events and spans.
const (
	// KeyHash stands for the key: a string.
	KeyHash = attribute.Key("idem.key_hash")
	// Attempt is how many claims the operation was granted: an integer.
	Attempt = attribute.Key("idem.attempt")
	// Fence is the claim's: a string.
	Fence = attribute.Key("idem.fence")
	// Outcome is the kind of the last event of a span: a string.
	Outcome = attribute.Key("idem.outcome")
	// Replayed is whether a Do returned what an earlier call recorded: a boolean.
	Replayed = attribute.Key("idem.replayed")
)

const scope = "github.com/idemkv/idem/idemotel"

// Observe adds an event about a claim or a settlement to the span in ctx. It is an
// idem.Options.Observer. Without a span that records, it does nothing and allocates
// nothing.
func Observe(ctx context.Context, e idem.Event) {
	if !told(e.Kind) {
		return
	}
	span := trace.SpanFromContext(ctx)
	of, _ := ctx.Value(doKey{}).(*do)
	if of != nil && of.keyHash != e.KeyHash {
		of = nil // about another key, claimed by the work
	}
	if !span.IsRecording() && (of == nil || !of.span.IsRecording()) {
		return
	}
	attributes := attributesOf(e)
	span.AddEvent("idem."+e.Kind.String(), trace.WithAttributes(slices.Clip(attributes)...))
	if of != nil && e.Kind != idem.CheckpointSaved {
		of.span.SetAttributes(append(attributes, Outcome.String(e.Kind.String()))...)
	}
}

// attributesOf returns what an event and a span have in common, with room for one more.
func attributesOf(e idem.Event) []attribute.KeyValue {
	attributes := make([]attribute.KeyValue, 1, 4)
	attributes[0] = KeyHash.String(e.KeyHash)
	if e.Attempt > 0 { // zero: it is not known, or not shown
		attributes = append(attributes, Attempt.Int(e.Attempt))
	}
	if e.Fence > 0 {
		attributes = append(attributes, Fence.String(strconv.FormatUint(e.Fence, 10)))
	}
	return attributes
}

// told reports whether events of the kind are shown.
func told(kind idem.EventKind) bool {
	switch kind {
	case idem.LeaseExtended, idem.CacheHit, idem.CacheMiss,
		idem.SweepDone, idem.SweepFailed, idem.CommitDone, idem.StoreBroken:
		return false
	}
	return kind >= idem.ClaimGranted && kind <= idem.StoreBroken
}

// do is a Do under way; its context carries it to Observe.
type do struct {
	span    trace.Span
	keyHash string
}

type doKey struct{}

// Do is idem.Do in a span named "idem.Do". Without Observe as the store's observer, the
// span shows its key's hash and whether the value was replayed, and no more.
//
// The span is an error if Do returns one, refusals included. It comes from the
// TracerProvider of the span in ctx. If there is none, or if it is of another process, the
// span comes from the global provider.
func Do[T any](ctx context.Context, s *idem.Store, r idem.Request, fn func(context.Context, idem.Claim) (T, error)) (value T, replayed bool, err error) {
	provider := otel.GetTracerProvider()
	// A span that was propagated from another process has a provider that makes none.
	if parent := trace.SpanFromContext(ctx); parent.SpanContext().IsValid() && !parent.SpanContext().IsRemote() {
		provider = parent.TracerProvider()
	}
	keyHash := s.KeyHash(r.Key)
	ctx, span := provider.Tracer(scope).Start(ctx, "idem.Do", trace.WithAttributes(KeyHash.String(keyHash)))
	returned := false
	defer func() { // in a function: End called by defer would catch fn's panic and panic anew
		if !returned {
			span.SetStatus(codes.Error, "the work panicked or ended its goroutine")
		}
		span.End()
	}()
	value, replayed, err = idem.Do(context.WithValue(ctx, doKey{}, &do{span, keyHash}), s, r, fn)
	returned = true
	span.SetAttributes(Replayed.Bool(replayed))
	if err != nil {
		span.SetStatus(codes.Error, describe(err))
	}
	return value, replayed, err
}
