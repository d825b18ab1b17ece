package contenders

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func newRedis(t *testing.T, dir string) *redisServer {
	t.Helper()
	p, err := startRedis(dir, 2)
	if p == nil {
		require.ErrorIs(t, err, ErrAbsent)
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

// A server that cannot start says why, and one that dies makes the operations fail.
func TestRedisThatEnds(t *testing.T) {
	t.Parallel()
	in := open(t, redisCycles()[0], t.TempDir(), cycleWorkload(1))
	require.NoError(t, in.Op(0, 0))
	require.NoError(t, in.Close())

	dir := t.TempDir()
	p := newRedis(t, dir)
	require.NoError(t, p.cmd.Process.Kill())
	<-p.exited
	require.Error(t, p.client.Ping(context.Background()).Err())
	require.ErrorContains(t, p.close(), "killed")

	require.NoError(t, os.WriteFile(filepath.Join(dir, "appendonlydir", "appendonly.aof.manifest"), []byte("nonsense\n"), 0o600))
	_, err := startRedis(dir, 1)
	require.ErrorContains(t, err, "redis-server ended at once")
	require.ErrorContains(t, err, "AOF", "what the server said is in the error")
}

func TestRedisIsAbsent(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	for _, c := range append(redisCycles(), redisReads()) {
		_, err := c.Open(t.TempDir(), lookupWorkload(t, GetHit, 1))
		require.ErrorIs(t, err, ErrAbsent)
		require.ErrorContains(t, err, "redis-server")
	}
}
