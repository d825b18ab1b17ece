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

// What an attempt knows of the ones before it, and what of it may be logged. Whoever appends
// to a checkpoint gets a copy: there is no room behind it to share.
func TestOperation(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		shown := map[string]int{}
		charged := func(op *consume.Operation) {
			point := op.Checkpoint()
			assert.Equal(t, "charged", string(point))
			assert.Equal(t, len(point), cap(point))
		}
		c := e.consumer("billing", messages(), func(ctx context.Context, m message) error {
			op := consume.FromContext(ctx)
			shown[op.DownstreamKey("charge")]++
			shown[op.DownstreamKey("mail")]++
			assert.Equal(t, idem.DownstreamKey(idem.JoinKey("consume", "billing", m.id), "mail"), op.DownstreamKey("mail"))
			logged := fmt.Sprintf("[key_hash=%s attempt=%d]", e.KeyHash("consume/billing/evt-1"), op.Attempt())
			assert.Equal(t, logged, op.LogValue().String())
			for _, format := range []string{"%v", "%+v", "%#v", "%s", "%q"} {
				assert.NotContains(t, fmt.Sprintf(format, op), "evt-1")
			}
			switch op.Attempt() {
			case 1:
				assert.Nil(t, op.Checkpoint())
				point := []byte("charged")
				require.NoError(t, op.SaveCheckpoint(ctx, point))
				point[0] = 'X'
				charged(op)
				return errBank
			case 2:
				charged(op)
				require.NoError(t, e.Release(ctx, op.Token(), nil))
				require.Equal(t, idem.ErrFenced, op.SaveCheckpoint(ctx, []byte("more")))
				charged(op)
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
	assert.Equal(t, "operation(none)", fmt.Sprint(op))
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
	})
}
