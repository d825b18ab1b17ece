package txbackend

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/internal/codec"
)

// Scan implements engine.Scanner, in key order. The cursor is the last key of the page
// before.
func (b *Backend) Scan(ctx context.Context, prefix, cursor string) (page []engine.Scanned, next string, err error) {
	if err := ctx.Err(); err != nil {
		return nil, "", err
	}
	if err := b.err(); err != nil {
		return nil, "", err
	}
	from, to := []byte(prefix), prefixEnd(prefix)
	if cursor != "" {
		from = append([]byte(cursor), 0)
	}
	pairs, more, err := b.scan(Records, from, to, scanPage)
	if err != nil {
		return nil, "", err
	}
	if more {
		next = string(pairs[len(pairs)-1].Key)
	}
	read := make(map[string]image, len(pairs))
	for _, p := range pairs {
		key := string(p.Key)
		e, err := codec.DecodeRecord(key, p.Value)
		read[key] = image{entry: e, err: b.about(key, err)}
	}
	// As in Read, keys that a commit under way has changed are shown as they were. That
	// includes keys it removed or added within the page's bounds.
	b.gate.each(func(key string, was image) {
		if key >= string(from) && strings.HasPrefix(key, prefix) && (next == "" || key <= next) {
			read[key] = was
		}
	})
	page = make([]engine.Scanned, 0, len(read))
	for key, r := range read {
		if r.entry != nil || r.err != nil {
			page = append(page, engine.Scanned{Key: key, Entry: r.entry, Err: r.err})
		}
	}
	slices.SortFunc(page, func(a, b engine.Scanned) int { return strings.Compare(a.Key, b.Key) })
	return page, next, nil
}

// Expiring implements engine.Expirer. The places may include some of a commit under
// way: the sweep checks each record again.
func (b *Backend) Expiring(ctx context.Context, from engine.Due, until engine.Instant, limit int) (found []engine.Due, err error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if err := b.err(); err != nil {
		return nil, err
	}
	start, look := b.floor.begin(from)
	lower := codec.AppendPlace(nil, start)
	if look == nil {
		lower = append(lower, 0)
	}
	var upper []byte
	if until != engine.Never {
		upper = codec.AppendPlace(nil, engine.Due{At: until + 1})
	}
	if upper == nil || bytes.Compare(lower, upper) < 0 {
		found, err = b.places(lower, upper, limit)
	}
	if look != nil {
		b.floor.end(look, firstOf(found, until, err))
	}
	return found, err
}

// firstOf returns the first place found up to until, or else the place right after
// until.
func firstOf(found []engine.Due, until engine.Instant, err error) *engine.Due {
	switch {
	case err != nil:
		return nil
	case len(found) > 0:
		return &found[0]
	case until == engine.Never:
		return &engine.Due{At: until}
	}
	return &engine.Due{At: until + 1}
}

// places returns places of the index, in order.
func (b *Backend) places(lower, upper []byte, limit int) (found []engine.Due, err error) {
	for {
		pairs, more, err := b.scan(Expiry, lower, upper, limit)
		if err != nil {
			return nil, err
		}
		found := make([]engine.Due, 0, len(pairs))
		for _, p := range pairs {
			if d, ok := codec.DecodePlace(p.Key); ok {
				found = append(found, d)
			}
		}
		if len(found) > 0 || !more {
			return found, nil
		}
		lower = append(pairs[len(pairs)-1].Key, 0) // all were damaged, but the index goes on
	}
}

// scan reads one page and reports whether there may be more.
func (b *Backend) scan(space Space, from, to []byte, limit int) (pairs []Pair, more bool, err error) {
	defer b.guard(&err)
	pairs, err = b.engine.Scan(space, from, to, limit)
	if err != nil && aboutRecord(err) {
		return nil, false, fmt.Errorf("%s: scanning: %w", b.engine.Name(), err)
	}
	if err != nil {
		return nil, false, b.breakWith("scanning", err)
	}
	// In a damaged tree, the next page may lead back to an earlier one, forever.
	last := from
	for i, p := range pairs {
		if c := bytes.Compare(p.Key, last); c < 0 || c == 0 && i > 0 {
			err := fmt.Errorf("%w: keys are out of order; restore %s from a backup", engine.ErrCorrupt, b.engine.Name())
			if b.readOnly { // other keys may still be read
				return nil, false, err
			}
			return nil, false, b.breakWith("scanning", err)
		}
		last = p.Key
	}
	return pairs, len(pairs) > 0, nil
}

// prefixEnd returns the least key after all keys that begin with prefix; nil if there
// is none.
func prefixEnd(prefix string) []byte {
	end := []byte(prefix)
	for len(end) > 0 && end[len(end)-1] == 0xff {
		end = end[:len(end)-1]
	}
	if len(end) == 0 {
		return nil
	}
	end[len(end)-1]++
	return end
}
