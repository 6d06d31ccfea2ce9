//go:build unix

package cache

import (
	"io/fs"
	"syscall"
)

// ownerOf returns the uid that a file belongs to, where the system has such.
func ownerOf(info fs.FileInfo) (uid int, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(s.Uid), true
}
