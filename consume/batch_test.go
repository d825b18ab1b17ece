package consume_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/internal/storetest"
	"github.com/idemkv/idem/memory"
)

// Each on its own merits and in order, one commit to claim and one to complete.
func TestBatch(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		var ran []string
		c := e.consumer("billing", messages(), func(ctx context.Context, m message) error {
			require.Equal(t, 1, consume.FromContext(ctx).Attempt())
			ran = append(ran, m.id)
			return nil
		})
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), message{"done", "x"}))
		_, err := e.Claim(t.Context(), idem.Request{Key: key(t, c, message{"in flight", "x"})})
		require.NoError(t, err)
		ran = nil

		before := e.commits()
		verdicts := c.HandleBatch(t.Context(), []message{
			{"a", "x"}, {"done", "x"}, {"b", "x"}, {"a", "x"}, {"", "x"}, {"in flight", "x"}, {"done", "y"}, {"b", "y"}, {"c", "x"}, {"in flight", "x"},
		})
		assert.Equal(t, []string{
			"ack: processed", "ack: duplicate", "ack: processed", "ack: duplicate", "dead: no_id", "retry: in_flight",
			"dead: mismatch", "dead: mismatch", "ack: processed", "retry: in_flight",
		}, decisions(verdicts))
		assert.Equal(t, []string{"a", "b", "c"}, ran)
		assert.Equal(t, uint64(2), e.commits()-before)
		assert.Zero(t, e.clock.Pending())

		before = e.commits()
		verdicts = c.HandleBatch(t.Context(), []message{{"a", "x"}, {"b", "x"}, {"c", "x"}})
		assert.Equal(t, []string{"ack: duplicate", "ack: duplicate", "ack: duplicate"}, decisions(verdicts))
		assert.Zero(t, e.commits()-before, "duplicates cost no commit")

		assert.Empty(t, c.HandleBatch(t.Context(), nil))
	})
}

// One that fails stops none after it, and what repeats it gets its verdict.
func TestBatchWithFailures(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		runs := 0
		c := e.consumer("billing", messages(), func(_ context.Context, m message) error {
			runs++
			switch m.id {
			case "busy":
				e.clock.BlockUntil(5)
				return errBank
			case "never":
				return idem.Permanent(errBank)
			case "who knows":
				return idem.Unknown(errBank)
			case "b":
				assert.Equal(t, 2, e.clock.Pending(), "those that failed are extended no more")
			}
			return nil
		})
		verdicts := c.HandleBatch(t.Context(), []message{
			{"busy", ""}, {"a", ""}, {"never", ""}, {"busy", ""}, {"who knows", ""}, {"never", ""}, {"b", ""},
		})
		assert.Equal(t, []string{
			"retry: failed", "ack: processed", "dead: permanent", "retry: failed", "dead: held", "dead: permanent", "ack: processed",
		}, decisions(verdicts))
		assert.Equal(t, errBank, verdicts[3].Err)
		assert.Equal(t, 5, runs)
	})
}

// What runs unprotected runs in its turn.
func TestBatchUnprotected(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		o := messages()
		o.MissingID = consume.RunUnprotected
		var ran []string
		c := e.consumer("billing", o, func(_ context.Context, m message) error {
			ran = append(ran, m.body)
			return nil
		})
		verdicts := c.HandleBatch(t.Context(), []message{{"", "1"}, {"a", "2"}, {"", "1"}, {"b", "3"}})
		assert.Equal(t, []string{"ack: unprotected", "ack: processed", "ack: unprotected", "ack: processed"}, decisions(verdicts))
		assert.Equal(t, []string{"1", "2", "1", "3"}, ran)
		before := e.commits()
		c.HandleBatch(t.Context(), []message{{"", "1"}, {"", "1"}})
		assert.Zero(t, e.commits()-before)
	})
}

// A batch over the store's MaxBatch is handled in parts; nothing is left out.
func TestBatchOverMaxBatch(t *testing.T) {
	each(t, idem.Options{MaxBatch: 7}, func(t *testing.T, e *env) {
		h := &handler{}
		c := e.billing(h)
		var batch []message
		for i := range 20 {
			batch = append(batch, message{fmt.Sprint(i % 18), ""})
		}
		before := e.commits()
		verdicts := c.HandleBatch(t.Context(), batch)
		for i, v := range verdicts {
			want := consume.Processed
			if i >= 18 {
				want = consume.Duplicate
			}
			gets(t, consume.Ack, want, v, i)
		}
		assert.Equal(t, int64(18), h.all.Load())
		assert.Equal(t, uint64(6), e.commits()-before)
	})
}

// The claims of those that wait their turn are held too.
func TestBatchHeartbeat(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		var c *consume.Consumer[message]
		c = e.consumer("billing", messages(), func(ctx context.Context, m message) error {
			if m.id != "0" {
				return nil
			}
			for range 6 {
				e.clock.BlockUntil(5)
				before := e.commits()
				e.clock.Advance(lease / 3)
				e.clock.BlockUntil(5) // all of them have been extended, and wait again
				assert.NotZero(t, e.commits()-before)
			}
			for i := range 5 {
				gets(t, consume.Retry, consume.InFlight, c.Handle(ctx, message{fmt.Sprint(i), ""}))
			}
			return nil
		})
		var batch []message
		for i := range 5 {
			batch = append(batch, message{fmt.Sprint(i), ""})
		}
		for _, v := range c.HandleBatch(t.Context(), batch) {
			gets(t, consume.Ack, consume.Processed, v)
			assert.Equal(t, 1, v.Attempt)
		}
		assert.Zero(t, e.clock.Pending())
	})
}

