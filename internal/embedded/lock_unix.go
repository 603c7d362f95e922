//go:build unix

package embedded

import (
	"errors"
	"os"
	"syscall"

	"github.com/kansei-live/kansei/internal/private"
)

// lockFile makes a file and locks it until it is closed or the process ends.
func lockFile(name string) (*os.File, error) {
	f, err := private.Open(name)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		if errors.Is(err, syscall.EWOULDBLOCK) {
			err = ErrInUse
		}
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}
