package consume_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/consume"
)

// ordered are options with an Order.
func ordered(order consume.Order) consume.Options[message] {
	o := messages()
	o.Order = order
	return o
}

// A message that is to be retried stops those behind it: they are as if they had never
// been delivered.
func TestOrderStopsAtTheFirstFailure(t *testing.T) {
	each(t, idem.Options{MaxAttempts: 3}, func(t *testing.T, e *env) {
		busy := true
		var ran []string
		c := e.consumer("billing", ordered(consume.StopAtRetry), func(_ context.Context, m message) error {
			if ran = append(ran, m.id); m.id == "2" && busy {
				return errBank
			}
			return nil
		})
		batch := []message{{"1", ""}, {"2", ""}, {"3", ""}, {"", ""}, {"2", ""}}
		for range 2 {
			verdicts := c.HandleBatch(t.Context(), batch)
			assert.Equal(t, []string{"retry: failed", "retry: behind", "retry: behind", "retry: behind"}, decisions(verdicts[1:]))
			assert.Equal(t, consume.ErrBehind, verdicts[2].Err)
			assert.Zero(t, verdicts[2].Attempt)
			e.noRecord(key(t, c, batch[2]))
		}
		busy = false
		verdicts := c.HandleBatch(t.Context(), batch)
		assert.Equal(t, []string{"ack: duplicate", "ack: processed", "ack: processed", "dead: no_id", "ack: duplicate"}, decisions(verdicts))
		assert.Equal(t, 1, verdicts[2].Attempt)
		assert.Equal(t, []string{"1", "2", "2", "2", "3"}, ran)
		assert.Zero(t, e.clock.Pending())
	})
}

// What stops a batch: whatever is a Retry and, if it is told so, whatever is Dead.
func TestWhatStopsTheOrder(t *testing.T) {
	const passes, retry, dead = "ack: processed", "retry", "dead"
	for name, want := range map[string]string{
		"processed": passes, "duplicate": passes, "unprotected": passes,
		"failed": retry, "in flight": retry, "lost": retry, "unprotected fails": retry, "ctx": retry,
		"permanent": dead, "unknown": dead, "mismatch": dead, "exhausted": dead, "invalid": dead,
	} {
		for order, stops := range map[consume.Order][]string{consume.StopAtRetry: {retry}, consume.StopAtDead: {retry, dead}} {
			t.Run(fmt.Sprint(name, " ", order), func(t *testing.T) {
				each(t, idem.Options{}, func(t *testing.T, e *env) {
					ctx, cancel := context.WithCancel(t.Context())
					defer cancel()
					o := ordered(order)
					o.MaxAttempts = 2
					o.MissingID = consume.RunUnprotected
					o.Body, o.Fingerprint = nil, func(m message) (idem.Fingerprint, error) {
						if m.id == "invalid" {
							return idem.Fingerprint{}, errors.New("no JSON")
						}
						return idem.FingerprintOf([]byte(m.body)), nil
					}
					m := message{name, "x"}
					c := e.consumer("billing", o, func(ctx context.Context, m message) error {
						switch m.id + m.body {
						case "failedx", "exhaustedx", "unprotected fails":
							return errBank
						case "permanentx":
							return idem.Permanent(errBank)
						case "unknownx":
							return idem.Unknown(errBank)
						case "lostx":
							return e.Forget(ctx, idem.Token{Key: consume.FromContext(ctx).Token().Key})
						case "first":
							if name == "ctx" {
								cancel()
							}
						}
						return nil
					})
					switch name {
					case "duplicate":
						gets(t, consume.Ack, consume.Processed, c.Handle(ctx, m))
					case "exhausted":
						gets(t, consume.Retry, consume.Failed, c.Handle(ctx, m))
					case "mismatch":
						gets(t, consume.Ack, consume.Processed, c.Handle(ctx, message{name, "y"}))
					case "in flight":
						e.twin(c, m)
					case "unprotected", "unprotected fails":
						m = message{"", name}
					}
					verdicts := c.HandleBatch(ctx, []message{{"first", ""}, m, {"behind", ""}, {"last", ""}})
					assert.Equal(t, "ack: processed", verdicts[0].String())
					if !slices.Contains(stops, want) {
						assert.Equal(t, []string{"ack: processed", "ack: processed"}, decisions(verdicts[2:]))
						return
					}
					assert.Equal(t, want, verdicts[1].Decision.String())
					assert.Equal(t, []string{"retry: behind", "retry: behind"}, decisions(verdicts[2:]))
					assert.Equal(t, verdicts[1].After, verdicts[2].After)
					e.noRecord("consume/billing/behind")
				})
			})
		}
	}
}

