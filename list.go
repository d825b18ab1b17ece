package idem

import (
	"context"
	"encoding/base64"
	"slices"
	"strconv"
	"strings"

	"github.com/idemkv/idem/engine"
)

// Part says which part of a list Store.List returns.
type Part struct {
	// After is the Listing.Next of the part before. "" begins the list.
	After string
	// Limit is how many records to return at most. Zero: 100.
	Limit int
	// Look is how many stored records to look at, at most. It bounds the work where few
	// records match. Zero: 10,000.
	Look int
	// Match: only records that it returns true for. It is not asked about records that
	// cannot be read. nil: all.
	Match func(Record) bool
}

// Listing is part of a list of records.
type Listing struct {
	// Records are the records found, in no particular order. There may be none before
	// the end of the list.
	Records []Listed
	// Looked is how many stored records were looked at.
	Looked int
	// Next is the Part.After of the next part, "" at the end. It may contain a key in
	// readable form, so treat it as one.
	Next string
}

// Listed is a record of a list.
type Listed struct {
	Record
	// Err is ErrCorrupt or ErrVersion if the record cannot be read. Only its key is then
	// set.
	Err error
}

const (
	defaultPartLimit = 100
	defaultPartLook  = 10_000
)

// List returns one part of what Records yields, for lists that are shown page by page.
// A part takes bounded time, and nothing is held between two parts. A record that is
// live from the first part to the last is seen exactly once. Its slices are shared: do
// not change them.
//
// ErrInvalid is returned when p is out of range, when p.After is not from a list of this
// store, and when the engine cannot list its records.
func (s *Store) List(ctx context.Context, f Filter, p Part) (Listing, error) {
	if p.Limit < 0 || p.Look < 0 {
		return Listing{}, invalid("Part.Limit is %d and Part.Look %d; they cannot be negative", p.Limit, p.Look)
	}
	setDefault(&p.Limit, defaultPartLimit)
	setDefault(&p.Look, defaultPartLook)
	at, err := parsePlace(p.After)
	if err != nil {
		return Listing{}, err
	}
	sc, ok := s.backend.(engine.Scanner)
	if !ok {
		return Listing{}, invalid("%T cannot list its records", s.backend)
	}
	var out Listing
	full := func() bool { return len(out.Records) == p.Limit || out.Looked == p.Look }
	for !full() {
		if err := s.admit(ctx); err != nil {
			return Listing{}, err
		}
		now, toWall := s.time.now() // first, as in Get
		page, next, err := s.page(ctx, sc, f.Prefix, at.cursor)
		if err != nil {
			return Listing{}, err
		}
		// In the order of keys, a part can end within a page and the next one go on there,
		// even if the engine returns a page in another order each time.
		slices.SortFunc(page, func(a, b engine.Scanned) int { return strings.Compare(a.Key, b.Key) })
		for i := range page {
			if page[i].Key <= at.key {
				continue
			}
			if full() {
				break
			}
			at.key = page[i].Key
			out.Looked++
			if !strings.HasPrefix(at.key, f.Prefix) {
				continue
			}
			l, ok := s.pick(&f, &scanned{page[i], now, toWall})
			if ok && (l.Err != nil || p.Match == nil || p.Match(l.Record)) {
				out.Records = append(out.Records, l)
			}
		}
		switch {
		case len(page) > 0 && at.key < page[len(page)-1].Key: // full before the page's end
		case next == "":
			return out, nil
		default:
			at = place{cursor: next}
		}
	}
	out.Next = at.String()
	return out, nil
}

// place is where a list goes on: after key in the page of the engine that begins at
// cursor.
type place struct{ cursor, key string }

// String returns the place as Listing.Next.
func (p place) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(strconv.Itoa(len(p.cursor)) + ":" + p.cursor + p.key))
}

func parsePlace(text string) (place, error) {
	if text == "" {
		return place{}, nil
	}
	b, err := base64.RawURLEncoding.DecodeString(text)
	length, rest, found := strings.Cut(string(b), ":")
	n, nErr := strconv.Atoi(length)
	if err != nil || nErr != nil || !found || n < 0 || n > len(rest) {
		return place{}, invalid("Part.After is not the Next of a list; begin the list again")
	}
	return place{cursor: rest[:n], key: rest[n:]}, nil
}
