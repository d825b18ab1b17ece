package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io/fs"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/rogpeppe/go-internal/testscript"
	"go.etcd.io/bbolt"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/engine"
	"github.com/idemkv/idem/idemadmin"
	"github.com/idemkv/idem/internal/codec"
)

// The commands of the scripts. All take the path of a store.

// seen is every file at or below path, with its content, mode and time.
func seen(path string) (string, error) {
	var b strings.Builder
	err := filepath.WalkDir(path, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		fmt.Fprintf(&b, "%s %v %v", name, info.Mode(), info.ModTime().UnixNano())
		if d.Type().IsRegular() {
			content, err := os.ReadFile(name)
			if err != nil {
				return err
			}
			fmt.Fprintf(&b, " %d %x", len(content), sha256.Sum256(content))
		}
		b.WriteString("\n")
		return nil
	})
	return b.String(), err
}

// cmdSnapshot remembers what is at a path: snapshot PATH.
func cmdSnapshot(ts *testscript.TestScript, _ bool, args []string) {
	now, err := seen(ts.MkAbs(args[0]))
	ts.Check(err)
	of(ts).snapshots[args[0]] = now
}

// cmdUnchanged requires that not a byte, mode, time or name has changed since: unchanged PATH.
func cmdUnchanged(ts *testscript.TestScript, _ bool, args []string) {
	now, err := seen(ts.MkAbs(args[0]))
	ts.Check(err)
	before, ok := of(ts).snapshots[args[0]]
	if !ok {
		ts.Fatalf("there is no snapshot of %s", args[0])
	}
	if now != before {
		ts.Fatalf("%s has changed:\n%s", args[0], differ(before, now))
	}
}

// stored is one value of a store's database, by the name of its space and its key.
type stored struct{ space, key string }

// rewrite changes a value behind the library's back; nil removes it.
func rewrite(path string, at stored, by func([]byte) []byte) error {
	k, err := detect(path)
	if err != nil {
		return err
	}
	if k == pebbleKind {
		return rewritePebble(path, at, by)
	}
	db, err := bbolt.Open(path, 0o600, nil)
	if err != nil {
		return err
	}
	err = db.Update(func(tx *bbolt.Tx) error {
		bucket := tx.Bucket([]byte("idem." + at.space))
		key := []byte(at.key)
		if at.key == "" {
			key, _ = bucket.Cursor().First()
		}
		value := by(bytes.Clone(bucket.Get(key)))
		if value == nil {
			return bucket.Delete(key)
		}
		return bucket.Put(key, value)
	})
	return errors.Join(err, db.Close())
}

// spaceLetters begin the keys of Pebble's spaces.
var spaceLetters = map[string]string{"records": "r", "expiry": "x", "meta": "m"}

func rewritePebble(path string, at stored, by func([]byte) []byte) error {
	db, err := pebble.Open(filepath.Join(path, pebbleDB), &pebble.Options{
		ErrorIfNotExists: true, FormatMajorVersion: pebble.FormatWALSyncChunks, Logger: quiet{},
	})
	if err != nil {
		return err
	}
	prefix := "idem\x00" + spaceLetters[at.space]
	key := []byte(prefix + at.key)
	if at.key == "" {
		it, err := db.NewIter(&pebble.IterOptions{LowerBound: key})
		if err != nil {
			return err
		}
		it.First()
		key = bytes.Clone(it.Key())
		if err := it.Close(); err != nil {
			return err
		}
	}
	var value []byte
	if v, done, err := db.Get(key); err == nil {
		value = bytes.Clone(v)
		if err := done.Close(); err != nil {
			return err
		}
	}
	if value = by(value); value == nil {
		err = db.Delete(key, pebble.Sync)
	} else {
		err = db.Set(key, value, pebble.Sync)
	}
	return errors.Join(err, db.Flush(), db.Close())
}

type quiet struct{}

func (quiet) Infof(string, ...any)         {}
func (quiet) Errorf(string, ...any)        {}
func (quiet) Fatalf(f string, args ...any) { panic(fmt.Sprintf(f, args...)) }

