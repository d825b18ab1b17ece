package idem

import "github.com/idemkv/idem/engine"

// live reports whether e exists at now.
func live(e *engine.Entry, now engine.Instant) bool { return e != nil && now < e.ExpiresAt }

// lapsed reports whether e's lease no longer holds: it has run out, or it was granted
// before the first opening whose leases count.
func lapsed(e *engine.Entry, now engine.Instant, leasesFrom uint64) bool {
	return now >= e.LeaseUntil || e.Epoch < leasesFrom
}

// setExpiry sets ExpiresAt and keeps Due in step. It moves Due only to an earlier time:
// moving an index entry costs a write, while being early costs the sweeper one look.
// soonest is the earliest time at which the record can expire, as it is or as it may
// yet become.
func setExpiry(e *engine.Entry, at, soonest engine.Instant) {
	e.ExpiresAt = at
	switch {
	case at == engine.Never:
		e.Due = 0
	case e.Due == 0 || soonest < e.Due:
		e.Due = soonest
	}
}