// A message that repeats one of the batch has its verdict in its place.
func TestOrderOfRepeats(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		c := e.consumer("billing", ordered(consume.StopAtRetry), func(_ context.Context, m message) error {
			return map[string]error{"never": idem.Permanent(errBank), "busy": errBank}[m.id]
		})
		verdicts := c.HandleBatch(t.Context(), []message{{"1", ""}, {"1", ""}, {"never", ""}, {"never", ""}, {"busy", ""}, {"1", ""}, {"busy", ""}})
		assert.Equal(t, []string{
			"ack: processed", "ack: duplicate", "dead: permanent", "dead: permanent", "retry: failed", "retry: behind", "retry: behind",
		}, decisions(verdicts))
	})
}

// A message stops its own group, and no other. Nothing of that outlives the call.
func TestOrderOfGroups(t *testing.T) {
	each(t, idem.Options{}, func(t *testing.T, e *env) {
		busy := true
		var ran []string
		o := ordered(consume.StopAtRetry)
		o.Group = func(m message) string { return m.body }
		c := e.consumer("billing", o, func(_ context.Context, m message) error {
			if ran = append(ran, m.id); m.id == "1" && busy {
				return errBank
			}
			return nil
		})
		batch := []message{{"1", "a"}, {"2", "b"}, {"3", "a"}, {"", "a"}, {"4", "b"}, {"1", "a"}, {"5", ""}, {"", "b"}}
		assert.Equal(t, []string{
			"retry: failed", "ack: processed", "retry: behind", "retry: behind", "ack: processed", "retry: behind", "ack: processed", "dead: no_id",
		}, decisions(c.HandleBatch(t.Context(), batch)))
		assert.Equal(t, []string{"1", "2", "4", "5"}, ran)
		busy = false
		assert.Equal(t, []string{
			"ack: processed", "ack: duplicate", "ack: processed", "dead: no_id", "ack: duplicate", "ack: duplicate", "ack: duplicate", "dead: no_id",
		}, decisions(c.HandleBatch(t.Context(), batch)))
		assert.Equal(t, []string{"1", "2", "4", "5", "1", "3"}, ran)
	})
}

// A message in flight elsewhere is waited for in its turn, and those behind it wait too.
func TestOrderAndWait(t *testing.T) {
	for name, inTime := range map[string]bool{"in time": true, "too late": false} {
		t.Run(name, func(t *testing.T) {
			each(t, idem.Options{}, func(t *testing.T, e *env) {
				o := ordered(consume.StopAtRetry)
				o.Wait = wait
				c := e.consumer("billing", o, func(context.Context, message) error { return nil })
				twin := e.twin(c, message{"2", ""})
				answer := handling(t.Context(), c, message{"1", ""}, message{"2", ""}, message{"3", ""})
				e.clock.BlockUntil(2)
				assert.Equal(t, 2, e.clock.Pending(), "no heartbeat goes on")
				assert.Equal(t, idem.Completed, e.record("consume/billing/1").State)
				e.noRecord("consume/billing/3")
				if inTime {
					require.NoError(t, e.Complete(t.Context(), twin.Token, nil))
					assert.Equal(t, []string{"ack: processed", "ack: duplicate", "ack: processed"}, decisions(<-answer))
					return
				}
				e.clock.Advance(wait)
				verdicts := <-answer
				assert.Equal(t, []string{"ack: processed", "retry: in_flight", "retry: behind"}, decisions(verdicts))
				assert.Equal(t, lease-wait, verdicts[2].After)
			})
		})
	}
}

// A partition that is delivered in batches, with handlers that fail and a process that
// dies after the effect and before its record: every effect is that of the message
// before it or of the next one. The order never goes back.
func TestOrderHolds(t *testing.T) {
	durable(t, idem.Options{LapseOnOpen: true}, func(t *testing.T, e *env) {
		const n = 60
		var effects []int
		dies := false
		open := func() *consume.Consumer[message] {
			return e.consumer("billing", ordered(consume.StopAtRetry), func(_ context.Context, m message) error {
				if rand.IntN(6) == 0 {
					return errBank
				}
				var at int
				_, err := fmt.Sscan(m.id, &at)
				require.NoError(t, err)
				effects = append(effects, at)
				if dies = rand.IntN(12) == 0; dies {
					return e.Close()
				}
				return nil
			})
		}
		c := open()
		for committed := 0; committed < n; {
			var batch []message
			for i := committed; i < min(committed+1+rand.IntN(8), n); i++ {
				batch = append(batch, message{fmt.Sprint(i), ""})
			}
			dies = false
			verdicts := c.HandleBatch(t.Context(), batch)
			for _, v := range verdicts {
				if v.Decision == consume.Retry {
					break
				}
				committed++
			}
			if dies {
				e.open()
				c = open()
			}
		}
		at := 0
		for _, next := range effects {
			if next != at {
				require.Equal(t, at+1, next, "%v", effects)
			}
			at = next
		}
		assert.Equal(t, n-1, at)
	})
}
