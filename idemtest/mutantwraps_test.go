package idemtest_test

import (
	"context"
	"slices"
	"strconv"
	"strings"

	"github.com/idemkv/idem/engine"
)

// The wrappers below replace one method of the toy.
type (
	closing struct {
		*toy
		do func() error
	}
	applying struct {
		*toy
		do func(ctx context.Context, ops []engine.Op) error
	}
	binding struct {
		*toy
		do func(h engine.Host) (engine.Binding, error)
	}
	slowReader struct{ *toy }
	lateReader struct {
		*toy
		before map[string]*engine.Entry
	}
	healthy        struct{ *toy }
	noPlaces       struct{ *toy }
	byKey          struct{ *toy }
	allPlaces      struct{ *toy }
	scanTwice      struct{ *toy }
	scanByPosition struct{ *toy }
	scanText       struct{ *toy }
	scanLocked     struct {
		*toy
		locked bool
	}
)

func (b closing) Close() error { return b.do() }

func (b applying) Apply(ctx context.Context, ops []engine.Op) error { return b.do(ctx, ops) }

func (b binding) Bind(h engine.Host) (engine.Binding, error) { return b.do(h) }

func (b slowReader) Read(ctx context.Context, key string) (*engine.Entry, error) {
	b.turn <- struct{}{}
	defer func() { <-b.turn }()
	return b.toy.Read(ctx, key)
}

func (b *lateReader) Read(ctx context.Context, key string) (*engine.Entry, error) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	return b.before[key], nil
}

func (b healthy) Check(context.Context) error { return nil }

func (b noPlaces) Expiring(context.Context, engine.Due, engine.Instant, int) ([]engine.Due, error) {
	return nil, nil
}

func (b byKey) Expiring(ctx context.Context, from engine.Due, until engine.Instant, limit int) ([]engine.Due, error) {
	all, err := b.toy.Expiring(ctx, from, until, 1<<20)
	slices.SortFunc(all, func(x, y engine.Due) int { return strings.Compare(x.Key, y.Key) })
	return all[:min(limit, len(all))], err
}

func (b allPlaces) Expiring(ctx context.Context, from engine.Due, _ engine.Instant, limit int) ([]engine.Due, error) {
	return b.toy.Expiring(ctx, from, engine.Never, limit)
}

func (b scanTwice) Scan(ctx context.Context, prefix, cursor string) ([]engine.Scanned, string, error) {
	page, next, err := b.toy.Scan(ctx, prefix, cursor)
	if next != "" && len(page) > 1 {
		next = page[len(page)-2].Key
	}
	return page, next, err
}

func (b scanByPosition) Scan(ctx context.Context, prefix, cursor string) ([]engine.Scanned, string, error) {
	const pageSize = 20
	var all []engine.Scanned
	for at := ""; ; {
		page, next, err := b.toy.Scan(ctx, prefix, at)
		if err != nil {
			return nil, "", err
		}
		all = append(all, page...)
		if at = next; at == "" {
			break
		}
	}
	from, _ := strconv.Atoi(cursor)
	from = min(from, len(all))
	to := min(from+pageSize, len(all))
	if to == len(all) {
		return all[from:], "", nil
	}
	return all[from:to], strconv.Itoa(to), nil
}

func (b scanText) Scan(ctx context.Context, prefix, cursor string) ([]engine.Scanned, string, error) {
	page, next, err := b.toy.Scan(ctx, prefix, cursor)
	for i := range page {
		page[i].Key = strings.ToValidUTF8(page[i].Key, "?")
	}
	return page, next, err
}

// Scan holds the turn from its first page to its last.
func (b *scanLocked) Scan(ctx context.Context, prefix, cursor string) ([]engine.Scanned, string, error) {
	if !b.locked {
		b.locked = true
		b.turn <- struct{}{}
	}
	page, _, err := b.toy.Scan(ctx, prefix, cursor)
	if next := ""; len(page) > 0 {
		next = page[0].Key // a page is one entry
		return page[:1], next, err
	}
	b.locked = false
	<-b.turn
	return nil, "", err
}
