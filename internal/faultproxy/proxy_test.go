package faultproxy_test

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"errors"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/idemkv/idem/internal/faultproxy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// server answers each line with itself in capitals, and notes what it got.
type server struct {
	net.Listener
	wg  sync.WaitGroup
	got chan string // lines; what was not ended by one comes with a "…"
}

func serve(t *testing.T) *server {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	s := &server{Listener: l, got: make(chan string, 100)}
	s.wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			s.wg.Go(func() {
				defer c.Close()
				for lines := bufio.NewReader(c); ; {
					line, err := lines.ReadString('\n')
					if err != nil {
						if line != "" {
							s.got <- line + "…"
						}
						return
					}
					s.got <- line
					_, _ = c.Write([]byte(strings.ToUpper(line))) // the client may have gone
				}
			})
		}
	})
	t.Cleanup(func() { _ = l.Close(); s.wg.Wait() })
	return s
}

func listen(t *testing.T, target string, plan func(int) faultproxy.Plan) *faultproxy.Proxy {
	t.Helper()
	p, err := faultproxy.Listen(faultproxy.Options{Target: target, Plan: plan})
	require.NoError(t, err)
	t.Cleanup(func() {
		require.NoError(t, p.Close())
		require.NoError(t, p.Close(), "twice")
	})
	return p
}

type client struct {
	net.Conn
	lines *bufio.Reader
}

func dial(t *testing.T, p *faultproxy.Proxy) client {
	t.Helper()
	c, err := net.Dial("tcp", p.Addr())
	require.NoError(t, err)
	t.Cleanup(func() { _ = c.Close() })
	return client{c, bufio.NewReader(c)}
}

// ask sends a line and returns what comes back.
func (c client) ask(line string) (string, error) {
	if _, err := io.WriteString(c, line); err != nil {
		return "", err
	}
	return c.lines.ReadString('\n')
}

// Each fault strikes in the turn it is planned for, and there only.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		plan   faultproxy.Plan
		answer string // of the turn that is hit
		server string // what the server gets of it
	}{
		{faultproxy.Plan{Fault: faultproxy.DropRequest}, "", ""},
		{faultproxy.Plan{Fault: faultproxy.CutRequest, Bytes: 3}, "", "thr…"},
		{faultproxy.Plan{Fault: faultproxy.CutRequest, Bytes: 0}, "", ""},
		{faultproxy.Plan{Fault: faultproxy.DropWaiting}, "", "three\n"},
		{faultproxy.Plan{Fault: faultproxy.DropAnswer}, "", "three\n"},
		{faultproxy.Plan{Fault: faultproxy.CutAnswer, Bytes: 2}, "TH", "three\n"},
		{faultproxy.Plan{Fault: faultproxy.DelayRequest, Delay: time.Millisecond}, "THREE\n", "three\n"},
		{faultproxy.Plan{Fault: faultproxy.DelayAnswer, Delay: time.Millisecond}, "THREE\n", "three\n"},
		{faultproxy.Plan{Fault: faultproxy.Reorder, Delay: time.Millisecond}, "THREE\n", "three\n"},
	} {
		t.Run(c.plan.Fault.String(), func(t *testing.T) {
			t.Parallel()
			s := serve(t)
			c.plan.Turn = 2
			p := listen(t, s.Addr().String(), func(int) faultproxy.Plan { return c.plan })
			conn := dial(t, p)
			for _, line := range []string{"one\n", "two\n"} {
				got, err := conn.ask(line)
				require.NoError(t, err)
				require.Equal(t, strings.ToUpper(line), got)
				require.Equal(t, line, <-s.got)
			}
			require.Zero(t, p.Counts()[c.plan.Fault.String()])
			got, err := conn.ask("three\n")
			assert.Equal(t, c.answer, got)
			if strings.HasSuffix(c.answer, "\n") {
				require.NoError(t, err)
				_, err = conn.ask("four\n")
				require.NoError(t, err)
			} else {
				require.Error(t, err)
			}
			if c.server != "" {
				assert.Equal(t, c.server, <-s.got)
			}
			assert.Equal(t, 1, p.Counts()[c.plan.Fault.String()])
			assert.Equal(t, 1, p.Counts()["connections"])
		})
	}
}

func TestRefuse(t *testing.T) {
	t.Parallel()
	s := serve(t)
	p := listen(t, s.Addr().String(), func(n int) faultproxy.Plan {
		return faultproxy.Plan{Fault: faultproxy.Fault(min(1, n%2) * int(faultproxy.Refuse))}
	})
	for n := range 4 {
		conn, err := net.Dial("tcp", p.Addr())
		if err == nil { // the reset may come before it is dialed to the end
			_, err = client{conn, bufio.NewReader(conn)}.ask("a\n")
			require.NoError(t, conn.Close())
		}
		assert.Equal(t, n%2 == 0, err == nil, "connection %d: %v", n, err)
	}
	assert.Equal(t, 2, p.Counts()["refused"])
}

