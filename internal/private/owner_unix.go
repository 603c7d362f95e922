//go:build unix

package private

import (
	"io/fs"
	"syscall"
)

const (
	noWait   = syscall.O_NONBLOCK // a pipe is opened at once; regular files do not mind
	noFollow = syscall.O_NOFOLLOW
)

// ownerOf is the user to whom a file belongs.
func ownerOf(info fs.FileInfo) (uid int, ok bool) {
	s, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, false
	}
	return int(s.Uid), true
}
