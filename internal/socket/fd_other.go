//go:build !linux

package socket

import (
	"errors"
	"net"
)

// On other systems than Linux no connection is held by its descriptor: takeFD
// never takes one, and goroutines read and write.

func takeFD(*net.TCPConn) (fd int32, ok bool) { return 0, false }

func setNotSentLowat(net.Conn, int) {}

func (c *Conn) abortFD(bool)        {}
func (c *Conn) sendFIN()            {}
func (c *Conn) releaseFD()          {}
func (c *Conn) arm() error          { return errors.ErrUnsupported }
func (c *Conn) attempt(*batch) bool { return false }
func (c *Conn) goOn(*batch)         {}
func (c *Conn) await(*batch)        {}
func (c *Conn) awaitNoMore()        {}

type rawWrite struct{}

type polls struct{ srv *Server }

func (*polls) open() bool { return false }
func (*polls) close()     {}
func (*polls) add(*Conn)  {}
