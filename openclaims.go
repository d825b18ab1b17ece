package idem

import (
	"sync"
	"time"

	"github.com/idemkv/idem/engine"
)

// openClaims holds, by fence, the lease ends of claims in flight that this opening
// granted or extended.
type openClaims struct {
	shards  [openShards]openShard
	settled chan struct{} // gets a token when a claim is no longer in flight
}

const openShards = 32

type openShard struct {
	mu     sync.Mutex
	leases map[uint64]engine.Instant
}

func (o *openClaims) init() {
	o.settled = make(chan struct{}, 1)
	for i := range o.shards {
		o.shards[i].leases = make(map[uint64]engine.Instant)
	}
}

func (o *openClaims) shard(fence uint64) *openShard { return &o.shards[fence%openShards] }

// changed follows a change that can be read.
func (o *openClaims) changed(op *operation, epoch uint64) {
	open := func(e *engine.Entry) bool { return e != nil && e.State == InFlight && e.Epoch == epoch }
	was, is := open(op.prev), open(op.next)
	if is {
		s := o.shard(op.next.Fence)
		s.mu.Lock()
		s.leases[op.next.Fence] = op.next.LeaseUntil
		s.mu.Unlock()
	}
	if was && !(is && op.next.Fence == op.prev.Fence) {
		s := o.shard(op.prev.Fence)
		s.mu.Lock()
		delete(s.leases, op.prev.Fence)
		s.mu.Unlock()
		select {
		case o.settled <- struct{}{}:
		default:
		}
	}
}

// until returns the longest time that a claim may still be open. It is not positive if
// none is.
func (o *openClaims) until(now engine.Instant) time.Duration {
	latest := now
	for i := range o.shards {
		s := &o.shards[i]
		s.mu.Lock()
		for _, lease := range s.leases {
			latest = max(latest, lease)
		}
		s.mu.Unlock()
	}
	return time.Duration(latest - now)
}
