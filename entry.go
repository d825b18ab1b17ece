package idem

import "github.com/idemkv/idem/engine"

// live reports whether e exists at now.
func live(e *engine.Entry, now engine.Instant) bool { return e != nil && now < e.ExpiresAt }

// lapsed reports whether e's lease no longer holds: its time is over, or it was
// given before the opening from which on leases count.
func lapsed(e *engine.Entry, now engine.Instant, leasesFrom uint64) bool {
	return now >= e.LeaseUntil || e.Opening < leasesFrom
}

// setExpiry sets ExpiresAt and keeps Due in step: moved only if it must be
// earlier, because moving an index entry costs a write and being early costs the
// sweeper one look. soonest is the earliest time at which the record, as it is
// or as it may yet become, can expire.
func setExpiry(e *engine.Entry, at, soonest engine.Instant) {
	e.ExpiresAt = at
	switch {
	case at == engine.Never:
		e.Due = 0
	case e.Due == 0 || soonest < e.Due:
		e.Due = soonest
	}
}
