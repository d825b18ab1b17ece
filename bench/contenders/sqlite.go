package contenders

import (
	"context"
	"database/sql"
	"errors"
	"net/url"
	"path/filepath"
	"sync"
	"time"

	_ "modernc.org/sqlite" // the driver
)

// SQLite is configured as its documentation says for many writers in one process:
// write-ahead log, one connection that writes (it has one writer at a time anyway,
// and those that wait here need not poll for the lock), prepared statements, a
// table that is its own index. In WAL mode it is synchronous=FULL that syncs at
// every commit; NORMAL, which is often recommended, loses the last ones when the
// power fails. There is no index on expires_at, which an expiry would need: that
// is to SQLite's advantage. The log is copied into the database after 1,000 pages, as
// SQLite has it: 4,000, 8,000 and 32,000 were no faster here.

const sqliteSchema = `
	CREATE TABLE IF NOT EXISTS claims (
		key BLOB PRIMARY KEY, state INTEGER NOT NULL, fence INTEGER NOT NULL,
		expires_at INTEGER NOT NULL, result BLOB
	) WITHOUT ROWID`

const (
	sqliteClaim    = `INSERT INTO claims (key, state, fence, expires_at) VALUES (?, 1, ?, ?) ON CONFLICT (key) DO NOTHING`
	sqliteComplete = `UPDATE claims SET state = 2, result = ?, expires_at = ? WHERE key = ? AND state = 1 AND fence = ?`
	sqliteGet      = `SELECT result, state, expires_at FROM claims WHERE key = ?`
	sqliteStored   = `INSERT INTO claims (key, state, fence, expires_at, result) VALUES (?, 2, 1, ?, ?)`
)

