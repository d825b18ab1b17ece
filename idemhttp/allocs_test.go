package idemhttp_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/idemhttp"
)

// A replay may allocate ten times more often than the handler alone. It takes three
// times in all, and now and then a buffer: the race detector has pools forget. A
// request that passes through allocates nothing. A first one, with its heartbeat and two
// commits, takes 32 times more than the handler, and a few more where pools forget. It is
// not parallel, because allocations are counted for the whole process.
func TestAllocs(t *testing.T) {
	wrap := func(o idemhttp.Options) http.Handler {
		return idemhttp.New(memoryStore(t, idem.Options{SweepInterval: -1}), idemhttp.GlobalScope, o)(payment)
	}
	measure := func(tr *trip, h http.Handler) float64 {
		tr.serve(h) // runs it, and fills pools
		return testing.AllocsPerRun(200, func() { tr.serve(h) })
	}
	bare := measure(newTrip(1000, uuid), payment)

	for name, key := range map[string]string{"bare": uuid, "quoted": `"` + uuid + `"`} {
		tr := newTrip(1000, key)
		got := measure(tr, wrap(idemhttp.Options{}))
		require.Equal(t, []string{"true"}, tr.w.header["Idempotent-Replayed"])
		require.Equal(t, len(receipt), tr.w.bytes)
		require.LessOrEqual(t, got, bare+3, name)
	}

	expired := idemhttp.New(memoryStore(t, idem.Options{SweepInterval: -1, Retention: 1}), idemhttp.GlobalScope, idemhttp.Options{})(payment)
	first := newTrip(1000, uuid)
	require.LessOrEqual(t, measure(first, expired), bare+40)
	require.Empty(t, first.w.header["Idempotent-Replayed"])

	noKey := newTrip(1000, uuid)
	noKey.r.Header.Del("Idempotency-Key")
	require.Equal(t, bare, measure(noKey, wrap(idemhttp.Options{})))
	get := newTrip(1000, uuid)
	get.r.Method = http.MethodGet
	require.Equal(t, bare, measure(get, wrap(idemhttp.Options{})))
}
