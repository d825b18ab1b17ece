package peers

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/idemkv/idem/bench"
)

// Redis is the machine's own redis-server, started for each contender on a Unix
// socket in a directory of its own, with appendfsync always: it answers a command
// after the sync of the log that has it, and clients that wait together share one.
// What costs and helps nothing here is off: snapshots, the rewriting of the log,
// the latency monitor.

// redisServer is a redis-server that belongs to this process.
type redisServer struct {
	Pid    int
	Socket string

	cmd    *exec.Cmd
	exited chan struct{}
	err    error // of the process, once exited
	output *bytes.Buffer
	temp   string // directory of the socket, "" if it is in the data's
}

// startRedis starts a server with its data in dir, and waits until it answers.
// bench.ErrAbsent is returned when the machine has no redis-server.
func startRedis(dir string) (*redisServer, error) {
	path, err := exec.LookPath("redis-server")
	if err != nil {
		return nil, fmt.Errorf("%w: no redis-server on this machine; Debian has it in the package redis-server", bench.ErrAbsent)
	}
	if dir, err = filepath.Abs(dir); err != nil {
		return nil, err
	}
	s := &redisServer{Socket: filepath.Join(dir, "redis.sock"), exited: make(chan struct{}), output: &bytes.Buffer{}}
	if len(s.Socket) > 100 { // the kernel takes 107 bytes
		if s.temp, err = os.MkdirTemp("", "redis-"); err != nil {
			return nil, err
		}
		s.Socket = filepath.Join(s.temp, "redis.sock")
	}
	config := filepath.Join(dir, "redis.conf")
	if err := os.WriteFile(config, []byte(redisConfig(dir, s.Socket)), 0o600); err != nil {
		return nil, errors.Join(err, s.removeTemp())
	}
	s.cmd = exec.Command(path, config)
	s.cmd.Stdout, s.cmd.Stderr = s.output, s.output
	endWithParent(s.cmd)
	started := make(chan error)
	go func() {
		defer close(s.exited)
		runtime.LockOSThread() // the server ends with the thread that started it: this one, which waits for it
		err := s.cmd.Start()
		started <- err
		if err == nil {
			s.err = s.cmd.Wait()
		}
	}()
	if err := <-started; err != nil {
		return nil, errors.Join(fmt.Errorf("starting %s: %w", path, err), s.removeTemp())
	}
	s.Pid = s.cmd.Process.Pid
	if err := s.waitReady(); err != nil {
		return nil, errors.Join(err, s.stop())
	}
	return s, nil
}

func redisConfig(dir, socket string) string {
	return fmt.Sprintf(`
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
`, strconv.Quote(dir), strconv.Quote(socket))
}

// waitReady asks until the server answers, its data loaded, or has exited.
func (s *redisServer) waitReady() error {
	deadline := time.NewTimer(time.Minute)
	defer deadline.Stop()
	for {
		err := s.ping()
		if err == nil {
			return nil
		}
		select {
		case <-s.exited:
			return fmt.Errorf("redis-server ended at once: %w: %s", s.err, s.output)
		case <-deadline.C:
			return fmt.Errorf("redis-server did not answer on %s within a minute: %w", s.Socket, err)
		case <-time.After(5 * time.Millisecond):
		}
	}
}

func (s *redisServer) ping() error {
	conn, err := net.Dial("unix", s.Socket)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && answer != "+PONG\r\n" {
		err = fmt.Errorf("it answered %q", answer)
	}
	return err
}

// stop ends the server, by force after a while, and waits for it.
func (s *redisServer) stop() error {
	_ = s.cmd.Process.Signal(os.Interrupt) // it may have ended by itself, which s.err tells
	timer := time.AfterFunc(10*time.Second, func() { _ = s.cmd.Process.Kill() })
	<-s.exited
	timer.Stop()
	err := s.err
	if err != nil {
		err = fmt.Errorf("redis-server: %w: %s", err, s.output)
	}
	return errors.Join(err, s.removeTemp())
}

func (s *redisServer) removeTemp() error {
	if s.temp == "" {
		return nil
	}
	return os.RemoveAll(s.temp)
}

// redisPeer is a server and its client.
type redisPeer struct {
	server *redisServer
	client *redis.Client
	once   sync.Once
	err    error
}