// cmdDamage damages a closed store: damage PATH record KEY, or damage PATH and one of
// place, table, page and cut.
func cmdDamage(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	switch args[1] {
	case "record":
		ts.Check(rewrite(path, stored{"records", args[2]}, func(v []byte) []byte {
			v[len(v)/2] ^= 1
			return v
		}))
	case "place":
		ts.Check(rewrite(path, stored{space: "expiry"}, func([]byte) []byte { return nil }))
	case "table":
		ts.Check(damageTable(path))
	case "page":
		ts.Check(damagePage(path))
	case "cut": // within the pages of a bolt file that every store has, or within an export
		info, err := os.Stat(path)
		ts.Check(err)
		ts.Check(os.Truncate(path, min(info.Size()/2, int64(3*os.Getpagesize()))))
	default:
		ts.Fatalf("damage: what is %s?", args[1])
	}
}

// damageTable flips a byte in the first block of each table of a Pebble store.
func damageTable(path string) error {
	tables, err := filepath.Glob(filepath.Join(path, pebbleDB, "*.sst"))
	if err != nil || len(tables) == 0 {
		return errors.Join(err, errors.New("there is no table"))
	}
	for _, table := range tables {
		b, err := os.ReadFile(table)
		if err != nil {
			return err
		}
		b[8] ^= 1
		if err := os.WriteFile(table, b, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// damagePage makes the leaf page of a bolt store that holds the records another page's.
func damagePage(path string) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	size := os.Getpagesize()
	for at := 2 * size; at < len(b); at += size {
		if bytes.Contains(b[at:at+size], []byte("order-1")) {
			b[at] ^= 0x40
		}
	}
	return os.WriteFile(path, b, 0o600)
}

// cmdVersion makes a closed store one of a later format: version PATH.
func cmdVersion(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	if k, err := detect(path); err == nil && k == pebbleKind {
		ts.Check(os.WriteFile(filepath.Join(path, pebbleMarker), []byte("idem format 9 on pebble\n"), 0o600))
		return
	}
	ts.Check(rewrite(path, stored{"meta", codec.MetaKey}, func(v []byte) []byte {
		v[0] = 9
		end := len(v) - 4
		sum := crc32.Checksum(slices.Concat([]byte(codec.MetaKey), v[:end]), crc32.MakeTable(crc32.Castagnoli))
		return binary.LittleEndian.AppendUint32(v[:end], sum)
	}))
}

// cmdLock keeps a store open until the script ends, as a service does: lock PATH.
func cmdLock(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[0])
	k, err := detect(path)
	ts.Check(err)
	b, err := openEngine(k, path)
	ts.Check(err)
	ts.Defer(func() { _ = b.Close() })
}

// cmdServe serves a store with idemadmin until the script ends, and puts its URL into a
// variable: serve VARIABLE PATH [hidden]. "Bearer ana" may do all, "Bearer bob" read. Its
// /login is for ana with the password s3cret/%; VARIABLE_HOST is the URL without http://.
func cmdServe(ts *testscript.TestScript, _ bool, args []string) {
	path := ts.MkAbs(args[1])
	k, err := detect(path)
	ts.Check(err)
	b, err := openEngine(k, path)
	ts.Check(err)
	store, err := idem.New(b, idem.Options{MaxAttempts: 2, SweepInterval: -1})
	ts.Check(err)
	o := idemadmin.Options{
		Authorize: func(r *http.Request, a idemadmin.Action) (string, bool) {
			switch r.Header.Get("Authorization") {
			case "Bearer ana":
				return "ana", true
			case "Bearer bob":
				return "bob", a == idemadmin.Read
			}
			user, password, _ := r.BasicAuth()
			return user, user == "ana" && password == "s3cret/%"
		},
		Reveal: idemadmin.RevealKeys | idemadmin.RevealPayloads,
		Logger: slog.New(slog.DiscardHandler),
	}
	if len(args) > 2 {
		o.Reveal = 0
	}
	admin, err := idemadmin.New(store, o)
	ts.Check(err)
	mux := http.NewServeMux()
	mux.Handle("/admin/", http.StripPrefix("/admin", admin))
	mux.Handle("/login/", http.StripPrefix("/login", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if _, _, ok := r.BasicAuth(); !ok {
			w.Header().Set("WWW-Authenticate", `Basic realm="idem"`)
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		admin.ServeHTTP(w, r)
	})))
	mux.HandleFunc("/elsewhere/", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://example.com/?key=secret", http.StatusFound)
	})
	mux.HandleFunc("/other/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, `{"status":"ok"}`) })
	mux.HandleFunc("/hello/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "hello") })
	mux.HandleFunc("/busy/", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "busy", http.StatusBadGateway) })
	server := httptest.NewServer(mux)
	ts.Setenv(args[0], server.URL)
	ts.Setenv(args[0]+"_HOST", strings.TrimPrefix(server.URL, "http://"))
	of(ts).stores[args[1]] = store
	ts.Defer(func() {
		server.Close()
		_ = store.Close()
	})
}