// A claim that is lost before its turn is not run.
func TestBatchClaimLostBeforeItsTurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := storetest.Open(t, memory.New(memory.Options{}), idem.Options{})
		c, err := consume.New(s, "billing", func(ctx context.Context, m message) error {
			require.NotEqual(t, "2", m.id, "it is another's")
			if m.id == "1" {
				require.NoError(t, s.Forget(ctx, idem.Token{Key: "consume/billing/2"}))
				second, err := s.Claim(ctx, idem.Request{Key: "consume/billing/2"})
				require.NoError(t, err)
				time.Sleep(lease)
				require.NoError(t, s.Complete(ctx, second.Token, nil))
			}
			return nil
		}, messages())
		require.NoError(t, err)
		verdicts := c.HandleBatch(t.Context(), []message{{"1", ""}, {"2", ""}, {"3", ""}})
		assert.Equal(t, []string{"ack: processed", "retry: unavailable", "ack: processed"}, decisions(verdicts))
		require.ErrorIs(t, verdicts[1].Err, idem.ErrFenced)
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), message{"2", ""}))
	})
}

// The store breaks in mid-batch: nothing that is not recorded is acknowledged, and no
// handler begins whose end cannot be recorded.
func TestBatchStoreBreaks(t *testing.T) {
	t.Parallel()
	b := storetest.NewRich()
	s := storetest.Open(t, b, idem.Options{})
	o := messages()
	o.MissingID = consume.RunUnprotected
	unprotected := 0
	c, err := consume.New(s, "billing", func(_ context.Context, m message) error {
		switch m.id {
		case "2":
			b.Breaking.Store(true)
			return errBank
		case "3", "4":
			t.Error("it was run for nothing")
		case "":
			unprotected++
		}
		return nil
	}, o)
	require.NoError(t, err)
	verdicts := c.HandleBatch(t.Context(), []message{{"1", ""}, {"2", ""}, {"3", ""}, {"", "x"}, {"4", ""}})
	assert.Equal(t, []string{"retry: unrecorded", "retry: unrecorded", "retry: unavailable", "ack: unprotected", "retry: unavailable"}, decisions(verdicts))
	require.Equal(t, 1, unprotected)
	for i, v := range verdicts {
		if v.Reason != consume.Unprotected {
			require.ErrorIs(t, v.Err, idem.ErrBroken, i)
		}
	}
}

// Many workers, a broker that delivers everything several times,
// in any order and in batches of any size, handlers that fail now and then, and on
// bolt a process that dies again and again: in the end every message has been
// processed once, and none acknowledged before.
func TestQueue(t *testing.T) {
	each(t, idem.Options{LapseOnOpen: true}, func(t *testing.T, e *env) {
		const n, workers = 150, 4
		q := &queue{left: map[message]int{}, processed: map[message]int{}}
		for i := range n {
			q.left[message{fmt.Sprint("evt-", i), fmt.Sprint("body ", i)}] = 1 + i%3
		}
		lives := 1
		if e.path != "" {
			lives = 4
		}
		for life := range lives {
			c := e.consumer("billing", messages(), func(_ context.Context, m message) error {
				if rand.IntN(5) == 0 {
					return errBank
				}
				q.process(m)
				return nil
			})
			var wg sync.WaitGroup
			for w := range workers {
				wg.Go(func() {
					rounds := 0
					for {
						batch := q.take(1 + (w+life)%4*3)
						if len(batch) == 0 || life < lives-1 && rounds == 6 {
							return
						}
						rounds++
						for i, v := range c.HandleBatch(context.Background(), batch) {
							q.answer(t, batch[i], v)
						}
					}
				})
			}
			wg.Wait()
			if life < lives-1 {
				e.die()
			}
		}
		assert.Empty(t, q.left)
		assert.Len(t, q.processed, n)
		for m, times := range q.processed {
			assert.Equal(t, 1, times, m)
		}
	})
}

// queue delivers each message as often as left says, and again until it is acknowledged.
type queue struct {
	mu        sync.Mutex
	left      map[message]int
	processed map[message]int
}

func (q *queue) take(n int) (batch []message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for m := range q.left { // in any order
		batch = append(batch, m)
		if rand.IntN(4) == 0 {
			batch = append(batch, m)
		}
		if len(batch) >= n {
			break
		}
	}
	return slices.Clip(batch)
}

func (q *queue) process(m message) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.processed[m]++
}

func (q *queue) answer(t *testing.T, m message, v consume.Verdict) {
	q.mu.Lock()
	defer q.mu.Unlock()
	switch v.Decision {
	case consume.Ack:
		assert.Equal(t, 1, q.processed[m], "acknowledged: %v", v)
		if q.left[m]--; q.left[m] <= 0 {
			delete(q.left, m)
		}
	case consume.Retry:
		assert.Contains(t, []consume.Reason{consume.Failed, consume.InFlight}, v.Reason, v)
	default:
		t.Errorf("%v", v)
	}
}
