//go:build unix

package diskspace

import (
	"io/fs"
	"syscall"
)

// links returns how many names the file has, and whether that is known.
func links(info fs.FileInfo) (n uint64, known bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return uint64(st.Nlink), true // its type differs between systems
}
