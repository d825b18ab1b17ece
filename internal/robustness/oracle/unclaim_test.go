package oracle

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/idemkv/idem"
)

// A store whose clock is not set counts less time after a crash. A record may be back that
// had expired when Unclaim found nothing to change, and a store that loses an Unclaim may
// look like that; but not if it counts all the time.
func TestUnclaimOfWhatHadExpired(t *testing.T) {
	t.Parallel()
	record := func() *Record {
		return &Record{State: idem.InFlight, Fence: 7, Attempt: 1, ClaimedAt: 10, LeaseUntil: 15, ExpiresAt: 20}
	}
	for name, c := range map[string]struct {
		unclaimed int64 // when it was answered
		loose, ok bool
	}{
		"expired, and the store counts less time": {30, true, true},
		"expired, and the store counts all time":  {30, false, false},
		"live, and the store counts all time":     {14, false, false},
	} {
		checker := NewChecker()
		if c.loose {
			checker.Loosen()
		}
		checker.Load([]*Event{
			{T: 1, Life: &Life{N: 1}},
			{T: 2, Audit: &Audit{Began: 2}},
			{T: 10, Call: &Op{ID: 1*idsPerLife + 1, Kind: Claim, Key: "key", Lease: 5, Retention: 5}},
			{T: 11, Return: &Answer{ID: 1*idsPerLife + 1, Err: OK, Record: record()}},
			{T: 12, Life: &Life{N: 2}},
			{T: 13, Audit: &Audit{Began: 13, Records: map[string]Record{"key": *record()}}},
			{T: 14, Call: &Op{ID: 2*idsPerLife + 1, Kind: Unclaim, Key: "key", Fence: 7}},
			{T: c.unclaimed, Return: &Answer{ID: 2*idsPerLife + 1, Err: OK}},
			{T: 40, Life: &Life{N: 3}},
			{T: 41, Audit: &Audit{Began: 41, Records: map[string]Record{"key": *record()}}},
		})
		err := checker.All()
		if c.ok {
			require.NoError(t, err, name)
		} else {
			require.ErrorContains(t, err, "after the crash the record of key", name)
		}
	}
}
