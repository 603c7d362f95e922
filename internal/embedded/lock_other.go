//go:build !unix

package embedded

import "os"

// lockFile opens a file. Where there are no advisory locks the directory is not
// guarded against a second process.
func lockFile(name string) (*os.File, error) {
	return os.OpenFile(name, os.O_CREATE|os.O_RDWR, 0o640)
}
