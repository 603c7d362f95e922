//go:build unix

package descriptors

import (
	"errors"
	"fmt"
	"math"
	"syscall"
)

// Limit is how many descriptors this process may have open: the soft limit
// (RLIMIT_NOFILE), which package syscall has raised to the hard one, but for one, when the
// process started.
func Limit() (int, error) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return 0, fmt.Errorf("limit of open files: %w", err)
	}
	return int(min(uint64(limit.Cur), math.MaxInt32)), nil //nolint:unconvert // it is signed on FreeBSD
}

// Exhausted reports whether err says that the process, or the machine, has no descriptor
// left.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// transient are the errors of accept(2) that say nothing about the listener: the next
// connection may be taken. Some are those of a connection that has ended before it was
// taken, EPERM is a firewall's.
var transient = []syscall.Errno{
	syscall.EMFILE, syscall.ENFILE, syscall.ENOBUFS, syscall.ENOMEM, syscall.ECONNABORTED, syscall.EINTR, syscall.EPERM,
	syscall.EPROTO, syscall.ENOPROTOOPT, syscall.ENETDOWN, syscall.EHOSTDOWN, syscall.EHOSTUNREACH, syscall.ENETUNREACH,
	syscall.EOPNOTSUPP, syscall.ETIMEDOUT,
}

// Transient reports whether a listener whose Accept has returned err may be asked again.
func Transient(err error) bool {
	for _, e := range transient {
		if errors.Is(err, e) {
			return true
		}
	}
	return false
}
