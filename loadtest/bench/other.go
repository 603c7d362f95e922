//go:build !linux

package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
)

var errLinux = fmt.Errorf("bench: it measures by what Linux tells of processes and sockets: %w", errors.ErrUnsupported)

func (c *Command) measure(context.Context, io.Writer) (*Report, error) { return nil, errLinux }

// Run says that it cannot be done here.
func (f *Floor) Run(context.Context, io.Reader, io.Writer, io.Writer) error { return errLinux }
