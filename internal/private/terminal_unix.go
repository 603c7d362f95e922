//go:build unix

package private

import (
	"os"

	"golang.org/x/sys/unix"
)

// isTerminal reports whether a file is one: nothing else has a size in rows and columns.
func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ) // #nosec G115 -- descriptors are small
	return err == nil
}
