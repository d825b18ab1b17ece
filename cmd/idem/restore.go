package main

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/idemkv/idem/internal/diskspace"
)

const restoreHelp = `restore copies a backup to PATH, which must not be there, and checks the copy. The
backup stays as it is. Stop the service first, move its old store aside, and run
this as the service's user: the new store belongs to whoever runs it.

What a restore means: whatever was claimed or completed after the backup was made
is forgotten. A retry of such an operation runs it again. Two things help:

  Requests with an IssuedAt from before the restored store is first opened, and
  without a record, are refused with ErrTooLate instead of run. restore marks the
  store for that, as idem backup does, even if the backup was made with cp.

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
			if err := t.copyStore(c.Context(), backup, to, "restoring"); err != nil {
				var f *failure
				if errors.As(err, &f) && f.code == exitDamaged {
					f.advice = "take an older backup; nothing was restored. idem verify names what is damaged"
				}
				return err
			}
			if err := t.copied("restored", backup, to); err != nil {
				return err
			}
			for _, note := range restoreNotes {
				t.note("idem: %s", note)
			}
			return nil
		},
	}
}

// restoreNotes is what whoever restores must know before the service starts.
var restoreNotes = []string{
	"what was claimed or completed after the backup was made is forgotten, and a retry of it runs again, unless its IssuedAt gets it ErrTooLate",
	"compare with whoever received the effects before the service starts; see idem restore -help",
}

// rename gives temp the name path, which must not be taken. What is made under another
// name first is never found half done.
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
