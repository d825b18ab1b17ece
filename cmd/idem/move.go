package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/idemkv/idem"
	"github.com/idemkv/idem/bolt"
	idempebble "github.com/idemkv/idem/pebble"
)

func (t *tool) exportCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "export [FILE|-]",
		Short: "Write every live record to a file that any engine imports",
		Long: `export writes every live record to FILE, which must not be there, or to standard
output. idem import reads it into a store of any engine: tokens of attempts in
flight go on working there, and key hashes stay the same. Your own data in the
store's file or directory is not exported; idem backup copies that, too.

The file holds keys and results. It is made readable to you alone.`,
		Example: "  idem export pay.idem -store pay.db\n  idem import pay.idem -store pay.pebble -create pebble",
		Args: func(c *cobra.Command, args []string) error {
			if len(args) > 1 {
				return usage("idem export takes one argument at most, the file; the store is -store PATH")
			}
			return nil
		},
		RunE: func(c *cobra.Command, args []string) (err error) {
			name := "-"
			if len(args) == 1 {
				name = args[0]
			}
			if name == "-" && t.outTerminal {
				return usage("an export is not for a terminal; name a file, or redirect standard output")
			}
			if name != "-" {
				if err := absent(name); err != nil {
					return err
				}
			}
			l, err := t.openHere(c, false)
			if err != nil {
				return err
			}
			defer closing(l, &err)
			p := t.progress(&progress{what: "exporting", format: size})
			defer p.end()
			if name == "-" {
				return failed(l.store.Export(c.Context(), counting{t.out, p}), "exporting %s", l.path)
			}
			if err := export(c, l, name, p); err != nil {
				return err
			}
			p.end()
			return t.exported(l, name)
		},
	}
}

// export writes l to a file that has its name only once it is whole.
func export(c *cobra.Command, l *local, name string, p *progress) (err error) {
	f, err := os.CreateTemp(filepath.Dir(name), filepath.Base(name)+".part-*") // mode 0600
	if err != nil {
		return failed(err, "making %s", name)
	}
	defer func() { _ = os.Remove(f.Name()) }()
	w := bufio.NewWriterSize(counting{f, p}, 1<<20)
	if err = l.store.Export(c.Context(), w); err == nil {
		err = errors.Join(w.Flush(), f.Sync())
	}
	if err = errors.Join(err, f.Close()); err != nil {
		return failed(err, "exporting %s to %s", l.path, name)
	}
	return failed(rename(f.Name(), name), "giving the export its name, %s", name)
}

// exported tells of an export to a file. To standard output, the export is the result.
func (t *tool) exported(l *local, name string) error {
	t.changed = true
	n := sizeAt(name)
	if t.json {
		return t.printJSON(struct {
			Store  string `json:"store"`
			Export string `json:"export"`
			Bytes  int64  `json:"bytes"`
		}{l.path, name, n})
	}
	t.print("%s exported to %s, %s", l.path, name, size(n))
	return nil
}

func (t *tool) importCommand() *cobra.Command {
	create := ""
	c := &cobra.Command{
		Use:   "import FILE|-",
		Short: "Read an export into an empty store",
		Long: `import reads an export into the store, which must be empty, or have an import that
did not end: then it may be run again. -create makes the store, of the engine
that you name; otherwise it must be there.

Records keep their keys, states, attempts, fences and results, and the times that
they had left. Unless the exported store was stopped, what was claimed there since
is not in it: requests whose IssuedAt is from before the import get ErrTooLate.`,
		Example: "  idem export - -store pay.db | idem import - -store pay.pebble -create pebble",
		Args:    exactArguments("FILE"),
		RunE: func(c *cobra.Command, args []string) (err error) {
			in, err := t.input(args[0])
			if err != nil {
				return err
			}
			defer func() { _ = in.Close() }()
			if create != "" {
				return t.importNew(c, in, kind(create))
			}
			l, err := t.openHere(c, true)
			if err != nil {
				return err
			}
			defer closing(l, &err)
			report, err := t.importFrom(c, l, in)
			if err != nil {
				return importFailure(err, l.path, "")
			}
			return t.imported(l.path, report)
		},
	}
	c.Flags().StringVar(&create, "create", "", "make the store, on this `ENGINE`: bolt or pebble")
	must(c.RegisterFlagCompletionFunc("create", cobra.FixedCompletions([]string{"bolt", "pebble"}, cobra.ShellCompDirectiveNoFileComp)))
	return c
}

