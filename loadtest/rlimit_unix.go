//go:build unix

package loadtest

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// spareFiles are descriptors for everything but viewers and publishers.
const spareFiles = 64

// RaiseFileLimit raises the limit of open files to what the system allows, and
// says if that is not enough for so many connections.
func RaiseFileLimit(connections int) error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("loadtest: limit of open files: %w", err)
	}
	need := uint64(connections) + spareFiles
	if limit.Cur < limit.Max {
		limit.Cur = limit.Max
		// Some systems allow less than they say; what counts is what is left.
		_ = unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
		if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			return fmt.Errorf("loadtest: limit of open files: %w", err)
		}
	}
	if limit.Cur < need {
		return fmt.Errorf("loadtest: %d connections need %d open files, and %d are allowed: raise the hard limit (ulimit -Hn) or ask for fewer viewers",
			connections, need, limit.Cur)
	}
	return nil
}
