//go:build !unix

package embedded

import (
	"os"

	"github.com/kansei-live/kansei/internal/private"
)

// lockFile opens a file. Where there are no advisory locks the directory is not
// guarded against a second process.
func lockFile(name string) (*os.File, error) {
	return private.Open(name)
}
