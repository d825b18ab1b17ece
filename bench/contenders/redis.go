package contenders

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
)

// Redis is the machine's own redis-server, started for each contender on a Unix socket,
// with appendfsync always: it answers a command after the sync of the log that has it,
// and clients that wait together share one. What costs and helps nothing here is off:
// snapshots, the rewriting of the log, the latency monitor.
const redisConfig = `
dir %s
unixsocket %s
unixsocketperm 700
port 0
daemonize no
supervised no
loglevel warning
databases 1
maxclients 4096
save ""
appendonly yes
appendfsync always
no-appendfsync-on-rewrite no
auto-aof-rewrite-percentage 0
latency-tracking no
`

// redisServer is a redis-server that belongs to this process, and its client.
type redisServer struct {
	client *redis.Client
	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the process, once exited
	output bytes.Buffer
	temp   string // directory of the socket, whose name must be short
}

// startRedis starts a server with its data in dir and waits until it answers. A caller
// never waits for another's connection if there is one for each.
func startRedis(dir string, connections int) (_ *redisServer, err error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("%w: no redis-server on this machine; Debian has it in the package redis-server", ErrAbsent)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	s := &redisServer{exited: make(chan struct{})}
	if s.temp, err = os.MkdirTemp("", "redis-"); err != nil {
		return nil, err
	}
	socket, config := filepath.Join(s.temp, "redis.sock"), filepath.Join(dir, "redis.conf")
	text := fmt.Sprintf(redisConfig, strconv.Quote(dir), strconv.Quote(socket))
	if err := os.WriteFile(config, []byte(text), 0o600); err != nil {
		return nil, errors.Join(err, os.RemoveAll(s.temp))
	}
	s.cmd = exec.Command(path, config)
	s.cmd.Stdout, s.cmd.Stderr = &s.output, &s.output
	endWithParent(s.cmd)
	started := make(chan error)
	go func() {
		defer close(s.exited)
		runtime.LockOSThread() // the server ends with the thread that started it
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.err = s.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", path, err), os.RemoveAll(s.temp))
	}
	s.client = redis.NewClient(&redis.Options{
		Network: "unix", Addr: socket,
		Protocol:     2, // a reply is then read without a look for notifications before it
		PoolSize:     connections,
		MaxRetries:   -1, // a command that fails fails, and is not sent twice
		ReadTimeout:  -2, // no deadline to set for each command
		WriteTimeout: -2,
		PoolTimeout:  time.Minute,

		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})
	err = s.waitReady()
	if err == nil {
		err = s.checkDurable()
	}
	if err != nil {
		return nil, errors.Join(err, s.close())
	}
	return s, nil
}

// waitReady asks until the server answers, its data loaded, or has exited.
func (s *redisServer) waitReady() error {
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		err := s.client.Ping(context.Background()).Err()
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return errors.New("redis-server ended at once")
		case <-deadline.C:
			return fmt.Errorf("redis-server did not answer within a minute: %w", err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// checkDurable asks the server whether it is what it was told to be.
func (s *redisServer) checkDurable() error {
	for name, want := range map[string]string{"appendonly": "yes", "appendfsync": "always"} {
		got, err := s.client.ConfigGet(context.Background(), name).Result()
		if err != nil {
			return fmt.Errorf("redis-server, CONFIG GET %s: %w", name, err)
		}
		if got[name] != want {
			return fmt.Errorf("redis-server has %s %q, not %q", name, got[name], want)
		}
	}
	return nil
}

// close ends the server, by force after a while, and waits for it.
func (s *redisServer) close() error {
	err := s.client.Close()
	_ = s.cmd.Process.Signal(os.Interrupt) // it may have ended by itself, which s.err tells
	timer := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
	<-s.exited
	timer.Stop()
	if s.err != nil {
		err = errors.Join(err, fmt.Errorf("redis-server: %w: %s", s.err, &s.output))
	}
	return errors.Join(err, os.RemoveAll(s.temp))
}

// redisCommands is the part of a client that a cycle needs.
type redisCommands interface {
	SetNX(ctx context.Context, key string, value any, expiration time.Duration) *redis.BoolCmd
	SetXX(ctx context.Context, key string, value any, expiration time.Duration) *redis.BoolCmd
}

func redisCycles() []Contender {
	cycle := func(name, does string, pipelined bool) Contender {
		return Contender{Name: name, Does: does, External: true, Open: opened(func(dir string, w Workload) (*redisServer, error) {
			if pipelined {
				return startRedis(dir, 1)
			}
			return startRedis(dir, w.Callers)
		}, func(s *redisServer, w Workload) (Instance, error) {
			commands := redisCommands(s.client)
			if pipelined {
				pipeline, err := s.client.AutoPipeline()
				if err != nil {
					return Instance{}, errors.Join(err, s.close())
				}
				commands = pipeline
			}
			ctx := context.Background()
			in, err := claimsAndCompletions(w, s.close, func(key string) error {
				return done(commands.SetNX(ctx, key, inFlight, lease), errTaken)
			}, func(key string, result []byte) error {
				return done(commands.SetXX(ctx, key, result, retention), errNotClaimed)
			})
			in.Pid = s.cmd.Process.Pid
			return in, err
		})}
	}
	return []Contender{
		cycle("redis", "SET NX PX, then SET XX PX, appendonly, appendfsync always, Unix socket; a connection for each caller", false),
		cycle("redis-pipelined", "the same through go-redis's AutoPipeline, which sends what callers ask for at once in one pipeline", true),
	}
}

// done returns otherwise unless the command did what it says.
func done(c *redis.BoolCmd, otherwise error) error {
	if ok, err := c.Result(); err != nil {
		return err
	} else if !ok {
		return otherwise
	}
	return nil
}

// redisReads looks keys up.
func redisReads() Contender {
	return Contender{
		Name: "redis", Does: "GET over a Unix socket, a connection for each caller", External: true,
		Open: opened(func(dir string, w Workload) (*redisServer, error) { return startRedis(dir, w.Callers) }, func(s *redisServer, w Workload) (Instance, error) {
			ctx := context.Background()
			if err := fillRedis(ctx, s.client, w); err != nil {
				return Instance{}, errors.Join(err, s.close())
			}
			in, err := lookups(w, 0, s.close, func(_ int, key string) (int, error) {
				v, err := s.client.Get(ctx, key).Bytes()
				if errors.Is(err, redis.Nil) {
					return absent, nil
				}
				return len(v), err
			})
			in.Pid = s.cmd.Process.Pid
			return in, err
		}),
	}
}

func fillRedis(ctx context.Context, c *redis.Client, w Workload) error {
	result := w.Result()
	for from := 0; from < w.Keys.Len(); from += FillBatch {
		pipe := c.Pipeline()
		for i := from; i < min(from+FillBatch, w.Keys.Len()); i++ {
			pipe.Set(ctx, w.Keys.Fill(i), result, retention)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