// openSQLite opens a database. exclusive keeps the file lock, and the index of the
// log in memory instead of in a shared file, which makes writes faster and other
// connections impossible.
func openSQLite(dir string, connections int, exclusive bool) (*sql.DB, error) {
	query := url.Values{"_txlock": {"immediate"}, "_pragma": {
		"busy_timeout(10000)",
		"cache_size(-65536)", // 64 MiB, as Pebble's block cache
		"mmap_size(1073741824)",
		"temp_store(MEMORY)",
	}}
	if exclusive {
		query.Add("_pragma", "locking_mode(EXCLUSIVE)") // before the log is first used
	}
	query.Add("_pragma", "journal_mode(WAL)")
	query.Add("_pragma", "synchronous(FULL)")
	path, err := filepath.Abs(filepath.Join(dir, "claims.sqlite"))
	if err != nil {
		return nil, err
	}
	name := url.URL{Scheme: "file", Path: filepath.ToSlash(path), RawQuery: query.Encode()}
	db, err := sql.Open("sqlite", name.String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(connections)
	db.SetMaxIdleConns(connections)
	if _, err := db.Exec(sqliteSchema); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}

// sqliteWriter is the connection that writes.
type sqliteWriter struct {
	mu              sync.Mutex
	db              *sql.DB
	claim, complete *sql.Stmt
}

func openSQLiteWriter(dir string, _ Workload) (*sqliteWriter, error) {
	db, err := openSQLite(dir, 1, true)
	if err != nil {
		return nil, err
	}
	s := &sqliteWriter{db: db}
	if s.claim, err = db.Prepare(sqliteClaim); err == nil {
		s.complete, err = db.Prepare(sqliteComplete)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return s, nil
}

func (s *sqliteWriter) close() error {
	return errors.Join(s.claim.Close(), s.complete.Close(), s.db.Close())
}

// changedOne returns otherwise unless one row was changed.
func changedOne(r sql.Result, err, otherwise error) error {
	if err != nil {
		return err
	}
	switch n, err := r.RowsAffected(); {
	case err != nil:
		return err
	case n != 1:
		return otherwise
	}
	return nil
}

// sqliteCycle commits each step by itself.
func sqliteCycle() Contender {
	return Contender{
		Name: "sqlite",
		Does: "each step a statement of its own, WAL, synchronous=FULL: INSERT … ON CONFLICT DO NOTHING, UPDATE; one connection, locked for ever",
		Open: opened(openSQLiteWriter, func(s *sqliteWriter, w Workload) (Instance, error) {
			exec := func(stmt *sql.Stmt, otherwise error, args ...any) error {
				s.mu.Lock()
				defer s.mu.Unlock()
				r, err := stmt.Exec(args...)
				return changedOne(r, err, otherwise)
			}
			return claimsAndCompletions(w, s.close, func(key string) error {
				return exec(s.claim, errTaken, []byte(key), sqliteFence, in(lease))
			}, func(key string, result []byte) error {
				return exec(s.complete, errNotClaimed, result, in(retention), []byte(key), sqliteFence)
			})
		}),
	}
}

// sqliteFence stands for what tells one claim of a key from the next.
const sqliteFence = 1

// in is when d from now is over, as a database without a TTL keeps it.
func in(d time.Duration) int64 { return time.Now().Add(d).UnixNano() }

// sqliteGrouped is what one can build on SQLite to have callers share a sync.
func sqliteGrouped() Contender {
	return Contender{
		Name: "sqlite-grouped",
		Does: "callers share a transaction, WAL, synchronous=FULL, made by the group commit of the limits, the best that can be built on SQLite",
		Open: opened(openSQLiteWriter, func(s *sqliteWriter, w Workload) (Instance, error) {
			return groupedCycles(w, s.commit, s.close)
		}),
	}
}

// commit makes one transaction of a group.
func (s *sqliteWriter) commit(all *[]*grouped) error {
	tx, err := s.db.Begin()
	if err != nil {
		return err
	}
	ctx := context.Background()
	claim, complete := tx.StmtContext(ctx, s.claim), tx.StmtContext(ctx, s.complete)
	for _, c := range *all {
		var r sql.Result
		var err error
		if c.result == nil {
			r, err = claim.Exec(c.key, sqliteFence, in(lease))
			c.err = changedOne(r, err, errTaken)
		} else {
			r, err = complete.Exec(c.result, in(retention), c.key, sqliteFence)
			c.err = changedOne(r, err, errNotClaimed)
		}
		if err != nil {
			return errors.Join(err, tx.Rollback())
		}
	}
	*all = (*all)[:0]
	return tx.Commit()
}

// sqliteReads looks keys up with a connection and a statement for each caller.
func sqliteReads() Contender {
	return Contender{
		Name: "sqlite",
		Does: "SELECT by primary key of result, state and expiry, prepared, a connection for each caller",
		Open: opened(fillSQLite, func(db *sql.DB, w Workload) (_ Instance, err error) {
			readers := make([]sqliteReader, w.Callers)
			for i := 0; i < len(readers) && err == nil; i++ {
				err = readers[i].open(db)
			}
			if err != nil {
				return Instance{}, errors.Join(err, db.Close())
			}
			closing := func() (err error) {
				for i := range readers {
					err = errors.Join(err, readers[i].close())
				}
				return errors.Join(err, db.Close())
			}
			return lookups(w, 0, closing, func(worker int, key string) (int, error) { return readers[worker].get(key) })
		}),
	}
}

// sqliteReader is one caller's.
type sqliteReader struct {
	conn *sql.Conn
	stmt *sql.Stmt
	key  []byte
	row  sql.RawBytes
}

func (r *sqliteReader) open(db *sql.DB) (err error) {
	ctx := context.Background()
	if r.conn, err = db.Conn(ctx); err != nil {
		return err
	}
	r.stmt, err = r.conn.PrepareContext(ctx, sqliteGet)
	return err
}

func (r *sqliteReader) close() error { return errors.Join(r.stmt.Close(), r.conn.Close()) }

func (r *sqliteReader) get(key string) (size int, err error) {
	r.key = append(r.key[:0], key...)
	rows, err := r.stmt.Query(r.key)
	if err != nil {
		return 0, err
	}
	size = absent
	if rows.Next() {
		var state, expires int64
		err = rows.Scan(&r.row, &state, &expires)
		size = len(r.row)
	}
	return size, errors.Join(err, rows.Err(), rows.Close())
}

func fillSQLite(dir string, w Workload) (*sql.DB, error) {
	db, err := openSQLite(dir, w.Callers, false)
	if err != nil {
		return nil, err
	}
	result, expires := w.Result(), in(retention)
	for from := 0; from < w.Keys.Len() && err == nil; from += FillBatch {
		var tx *sql.Tx
		if tx, err = db.Begin(); err != nil {
			break
		}
		for i := from; err == nil && i < min(from+FillBatch, w.Keys.Len()); i++ {
			_, err = tx.Exec(sqliteStored, []byte(w.Keys.Fill(i)), expires, result)
		}
		err = errors.Join(err, tx.Commit())
	}
	if err == nil {
		_, err = db.Exec(`PRAGMA wal_checkpoint(TRUNCATE)`)
	}
	if err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return db, nil
}
