package diskspace

// RenameNew renames from to to and never replaces anything. If to exists, it returns an
// error that is fs.ErrExist. If the file system cannot rename without replacing, the
// error is errors.ErrUnsupported.
//
// Use it on file systems without hard links. With links, os.Link gives the same
// guarantee everywhere.
func RenameNew(from, to string) error { return renameNew(from, to) }