// openRedis starts a server and connects. A caller never waits for another's
// connection if there is one for each.
func openRedis(dir string, connections int) (*redisPeer, error) {
	server, err := startRedis(dir)
	if err != nil {
		return nil, err
	}
	p := &redisPeer{server: server, client: redis.NewClient(&redis.Options{
		Network: "unix", Addr: server.Socket,
		Protocol:     2, // a reply is then read without a look for notifications before it
		PoolSize:     connections,
		MinIdleConns: connections,
		MaxRetries:   -1, // a command that fails fails, and is not sent twice
		ReadTimeout:  -2, // no deadline to set for each command
		WriteTimeout: -2,
		PoolTimeout:  time.Minute,

		DisableIdentity:          true,
		MaintNotificationsConfig: &maintnotifications.Config{Mode: maintnotifications.ModeDisabled},
	})}
	if err := p.checkDurable(); err != nil {
		return nil, errors.Join(err, p.close())
	}
	return p, nil
}

// checkDurable asks the server whether it is what it was told to be.
func (p *redisPeer) checkDurable() error {
	for name, want := range map[string]string{"appendonly": "yes", "appendfsync": "always"} {
		got, err := p.client.ConfigGet(context.Background(), name).Result()
		if err != nil {
			return fmt.Errorf("redis-server, CONFIG GET %s: %w", name, err)
		}
		if got[name] != want {
			return fmt.Errorf("peers: redis-server has %s %q, not %q", name, got[name], want)
		}
	}
	return nil
}

func (p *redisPeer) close() error {
	p.once.Do(func() { p.err = errors.Join(p.client.Close(), p.server.stop()) })
	return p.err
}

// redisCommands is the part of a client that a cycle needs.
type redisCommands interface {
	SetNX(ctx context.Context, key string, value any, expiration time.Duration) *redis.BoolCmd
	SetXX(ctx context.Context, key string, value any, expiration time.Duration) *redis.BoolCmd
}

// redisPipelined has go-redis's AutoPipeline, which its makers advise for many
// callers, send what they ask for at once in one pipeline, by connections of its own.
const redisPipelined = "redis/pipelined"

func redisCycle(name, does string) bench.Contender {
	return bench.Contender{Name: name, Does: does, External: true, Open: func(dir string, w bench.Workload) (bench.Instance, error) {
		connections := w.Callers
		if name == redisPipelined {
			connections = 1
		}
		p, err := openRedis(dir, connections)
		if err != nil {
			return bench.Instance{}, err
		}
		commands := redisCommands(p.client)
		if name == redisPipelined {
			if commands, err = p.client.AutoPipeline(); err != nil {
				return bench.Instance{}, errors.Join(err, p.close())
			}
		}
		ctx, result := context.Background(), w.Result()
		return bench.Instance{
			Op: func(worker int, n uint64) error {
				key := bench.Fresh(worker, n)
				if done, err := commands.SetNX(ctx, key, inFlight, lease).Result(); err != nil {
					return err
				} else if !done {
					return errTaken
				}
				if done, err := commands.SetXX(ctx, key, result, retention).Result(); err != nil {
					return err
				} else if !done {
					return errNotClaimed
				}
				return nil
			},
			Pid:   p.server.Pid,
			Close: p.close,
		}, nil
	}}
}

func redisCycles() []bench.Contender {
	return []bench.Contender{
		redisCycle("redis", "SET NX PX, then SET XX PX, appendonly, appendfsync always, Unix socket; a connection for each caller"),
		redisCycle(redisPipelined, "the same through go-redis's AutoPipeline, which sends what callers ask for at once in one pipeline"),
	}
}

// redisReads looks keys up.
func redisReads() bench.Contender {
	return bench.Contender{
		Name: "redis", Does: "GET over a Unix socket, a connection for each caller", External: true,
		Open: func(dir string, w bench.Workload) (bench.Instance, error) {
			p, err := openRedis(dir, w.Callers)
			if err != nil {
				return bench.Instance{}, err
			}
			ctx := context.Background()
			if err := fillRedis(ctx, p.client, w); err != nil {
				return bench.Instance{}, errors.Join(err, p.close())
			}
			in := lookups(w, 0, p.close, func(_ int, key string) (int, error) {
				v, err := p.client.Get(ctx, key).Bytes()
				if errors.Is(err, redis.Nil) {
					return absent, nil
				}
				return len(v), err
			})
			in.Pid = p.server.Pid
			return in, nil
		},
	}
}

func fillRedis(ctx context.Context, c *redis.Client, w bench.Workload) error {
	result := w.Result()
	for from := 0; from < w.Keys.Len(); from += fillBatch {
		pipe := c.Pipeline()
		for i := from; i < min(from+fillBatch, w.Keys.Len()); i++ {
			pipe.Set(ctx, w.Keys.Fill(i), result, retention)
		}
		if _, err := pipe.Exec(ctx); err != nil {
			return err
		}
	}
	return nil
}
