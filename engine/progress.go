package engine

import "context"

// progressKey is the key of a context's progress function.
type progressKey struct{}

// WithProgress returns a context with which Backup, Verify and Compact report their
// progress: done of total bytes. progress is called from the goroutine of the call, often,
// and must be quick. total is an estimate that may change; the last call has done == total.
func WithProgress(ctx context.Context, progress func(done, total int64)) context.Context {
	return context.WithValue(ctx, progressKey{}, progress)
}

// Progress returns the function that ctx was given by WithProgress, or else one that does
// nothing.
func Progress(ctx context.Context) func(done, total int64) {
	if f, _ := ctx.Value(progressKey{}).(func(done, total int64)); f != nil {
		return f
	}
	return func(int64, int64) {}
}
