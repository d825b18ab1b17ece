package peers

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem/bench"
)

func newRedis(t *testing.T, dir string) *redisPeer {
	t.Helper()
	p, err := openRedis(dir, 2)
	if p == nil {
		require.ErrorIs(t, err, bench.ErrAbsent)
		t.Skip(err)
	}
	require.NoError(t, err)
	t.Cleanup(func() { _ = p.close() })
	return p
}

// The server syncs before it answers, and does nothing at times of its own that a
// measurement would meet.
func TestRedisIsConfiguredAsSaid(t *testing.T) {
	t.Parallel()
	p := newRedis(t, t.TempDir())
	for name, want := range map[string]string{
		"appendonly": "yes", "appendfsync": "always", "no-appendfsync-on-rewrite": "no",
		"save": "", "auto-aof-rewrite-percentage": "0", "port": "0", "maxmemory": "0",
	} {
		got, err := p.client.ConfigGet(context.Background(), name).Result()
		require.NoError(t, err)
		require.Equal(t, map[string]string{name: want}, got)
	}
}

// A server that is not what it was told to be is refused.
func TestRedisThatDoesNotSyncIsRefused(t *testing.T) {
	t.Parallel()
	p := newRedis(t, t.TempDir())
	require.NoError(t, p.checkDurable())
	ctx := context.Background()
	require.NoError(t, p.client.ConfigSet(ctx, "appendfsync", "everysec").Err())
	require.ErrorContains(t, p.checkDurable(), "appendfsync")
	require.NoError(t, p.client.ConfigSet(ctx, "appendfsync", "always").Err())
	require.NoError(t, p.client.ConfigSet(ctx, "appendonly", "no").Err())
	require.ErrorContains(t, p.checkDurable(), "appendonly")
}

// A directory whose name is too long for a socket is no hindrance, and the socket's
// own is removed.
func TestRedisInALongDirectory(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), strings.Repeat("long", 30))
	require.NoError(t, os.Mkdir(dir, 0o700))
	p := newRedis(t, dir)
	require.NotContains(t, p.server.Socket, dir)
	require.NoError(t, p.close())
	require.NoDirExists(t, p.server.temp)
	require.FileExists(t, filepath.Join(dir, "appendonlydir", "appendonly.aof.1.incr.aof"), "the data is where it belongs")
}

// A server that cannot start says why, and one that dies makes the operations fail.
func TestRedisThatEnds(t *testing.T) {
	t.Parallel()
	in := open(t, redisCycles()[0], t.TempDir(), cycleWorkload(1))
	require.NoError(t, in.Op(0, 0))
	require.NoError(t, in.Close())

	dir := t.TempDir()
	p := newRedis(t, dir)
	require.NoError(t, p.server.cmd.Process.Kill())
	<-p.server.exited
	require.Error(t, p.client.Ping(context.Background()).Err())
	require.ErrorContains(t, p.close(), "killed")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "appendonlydir", "appendonly.aof.manifest"), []byte("nonsense\n"), 0o600))
	_, err := openRedis(dir, 1)
	require.ErrorContains(t, err, "redis-server ended at once")
	require.ErrorContains(t, err, "AOF", "what the server said is in the error")
}

func TestRedisIsAbsent(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, c := range append(redisCycles(), redisReads()) {
		_, err := c.Open(t.TempDir(), lookupWorkload(bench.GetHit, 1))
		require.ErrorIs(t, err, bench.ErrAbsent)
		require.ErrorContains(t, err, "redis-server")
	}
}
