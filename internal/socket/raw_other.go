//go:build !linux

package socket

import (
	"errors"
	"net"
	"syscall"
)

// On other systems than Linux goroutines read and write.

func rawConn(net.Conn) syscall.RawConn { return nil }

func setNotSentLowat(net.Conn, int) {}

type rawWrite struct{}

func (*rawWrite) init() {}

func (c *Conn) attempt(*turn) bool { return false }

func (c *Conn) receiveRaw() error { return errors.ErrUnsupported }