// A connection that is reset is an error to its peer, one that is closed an end.
func TestReset(t *testing.T) {
	t.Parallel()
	s := serve(t)
	for _, reset := range []bool{false, true} {
		p := listen(t, s.Addr().String(), func(int) faultproxy.Plan { return faultproxy.Plan{Fault: faultproxy.DropAnswer, Reset: reset} })
		_, err := dial(t, p).ask("a\n")
		require.Error(t, err)
		assert.Equal(t, !reset, errors.Is(err, io.EOF), "%v", err)
	}
}

// What is held back is overtaken by what comes later, and goes on then; it reaches
// the server even if its client has hung up.
func TestOrder(t *testing.T) {
	t.Parallel()
	s := serve(t)
	p := listen(t, s.Addr().String(), func(n int) faultproxy.Plan {
		if n == 0 {
			return faultproxy.Plan{Fault: faultproxy.Reorder, Delay: time.Hour}
		}
		return faultproxy.Plan{}
	})
	first := dial(t, p)
	_, err := io.WriteString(first, "first\n")
	require.NoError(t, err)
	for p.Counts()["reordered"] == 0 {
		runtime.Gosched()
	}
	require.NoError(t, first.Close())
	_, err = dial(t, p).ask("second\n")
	require.NoError(t, err)
	assert.Equal(t, "second\n", <-s.got)
	assert.Equal(t, "first\n", <-s.got)
}

// Whole streams pass unharmed, in both directions at once, with ends of their own.
func TestPass(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	sum := make(chan [32]byte, 1)
	var wg sync.WaitGroup
	wg.Go(func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		h := sha256.New()
		_, _ = io.Copy(h, c)
		sum <- [32]byte(h.Sum(nil))
		_, _ = c.Write([]byte("the end of the request was heard"))
		_ = c.Close()
	})
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	p := listen(t, l.Addr().String(), nil)
	conn := dial(t, p)
	data := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	_, err = conn.Write(data)
	require.NoError(t, err)
	require.NoError(t, conn.Conn.(*net.TCPConn).CloseWrite())
	got, err := io.ReadAll(conn)
	require.NoError(t, err)
	assert.Equal(t, "the end of the request was heard", string(got))
	assert.Equal(t, sha256.Sum256(data), <-sum)
}

// A server that is not there, and connections that Close meets in the middle.
func TestClose(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	nobody := l.Addr().String()
	require.NoError(t, l.Close())
	p := listen(t, nobody, nil)
	_, err = dial(t, p).ask("a\n")
	require.Error(t, err)

	s := serve(t)
	p = listen(t, s.Addr().String(), func(int) faultproxy.Plan { return faultproxy.Plan{Fault: faultproxy.DelayRequest, Delay: time.Hour} })
	held := dial(t, p)
	_, err = io.WriteString(held, "a\n")
	require.NoError(t, err)
	for p.Counts()["request delayed"] == 0 {
		runtime.Gosched()
	}
	require.NoError(t, p.Close())
	_, err = held.lines.ReadString('\n')
	require.Error(t, err)
	_, err = net.Dial("tcp", p.Addr())
	require.Error(t, err)
}

func TestSeeded(t *testing.T) {
	t.Parallel()
	const n = 20_000
	odds := faultproxy.Odds{Fault: 0.5, Turns: 3, MaxBytes: 100, MaxDelay: time.Second}
	plan, same, other := faultproxy.Seeded(7, odds), faultproxy.Seeded(7, odds), faultproxy.Seeded(8, odds)
	counts := map[faultproxy.Fault]int{}
	differ := 0
	for i := range n {
		a := plan(i)
		require.Equal(t, a, same(i))
		if a != other(i) {
			differ++
		}
		counts[a.Fault]++
		require.Less(t, a.Turn, 3)
		require.Less(t, a.Bytes, 100)
		require.Less(t, a.Delay, time.Second)
	}
	assert.Greater(t, differ, n/2)
	assert.InDelta(t, n/2, counts[faultproxy.None], n/40)
	assert.Len(t, counts, 10)
	for f, times := range counts {
		if f != faultproxy.None {
			assert.InDelta(t, n/18, times, n/90, f)
		}
	}
	a := faultproxy.Seeded(7, faultproxy.Odds{Fault: 1})(0)
	assert.Zero(t, a.Turn)
	assert.Equal(t, faultproxy.Plan{}, faultproxy.Seeded(7, faultproxy.Odds{})(0))
	assert.Equal(t, "fault(99)", faultproxy.Fault(99).String())
}
