package diskspace

// RenameNew renames from to to, which must be free: it never replaces what is there,
// and then returns an error that is fs.ErrExist. Not every file system can do that.
// The error is then errors.ErrUnsupported.
//
// It is for file systems without hard links. Where there are links, os.Link gives
// the same promise everywhere.
func RenameNew(from, to string) error { return renameNew(from, to) }
