package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/idemkv/idem/internal/diskspace"
)

const restoreHelp = `restore copies a backup to PATH, which must not be there, and checks the copy. The
backup stays as it is. Stop the service first, move its old store aside, and see
that the new one belongs to the service's user.

What a restore means: whatever was claimed or completed after the backup was made
is forgotten. A retry of such an operation runs it again. Two things help:

  Requests with an IssuedAt from before the restored store is first opened, and
  without a record, are refused with ErrTooLate instead of run. That needs the
  mark that idem backup and Backend.Backup leave in a copy.

  Before the service starts, compare with whoever received the effects (the
  bank, the broker) what happened since the backup.`

func (t *tool) restoreCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "restore BACKUP PATH",
		Short:   "Copy a backup to a new path, and check it",
		Long:    restoreHelp,
		Example: "  mv pay.db pay.db.damaged\n  idem restore /backup/pay-2026-05-01.db pay.db",
		Args:    exactArguments("BACKUP", "PATH"),
		RunE: func(c *cobra.Command, args []string) (err error) {
			if t.store != "" || t.url != "" {
				return usage("restore takes two paths, the backup and the new store, and no -store or -url")
			}
			from, to := args[0], args[1]
			if err := absent(to); err != nil {
				return err
			}
			backup, err := t.openLocal(from, false) // keeps writers out while it is copied
			if err != nil {
				return err
			}
			defer closing(backup, &err)
			return t.restore(c, backup, to)
		},
	}
}

// restore copies backup to a name next to path, checks it there, and then gives it its
// name: half a store is never found at path.
func (t *tool) restore(c *cobra.Command, backup *local, path string) (err error) {
	temp := fmt.Sprintf("%s.restoring-%08x", path, rand.Uint32())
	defer func() {
		if removeErr := os.RemoveAll(temp); err == nil && removeErr != nil {
			err = failed(removeErr, "removing %s", temp)
		}
	}()
	p := t.progress(&progress{what: "copying", format: size})
	p.set(0, sizeAt(backup.path))
	err = copyTree(c.Context(), backup.path, temp, p)
	p.end()
	if err != nil {
		return failed(err, "copying %s to %s", backup.path, path)
	}
	if err := t.checkCopy(c, backup, temp); err != nil {
		return err
	}
	if err := rename(temp, path); err != nil {
		return failed(err, "giving the copy its name, %s", path)
	}
	if err := t.copied("restored", backup, path); err != nil {
		return err
	}
	for _, note := range restoreNotes {
		t.note("idem: %s", note)
	}
	return nil
}

// restoreNotes is what whoever restores must know before the service starts.
var restoreNotes = []string{
	"what was claimed or completed after the backup was made is forgotten, and a retry of it runs again, unless its IssuedAt gets it ErrTooLate",
	"compare with whoever received the effects before the service starts; see idem restore -help",
}

// checkCopy verifies the copy at temp.
func (t *tool) checkCopy(c *cobra.Command, backup *local, temp string) (err error) {
	l, err := t.openLocal(temp, false)
	if err != nil {
		return err
	}
	defer closing(l, &err)
	p := t.progress(&progress{what: "verifying the copy", format: size})
	n, err := t.verify(p.within(c.Context()), l)
	p.end()
	if err == nil && n > 0 {
		err = &failure{exitDamaged, "", errDamaged(backup, n), "take an older backup; nothing was restored"}
	}
	return err
}

// rename gives temp the name path, which must not be taken.
func rename(temp, path string) error {
	err := diskspace.RenameNew(temp, path)
	if errors.Is(err, errors.ErrUnsupported) { // not atomic then, but nobody else makes this file
		if err = absent(path); err == nil {
			err = os.Rename(temp, path)
		}
	}
	if err != nil {
		return err
	}
	return diskspace.SyncDir(filepath.Dir(path))
}

// copyTree copies the file or directory at from to to, and syncs all of it.
func copyTree(ctx context.Context, from, to string, p *progress) error {
	from, err := filepath.EvalSymlinks(from)
	if err != nil {
		return err
	}
	var directories []string
	err = filepath.WalkDir(from, func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		target := to + strings.TrimPrefix(name, from)
		info, err := d.Info()
		if err != nil {
			return err
		}
		switch {
		case info.IsDir():
			directories = append(directories, target)
			return os.Mkdir(target, info.Mode().Perm()|0o700)
		case info.Mode().IsRegular():
			return copyFile(ctx, name, target, info.Mode().Perm()|0o600, p)
		}
		return fmt.Errorf("%s is neither a file nor a directory", name)
	})
	for _, dir := range directories {
		if err == nil {
			err = diskspace.SyncDir(dir)
		}
	}
	return err
}

func copyFile(ctx context.Context, from, to string, mode fs.FileMode, p *progress) (err error) {
	in, err := os.Open(from)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, out.Close()) }()
	_, err = io.Copy(counting{out, p}, readerFunc(func(b []byte) (int, error) {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		return in.Read(b)
	}))
	if err != nil {
		return err
	}
	return out.Sync()
}

// readerFunc is an io.Reader.
type readerFunc func(b []byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }
