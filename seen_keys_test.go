package idem

import (
	"strings"
	"testing"
	"unsafe"

	"github.com/stretchr/testify/require"
)

// A key that is a piece of a request's body keeps no body alive, neither in the cache
// nor among the recent claims.
func TestKeptKeysAreCopied(t *testing.T) {
	t.Parallel()
	body := strings.Repeat("key in a large body ", 1000)
	key := body[:3]
	begin := uintptr(unsafe.Pointer(unsafe.StringData(body)))
	inBody := func(s string) bool {
		p := uintptr(unsafe.Pointer(unsafe.StringData(s)))
		return begin <= p && p < begin+uintptr(len(body))
	}

	c := newCache(roomy)
	_, version := c.get(key)
	c.fill(key, final(1), version)
	require.Equal(t, []string{key}, c.shard(key).lru.Keys())
	require.False(t, inBody(c.shard(key).lru.Keys()[0]), "filled")

	changes := newChanges()
	for range 2 { // new, and again when it is extended
		op := &Op{key: key, next: &Entry{State: InFlight, Fence: 7}}
		changes.recent.committed(op, changes.before(key))
		require.Equal(t, key, changes.recent.slot(7).Load().key)
		require.False(t, inBody(changes.recent.slot(7).Load().key))
	}
}
