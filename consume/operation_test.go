package consume_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	"github.com/idemkv/idem/consume"
	"github.com/idemkv/idem/engine"
)

// What an attempt knows of the ones before it.
func TestOperation(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		shown := map[string]int{}
		c := e.consumer("billing", messages(), func(ctx context.Context, m message) error {
			op := consume.FromContext(ctx)
			shown[op.DownstreamKey("charge")]++
			shown[op.DownstreamKey("mail")]++
			assert.Equal(t, idem.DownstreamKey(idem.JoinKey("consume", "billing", m.id), "mail"), op.DownstreamKey("mail"))
			switch op.Attempt() {
			case 1:
				assert.Nil(t, op.Checkpoint())
				point := []byte("charged")
				require.NoError(t, op.SaveCheckpoint(ctx, point))
				point[0] = 'X'
				assert.Equal(t, "charged", string(op.Checkpoint()))
				return errBank
			case 2:
				assert.Equal(t, "charged", string(op.Checkpoint()))
				require.NoError(t, e.Release(ctx, op.Token(), nil))
				require.Equal(t, idem.ErrFenced, op.SaveCheckpoint(ctx, []byte("more")))
				assert.Equal(t, "charged", string(op.Checkpoint()))
				return errBank
			}
			return nil
		})
		gets(t, consume.Retry, consume.Failed, c.Handle(t.Context(), m1))
		gets(t, consume.Retry, consume.Failed, c.Handle(t.Context(), m1))
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
		assert.Len(t, shown, 2)
		for _, n := range shown {
			assert.Equal(t, 3, n)
		}
	})
}

// Whoever appends to a checkpoint gets a copy: there is no room behind it to share.
func TestAppendingToACheckpointCopiesIt(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		clipped := func(op *consume.Operation) {
			point := op.Checkpoint()
			assert.Equal(t, "charged", string(point))
			assert.Equal(t, len(point), cap(point))
		}
		c := e.consumer("billing", messages(), func(ctx context.Context, _ message) error {
			op := consume.FromContext(ctx)
			if op.Attempt() == 1 {
				require.NoError(t, op.SaveCheckpoint(ctx, []byte("charged")))
				clipped(op)
				return errBank
			}
			clipped(op)
			return nil
		})
		gets(t, consume.Retry, consume.Failed, c.Handle(t.Context(), m1))
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
	})
}

func TestNoOperation(t *testing.T) {
	t.Parallel()
	op := consume.FromContext(t.Context())
	require.Nil(t, op)
	assert.Zero(t, op.Attempt())
	assert.Zero(t, op.Token())
	assert.Nil(t, op.Checkpoint())
	assert.Empty(t, op.DownstreamKey("x"))
	require.NoError(t, op.SaveCheckpoint(t.Context(), []byte("x")))
	assert.Zero(t, op.LogValue())
}

func TestOperationLogsNoKey(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", messages(), func(ctx context.Context, _ message) error {
			logged := consume.FromContext(ctx).LogValue().String()
			assert.Equal(t, fmt.Sprintf("[key_hash=%s attempt=1]", e.KeyHash("consume/billing/evt-1")), logged)
			return nil
		})
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
	})
}

// A handler may settle its own claim: with its writes in the same commit, above all.
func TestHandlerSettles(t *testing.T) {
	durable(t, idem.Options{}, func(t *testing.T, e *env) {
		var then error
		book := func(ctx context.Context, m message) error {
			err := bolt.Complete(ctx, e.Store, consume.FromContext(ctx).Token(), func(_ context.Context, tx *bbolt.Tx) ([]byte, error) {
				ledger, err := tx.CreateBucketIfNotExists([]byte("ledger"))
				if err != nil {
					return nil, err
				}
				seq, err := ledger.NextSequence()
				if err != nil {
					return nil, err
				}
				line, err := json.Marshal(seq)
				return []byte("booked"), errors.Join(err, ledger.Put(line, []byte(m.body)))
			})
			return errors.Join(err, then)
		}
		c := e.consumer("billing", messages(), book)
		gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m1))
		e.die()
		c = e.consumer("billing", messages(), book)
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m1))

		then = errBank
		m2 := message{"evt-2", "3.00"}
		v := c.Handle(t.Context(), m2)
		gets(t, consume.Ack, consume.Processed, v, "it is booked, whatever failed after that")
		require.ErrorIs(t, v.Err, errBank)
		gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m2))
		require.NoError(t, engine.Of(e.Store).(*bolt.Backend).DB().View(func(tx *bbolt.Tx) error {
			assert.Equal(t, 2, tx.Bucket([]byte("ledger")).Stats().KeyN)
			return nil
		}))

		for _, ends := range []error{nil, errBank} {
			m3 := message{"evt-3", fmt.Sprint(ends)}
			c = e.consumer(fmt.Sprint("fails ", ends), messages(), func(ctx context.Context, _ message) error {
				require.NoError(t, e.Fail(ctx, consume.FromContext(ctx).Token(), []byte("why")))
				return ends
			})
			v = c.Handle(t.Context(), m3)
			gets(t, consume.Dead, consume.Permanent, v)
			require.Error(t, v.Err)
		}
	})
}
