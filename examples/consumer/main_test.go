package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"
	"go.uber.org/goleak"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/consume"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func opened(t *testing.T, path string) (*bolt.Backend, *idem.Store) {
	t.Helper()
	backend, store, err := open(path)
	require.NoError(t, err)
	return backend, store
}

func restock(t *testing.T, b *bolt.Backend, item string, count uint64) {
	t.Helper()
	require.NoError(t, b.Update(t.Context(), func(tx *bbolt.Tx) error { return setStock(tx, item, count) }))
}

func left(t *testing.T, b *bolt.Backend, item string) (n uint64) {
	t.Helper()
	require.NoError(t, b.View(t.Context(), func(_ context.Context, tx *bbolt.Tx) error {
		n = stock(tx, item)
		return nil
	}))
	return n
}

// live runs four workers until the broker has made so many deliveries, or is empty. Then
// the store is closed under them, as if the process were killed: nothing is recorded after
// that, whatever they are doing.
func live(t *testing.T, store *idem.Store, q *broker, deliveries int) {
	consumer, err := newConsumer(store)
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			if err := work(ctx, q, consumer); !errors.Is(err, context.Canceled) {
				assert.ErrorIs(t, err, idem.ErrClosed)
			}
		})
	}
	assert.NoError(t, q.Until(ctx, deliveries))
	assert.NoError(t, store.Close())
	cancel()
	wg.Wait()
}

// Orders come in any order, several times, and again when an answer is lost; some are sent
// twice, and the worker dies again and again. Each is shipped once: of two pieces of its
// item, one is left. What cannot be shipped is parked.
func TestShippedOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) { // time passes only when everybody waits for it
		const orders, lives = 120, 6
		path := filepath.Join(t.TempDir(), "shipping.db")
		q := newBroker(50*time.Millisecond, 0.2)
		backend, store := opened(t, path)
		item := func(i int) string { return fmt.Sprint("book-", i) }
		for i := range orders {
			restock(t, backend, item(i), 2)
			for range 1 + i%2 {
				q.Send(fmt.Sprint("order-", i), fmt.Sprintf(`{"item":%q,"count":1}`, item(i)))
			}
		}
		q.Send("order-x", "two books, please")
		q.Send("order-y", `{"item":"globe","count":1}`)
		q.Send("", `{"item":"book-1","count":1}`)
		for life := range lives {
			if life > 0 {
				_, store = opened(t, path)
			}
			deliveries := (life + 1) * orders / lives
			if life == lives-1 {
				deliveries = math.MaxInt
			}
			live(t, store, q, deliveries)
		}
		backend, store = opened(t, path)
		for i := range orders {
			require.EqualValues(t, 1, left(t, backend, item(i)), "order-%d", i)
		}
		require.NoError(t, store.Close())
		require.Greater(t, q.delivered, orders*3/2+3, "some were delivered again")
		require.Equal(t, map[string]consume.Reason{"order-x": consume.Permanent, "order-y": consume.Exhausted, "": consume.NoID}, q.parked)
	})
}

// What main does: the second run ships nothing.
func TestRunTwice(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "shipping.db")
	for range 2 {
		q := &list{{ID: "1", Body: []byte(`{"item":"book","count":2}`)}, {ID: "1", Body: []byte(`{"item":"book","count":2}`)}, {ID: "2", Body: []byte(`{"item":"globe","count":1}`)}}
		require.ErrorIs(t, run(t.Context(), path, q), io.EOF)
		require.Empty(t, *q)
	}
}

// An order that cannot be shipped now is shipped when there is stock again, and one whose
// body changed is parked.
func TestShipLater(t *testing.T) {
	t.Parallel()
	backend, store := opened(t, filepath.Join(t.TempDir(), "shipping.db"))
	defer store.Close()
	consumer, err := newConsumer(store)
	require.NoError(t, err)
	restock(t, backend, "book", 2)
	ship := func(id string, count int) consume.Verdict {
		return consumer.Handle(t.Context(), message{ID: id, Body: fmt.Appendf(nil, `{"item":"book","count":%d}`, count)})
	}
	assert.Equal(t, "retry: failed: only 2 of book left", ship("1", 3).String())
	assert.Equal(t, "ack: processed", ship("2", 1).String())
	assert.Equal(t, consume.Mismatch, ship("2", 2).Reason)
	restock(t, backend, "book", 5)
	assert.Equal(t, "ack: processed", ship("1", 3).String())
	assert.Equal(t, "ack: duplicate", ship("1", 3).String())
	assert.EqualValues(t, 2, left(t, backend, "book"))
}

// The broker of these tests delivers again what is not answered, and takes no late answer.
func TestBroker(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newBroker(time.Minute, 0)
		go func() {
			time.Sleep(time.Second)
			q.Send("1", "")
		}()
		first, err := q.Receive(t.Context())
		require.NoError(t, err)
		sent := time.Now()
		second, err := q.Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "1", second.ID)
		assert.Equal(t, time.Minute, time.Since(sent))
		require.NoError(t, q.Ack(first))
		require.NoError(t, q.Return(second, time.Hour))
		third, err := q.Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, time.Minute+time.Hour, time.Since(sent))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		_, err = q.Receive(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, q.Park(third, consume.Held))
		require.NoError(t, q.Until(t.Context(), 100))
		assert.Equal(t, map[string]consume.Reason{"1": consume.Held}, q.parked)
	})
}
