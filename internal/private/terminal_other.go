//go:build !unix

package private

import "os"

// isTerminal reports whether a file is a console.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
