package bench

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
)

func TestJumpClock(t *testing.T) {
	t.Parallel()
	c := newJumpClock()
	wall, elapsed := c.Now()
	fired := make(chan string, 3)
	c.AfterFunc(time.Hour, func() { fired <- "hour" })
	stop := c.AfterFunc(2*time.Hour, func() { fired <- "stopped" })
	late := c.AfterFunc(100*time.Hour, func() { fired <- "late" })
	assert.True(t, stop())
	assert.False(t, stop(), "it was stopped already")

	c.Jump(3 * time.Hour)
	assert.Equal(t, "hour", <-fired)
	wall2, elapsed2 := c.Now()
	assert.GreaterOrEqual(t, wall2.Sub(wall), 3*time.Hour)
	assert.GreaterOrEqual(t, elapsed2-elapsed, 3*time.Hour)
	assert.Less(t, elapsed2-elapsed, 4*time.Hour)

	c.AfterFunc(0, func() { fired <- "now" })
	assert.Equal(t, "now", <-fired, "without a jump the machine's clock does it")
	assert.Empty(t, fired)
	assert.True(t, late(), "its time has not come")
}
