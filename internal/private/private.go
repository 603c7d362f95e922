// Package private opens the files and directories that a node's safety rests on: its
// secrets, its settings, its log.
//
// Somebody who puts another file in their place must not be able to stop the node with it,
// or to choose what the node believes. So nothing here waits, as opening a named pipe would.
// Files are made for the process's own user alone, and those of another user are refused.
// Root's files are taken: root can do anything anyway, and mounted volumes are often root's.
package private

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"runtime"
)

// Why something is refused.
var (
	// ErrNotRegular: it is a directory, a named pipe, a device or a socket.
	ErrNotRegular = errors.New("it is not a regular file")
	// ErrOwner: it belongs to another user.
	ErrOwner = errors.New("it belongs to another user")
	// ErrSize: there is more in it than was asked for.
	ErrSize = errors.New("it is too large")
)

// Read reads a regular file of at most limit bytes, without ever waiting for somebody
// who writes it.
func Read(path string, limit int64) ([]byte, fs.FileInfo, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|noWait, 0)
	if err != nil {
		return nil, nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	p, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, nil, err
	}
	if int64(len(p)) > limit {
		return nil, nil, fmt.Errorf("%s: %w: it has more than %d bytes", path, ErrSize, limit)
	}
	return p, info, nil
}

// Dir makes a directory that is for this user alone, with those above it, unless it is
// there. One that is there must belong to this user or to root.
func Dir(path string) error {
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(path)
	if err != nil {
		return err
	}
	if err := Owned(info); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// Owned says that a file belongs to somebody else than this process's user or root:
// [ErrOwner]. It is nil where files have no such owners.
func Owned(info fs.FileInfo) error {
	owner, ok := ownerOf(info)
	if self := os.Geteuid(); ok && !trusted(owner, self) {
		return fmt.Errorf("%w (%d; this process runs as %d): run it as that user, or give it to this one with chown", ErrOwner, owner, self)
	}
	return nil
}

// Writable reports whether every user of the machine may write a file.
func Writable(info fs.FileInfo) bool {
	return info.Mode().Perm()&0o002 != 0 && runtime.GOOS != "windows" // whose modes say nothing
}

func trusted(owner, self int) bool { return owner == self || owner == 0 }

// Open opens a file for writing, for this user alone, and makes it if it is not there.
// It follows no symbolic link: where others may write a directory it would choose which
// file is overwritten.
func Open(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR|noWait|noFollow, 0o600)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fmt.Errorf("%s: %w", path, ErrNotRegular)
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// Create makes a file anew, for this user alone, in the place of whatever has its name.
func Create(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	return os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) // which follows no link
}
