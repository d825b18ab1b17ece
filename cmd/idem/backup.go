package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
)

func errDamaged(l *local, n int) error {
	return fmt.Errorf("%s is damaged in %s", l.path, count(n, "place"))
}

func (t *tool) backupCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "backup DEST",
		Short: "Copy a stopped store, checked and marked as a backup",
		Long: `backup copies the store to DEST, which must not be there: a file for a bolt store,
a directory for a Pebble store. The copy is checked, and marked: the first store
to open it knows that what came later is lost.

A live service makes its own backups, under traffic: see Backend.Backup in the
packages bolt and pebble.`,
		Example: "  idem backup /backup/pay-$(date +%F).db -store pay.db",
		Args:    exactArguments("DEST"),
		RunE: func(c *cobra.Command, args []string) (err error) {
			dest := args[0]
			if err := absent(dest); err != nil {
				return err
			}
			l, err := t.openHere(c, false)
			if err != nil {
				return err
			}
			defer closing(l, &err)
			if err := t.copyStore(c.Context(), l, dest, "backing up"); err != nil {
				return err
			}
			return t.copied("backed up", l, dest)
		},
	}
}

// copyStore makes a copy of l at dest, checked and marked as a backup. doing says what for.
func (t *tool) copyStore(ctx context.Context, l *local, dest, doing string) error {
	b, ok := l.engine.(canBackup)
	if !ok {
		return l.lacks("backup")
	}
	p := t.progress(&progress{what: "copying and checking", format: size})
	err := b.Backup(p.within(ctx), dest)
	p.end()
	if err != nil && strings.Contains(err.Error(), " to "+dest+": ") { // it says so itself, of a backup
		err = errors.Unwrap(err)
	}
	return failed(err, "%s %s to %s", doing, l.path, dest)
}

// copied tells of a copy that was made.
func (t *tool) copied(done string, l *local, dest string) error {
	t.changed = true
	n := sizeAt(dest)
	if t.json {
		return t.printJSON(struct {
			Store string `json:"store"`
			Copy  string `json:"copy"`
			Kind  kind   `json:"kind"`
			Bytes int64  `json:"bytes"`
		}{l.path, dest, l.kind, n})
	}
	t.print("%s %s to %s, %s, checked", l.path, done, dest, size(n))
	return nil
}

// absent refuses a path where something is.
func absent(path string) error {
	if isURL(path) {
		return errURLAsPath
	}
	switch _, err := os.Lstat(path); {
	case err == nil:
		return &failure{exitFailed, "", fmt.Errorf("%s is there already", path), "name a new path; this tool replaces nothing"}
	case !os.IsNotExist(err):
		return failed(err, "looking at %s", path)
	}
	return nil
}

// sizeAt is how many bytes the files at or below path have. What cannot be looked at
// counts as nothing.
func sizeAt(path string) (n int64) {
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	_ = filepath.WalkDir(path, func(_ string, d fs.DirEntry, err error) error {
		if err == nil && d.Type().IsRegular() {
			if info, err := d.Info(); err == nil {
				n += info.Size()
			}
		}
		return nil
	})
	return n
}
