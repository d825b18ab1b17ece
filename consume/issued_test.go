package consume_test

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

// A message that comes back when its record has expired is put aside and not run, if the
// consumer is told how old it is.
func TestTooLateIsDead(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		e.clock.Advance(time.Minute)
		made, _ := e.clock.Now()
		times := map[string]time.Time{"1": made}
		o := messages()
		o.Retention = time.Hour
		o.IssuedAt = func(m message) time.Time { return times[m.id] }
		var runs []string
		c := e.consumer("billing", o, func(_ context.Context, m message) error {
			runs = append(runs, m.id)
			return nil
		})
		old, unknown := message{id: "1", body: "a"}, message{id: "2", body: "b"}
		for _, m := range []message{old, unknown} {
			gets(t, consume.Ack, consume.Processed, c.Handle(t.Context(), m))
			gets(t, consume.Ack, consume.Duplicate, c.Handle(t.Context(), m))
		}
		e.clock.Advance(time.Hour)
		v := c.HandleBatch(t.Context(), []message{old, unknown})
		gets(t, consume.Dead, consume.TooLate, v[0])
		require.ErrorIs(t, v[0].Err, idem.ErrTooLate)
		assert.Equal(t, "dead: too_late: "+idem.ErrTooLate.Error(), v[0].String())
		gets(t, consume.Ack, consume.Processed, v[1])
		gets(t, consume.Dead, consume.TooLate, c.Handle(t.Context(), old))
		assert.Equal(t, []string{"1", "2", "2"}, runs)
	})
}