// withStore runs fn on the store that is served from a path, or else opens it.
func withStore(ts *testscript.TestScript, path string, fn func(s *idem.Store)) {
	if s := of(ts).stores[path]; s != nil {
		fn(s)
		return
	}
	k, err := detect(ts.MkAbs(path))
	ts.Check(err)
	b, err := openEngine(k, ts.MkAbs(path))
	ts.Check(err)
	s, err := idem.New(b, idem.Options{SweepInterval: -1})
	ts.Check(err)
	fn(s)
	ts.Check(s.Close())
}

// cmdKnow puts what names a record into variables: know NAME PATH KEY sets NAME_hash,
// NAME_fence and NAME_token.
func cmdKnow(ts *testscript.TestScript, _ bool, args []string) {
	withStore(ts, args[1], func(s *idem.Store) {
		rec, err := s.Get(context.Background(), args[2])
		ts.Check(err)
		token, err := rec.Token().MarshalText()
		ts.Check(err)
		ts.Setenv(args[0]+"_hash", s.KeyHash(args[2]))
		ts.Setenv(args[0]+"_fence", strconv.FormatUint(rec.Fence, 10))
		ts.Setenv(args[0]+"_token", string(token))
	})
}

// cmdClaim claims a key: claim PATH KEY.
func cmdClaim(ts *testscript.TestScript, neg bool, args []string) {
	withStore(ts, args[0], func(s *idem.Store) {
		_, err := s.Claim(context.Background(), idem.Request{Key: args[1]})
		if (err != nil) != neg {
			ts.Fatalf("claiming %s: %v", args[1], err)
		}
	})
}

// cmdOwn gives all at and below a path to a user: own PATH UID.
func cmdOwn(ts *testscript.TestScript, _ bool, args []string) {
	uid, err := strconv.Atoi(args[1])
	ts.Check(err)
	ts.Check(filepath.WalkDir(ts.MkAbs(args[0]), func(name string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(name, uid, uid)
	}))
}

// collidingSecret is a store's secret under which these keys have one hash.
var (
	collidingSecret = [16]byte{'t', 'w', 'o', ' ', 'k', 'e', 'y', 's'}
	collidingKeys   = []string{"account-5622361", "account-14897746"}
)

func giveCollidingSecret(path string) error {
	var decodeErr error
	err := rewrite(path, stored{"meta", codec.MetaKey}, func(v []byte) []byte {
		var m engine.Meta
		m, decodeErr = codec.DecodeMeta(v)
		m.Secret = collidingSecret
		return codec.AppendMeta(nil, m)
	})
	return errors.Join(err, decodeErr)
}

// cmdCollide gives a closed store that secret: collide PATH.
func cmdCollide(ts *testscript.TestScript, _ bool, args []string) {
	ts.Check(giveCollidingSecret(ts.MkAbs(args[0])))
}