// input opens what is to be imported.
func (t *tool) input(name string) (io.ReadCloser, error) {
	if name == "-" {
		if t.inTerminal {
			return nil, usage("an export is not typed; name its file, or redirect standard input")
		}
		return io.NopCloser(struct{ io.Reader }{t.in}), nil // a pipe cannot seek, though it has the method
	}
	if isURL(name) {
		return nil, errURLAsPath
	}
	f, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, usage("there is no file %s to import", name)
	}
	if err != nil {
		return nil, failed(err, "opening the export")
	}
	return f, nil
}

// importFrom reads an export into l.
func (t *tool) importFrom(c *cobra.Command, l *local, in io.Reader) (idem.ImportReport, error) {
	p := t.progress(&progress{what: "importing", format: size})
	defer p.end()
	from := in
	if f, ok := in.(*os.File); ok { // can seek, and is then checked before anything is written
		p.set(0, sizeAt(f.Name()))
		from = countingFile{f, p}
	}
	return l.store.Import(c.Context(), from)
}

// importFailure returns the failure of an import into path. state says what is there now.
func importFailure(err error, path, state string) error {
	var f *failure
	err = failed(err, "importing into %s", path)
	if errors.As(err, &f) {
		if f.code == exitDamaged { // the export is, and the error says what to do
			f.advice = ""
		}
		f.advice = strings.Trim(f.advice+"; "+state, "; ")
	}
	return err
}

// importNew makes the store at -store out of an export. It has another name until it is
// whole: half a store is never found there, and nothing is if the export is no good.
func (t *tool) importNew(c *cobra.Command, in io.Reader, create kind) (err error) {
	if create != boltKind && create != pebbleKind {
		return usage("-create is %q; it must be bolt or pebble", printable(string(create)))
	}
	if err := t.place(nil); err != nil {
		return err
	}
	if t.url != "" {
		return usage("idem import works on a path only")
	}
	if err := absent(t.store); err != nil {
		return err
	}
	temp := fmt.Sprintf("%s.importing-%08x", filepath.Clean(t.store), rand.Uint32())
	defer func() {
		if removeErr := os.RemoveAll(temp); err == nil && removeErr != nil {
			err = failed(removeErr, "removing %s", temp)
		}
	}()
	report, err := t.makeStore(c, in, create, temp)
	if err != nil {
		if text, _, cut := strings.Cut(err.Error(), "; the import has not ended"); cut { // that is of a store that stays
			err = &saidAs{text, err}
		}
		return importFailure(err, t.store, "nothing was made")
	}
	if err := rename(temp, t.store); err != nil {
		return failed(err, "giving the new store its name, %s", t.store)
	}
	return t.imported(t.store, report)
}

// makeStore makes a store at path and reads an export into it.
func (t *tool) makeStore(c *cobra.Command, in io.Reader, create kind, path string) (report idem.ImportReport, err error) {
	l := &local{path: path, kind: create}
	if create == boltKind {
		l.engine, err = opened(bolt.Open(path, bolt.Options{LockTimeout: t.lockTimeout}))
	} else {
		l.engine, err = opened(idempebble.Open(path, idempebble.Options{LockTimeout: t.lockTimeout}))
	}
	if err != nil {
		return report, err
	}
	defer closing(l, &err)
	if err := l.bind(0); err != nil {
		return report, err
	}
	return t.importFrom(c, l, in)
}

// imported tells what was imported.
func (t *tool) imported(path string, r idem.ImportReport) error {
	t.changed = true
	if t.json {
		return t.printJSON(struct {
			Store      string    `json:"store"`
			Records    int       `json:"records"`
			Expired    int       `json:"expired"`
			ExportedAt time.Time `json:"exported_at"`
			Stopped    bool      `json:"stopped"`
			LostUntil  time.Time `json:"lost_until,omitzero"`
		}{path, r.Records, r.Expired, r.ExportedAt, r.Stopped, r.LostUntil})
	}
	t.print("%s imported into %s, exported %s", count(r.Records, "record"), path, moment(r.ExportedAt, t.now()))
	if r.Expired > 0 {
		t.print("%s had expired since and were left out", count(r.Expired, "record"))
	}
	if !r.LostUntil.IsZero() {
		t.note("idem: the other store was not stopped, so records may be missing: a request with an IssuedAt up to now that finds none gets ErrTooLate")
	}
	return nil
}
