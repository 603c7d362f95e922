//go:build !unix

package descriptors

import (
	"errors"
	"math"
	"syscall"
)

// Limit is how many descriptors this process may have open: there is no such limit here.
func Limit() (int, error) { return math.MaxInt32, nil }

// Exhausted reports whether err says that the process, or the machine, has no descriptor
// left.
func Exhausted(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// Transient reports whether a listener whose Accept has returned err may be asked again.
func Transient(err error) bool {
	return Exhausted(err) || errors.Is(err, syscall.ENOBUFS) || errors.Is(err, syscall.ENOMEM) || errors.Is(err, syscall.ECONNABORTED)
}
