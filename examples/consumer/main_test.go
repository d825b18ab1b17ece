package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"path/filepath"
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

// The whole demo, in a bubble where time passes only when everybody waits for it: it
// fails unless each order was shipped once.
func TestDemo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		require.NoError(t, demo(t.Context(), &out, filepath.Join(t.TempDir(), "s.db"), 120, 5), "%s", &out)
		assert.Contains(t, out.String(), "shipped once: 120, twice: 0, never: 0; stock: 120 left of 240")
		assert.Contains(t, out.String(), "order-x permanent, order-y exhausted, without an ID no_id")
	})
}

// The demo tells when it is wrong.
func TestDemoFindsWhatIsWrong(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "s.db")
		store, err := open(path, 10)
		require.NoError(t, err)
		require.NoError(t, backend(t, store).Update(t.Context(), func(tx *bbolt.Tx) error {
			shipped, err := tx.CreateBucket([]byte("shipped"))
			if err != nil {
				return err
			}
			return errors.Join(shipped.SetSequence(1), shipped.Put(number(1), []byte("order-3")))
		}))
		require.NoError(t, store.Close())
		var out bytes.Buffer
		require.ErrorContains(t, demo(t.Context(), &out, path, 10, 1), "not once each")
		assert.Contains(t, out.String(), "shipped once: 9, twice: 1, never: 0")
	})
}

// An order that cannot be shipped now is shipped when there is stock again, and one
// whose body changed is parked.
func TestShipLater(t *testing.T) {
	t.Parallel()
	store, err := open(filepath.Join(t.TempDir(), "s.db"), 1)
	require.NoError(t, err)
	defer store.Close()
	consumer, err := newShipping(store)
	require.NoError(t, err)
	ship := func(id, item string, n uint64) consume.Verdict {
		body, err := json.Marshal(order{item, n})
		require.NoError(t, err)
		return consumer.Handle(t.Context(), message{id, body})
	}
	assert.Equal(t, `retry: failed: only 2 of "book" left`, ship("1", "book", 3).String())
	assert.Equal(t, "ack: processed", ship("2", "book", 1).String())
	assert.Equal(t, consume.Mismatch, ship("2", "book", 2).Reason)
	require.NoError(t, backend(t, store).Update(t.Context(), func(tx *bbolt.Tx) error {
		return tx.Bucket([]byte("stock")).Put([]byte("book"), number(5))
	}))
	assert.Equal(t, "ack: processed", ship("1", "book", 3).String())
	assert.Equal(t, "ack: duplicate", ship("1", "book", 3).String())
	stock, shipped, err := read(store)
	require.NoError(t, err)
	assert.Equal(t, map[string]int{"book": 2}, stock)
	assert.Equal(t, map[string]int{"1": 1, "2": 1}, shipped)
}

// A delivery that is not answered comes again, and a late answer counts for nothing.
func TestQueue(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		q := newQueue(time.Minute, 0)
		go func() {
			time.Sleep(time.Second)
			q.Send(message{ID: "1"})
		}()
		first, m, err := q.Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "1", m.ID)
		sent := time.Now()
		second, m, err := q.Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, "1", m.ID)
		assert.Equal(t, time.Minute, time.Since(sent))
		require.NoError(t, q.Ack(first))
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		require.ErrorIs(t, q.Until(ctx, 3), context.DeadlineExceeded)
		_, _, err = q.Receive(ctx)
		require.ErrorIs(t, err, context.DeadlineExceeded)
		require.NoError(t, q.Return(second, time.Hour))
		third, _, err := q.Receive(t.Context())
		require.NoError(t, err)
		assert.Equal(t, time.Hour+time.Second, time.Since(sent)-time.Minute)
		require.NoError(t, q.Park(third, consume.Held, idem.ErrHeld))
		require.NoError(t, q.Until(t.Context(), 100))
		assert.Equal(t, map[string]consume.Reason{"1": consume.Held}, q.parked)
	})
}

func backend(t *testing.T, store *idem.Store) *bolt.Backend {
	t.Helper()
	b, err := bolt.From(store)
	require.NoError(t, err)
	return b
}
