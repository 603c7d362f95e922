package clientaddr

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
)

// ErrProxyHeader is wrapped by the error of a connection of a trusted proxy that does not
// begin with a header of the PROXY protocol.
var ErrProxyHeader = errors.New("clientaddr: no header of the PROXY protocol")

// Listen returns a listener whose connections from trusted proxies must begin with a header
// of the PROXY protocol, version 1 or 2, within timeout; their RemoteAddr is the client's.
// Where the header names no client, as in a health check, it is the proxy's. Other
// connections are left as they are: to HTTP a header there is a bad request. refused is
// called for each connection of a proxy that is refused, but not for one that ends without a
// word, as those of health checks do that only connect.
//
// Accept waits for no header. It is read by the first caller that asks for the address or reads
// first, which is the connection's own goroutine of net/http; so nobody else should ask.
func Listen(l net.Listener, trusted []netip.Prefix, timeout time.Duration, refused func(proxy net.Addr, err error)) net.Listener {
	return &listener{l, trusted, timeout, refused}
}

// errLeft is the error of a connection that its peer has ended before it said anything.
var errLeft = errors.New("the peer has left")

type listener struct {
	net.Listener
	trusted []netip.Prefix
	timeout time.Duration
	refused func(net.Addr, error)
}

// Accept implements [net.Listener].
func (l *listener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil || !within(l.trusted, addrOf(c.RemoteAddr())) {
		return c, err
	}
	return &proxied{Conn: c, listener: l}, nil
}

// proxied is a connection of a trusted proxy. Not a byte behind the header is read with it.
type proxied struct {
	net.Conn
	listener *listener

	once   sync.Once
	client net.Addr // nil: nobody's
	err    error
}

// header reads the header, once.
func (c *proxied) header() {
	c.once.Do(func() {
		proxy := c.Conn.RemoteAddr()
		err := c.SetReadDeadline(time.Now().Add(c.listener.timeout))
		var client netip.AddrPort
		if err == nil {
			client, err = readProxyHeader(c.Conn)
		}
		if err == nil {
			err = c.SetReadDeadline(time.Time{})
		}
		if err != nil {
			// An error of this kind makes net/http close without an answer.
			c.err = &net.OpError{Op: "read", Net: "tcp", Addr: proxy, Err: err}
			if !errors.Is(err, net.ErrClosed) && !errors.Is(err, errLeft) {
				c.listener.refused(proxy, err)
			}
			return
		}
		if client.IsValid() {
			c.client = net.TCPAddrFromAddrPort(client)
		}
	})
}

// RemoteAddr is the client's address.
func (c *proxied) RemoteAddr() net.Addr {
	if c.header(); c.client != nil {
		return c.client
	}
	return c.Conn.RemoteAddr()
}

// Read implements [net.Conn].
func (c *proxied) Read(p []byte) (int, error) {
	if c.header(); c.err != nil {
		return 0, c.err
	}
	return c.Conn.Read(p)
}

// CloseWrite ends the sending side, where that is possible.
func (c *proxied) CloseWrite() error {
	if cw, ok := c.Conn.(interface{ CloseWrite() error }); ok {
		return cw.CloseWrite()
	}
	return errors.ErrUnsupported
}

// Direct returns the connection to go on with once something was read: without this
// layer, which has nothing to add then.
func (c *proxied) Direct() net.Conn { return c.Conn }

const (
	signatureV1 = "PROXY "
	signatureV2 = "\r\n\r\n\x00\r\nQUIT\n"
	// maxV1 is the longest line of version 1, with its end.
	maxV1 = 107
	// maxV2 bounds what follows the first 16 bytes of version 2: an address block, and a
	// proxy's notes on it, which may hold a certificate.
	maxV2 = 4096
)

// readProxyHeader reads a header and not a byte more. The address is not valid if the
// header says that the connection is the proxy's own, or of another kind than TCP.
func readProxyHeader(r io.Reader) (netip.AddrPort, error) {
	// No header is shorter than the signature of version 2.
	var start [len(signatureV2)]byte
	if n, err := io.ReadFull(r, start[:]); err != nil {
		if n == 0 && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, net.ErrClosed) {
			err = errLeft
		}
		return netip.AddrPort{}, headerError(err)
	}
	switch {
	case string(start[:]) == signatureV2:
		return readV2(r)
	case strings.HasPrefix(string(start[:]), signatureV1):
		return readV1(r, start[:])
	}
	return netip.AddrPort{}, ErrProxyHeader
}

func headerError(err error) error { return fmt.Errorf("%w: %w", ErrProxyHeader, err) }

// readV1 reads the rest of a line that begins with start, byte by byte: what is behind it
// is HTTP's.
func readV1(r io.Reader, start []byte) (netip.AddrPort, error) {
	line := append(make([]byte, 0, maxV1), start...)
	for !bytes.HasSuffix(line, []byte("\r\n")) {
		if len(line) == maxV1 || bytes.IndexByte(start, '\n') >= 0 {
			return netip.AddrPort{}, fmt.Errorf("%w: the line does not end", ErrProxyHeader)
		}
		if _, err := io.ReadFull(r, line[len(line):len(line)+1]); err != nil {
			return netip.AddrPort{}, headerError(err)
		}
		line = line[:len(line)+1]
	}
	return parseV1(string(line[:len(line)-2]))
}

func parseV1(line string) (netip.AddrPort, error) {
	fields := strings.Split(line, " ")
	if fields[1] == "UNKNOWN" { // whatever follows it
		return netip.AddrPort{}, nil
	}
	if len(fields) != 6 || fields[1] != "TCP4" && fields[1] != "TCP6" {
		return netip.AddrPort{}, fmt.Errorf("%w: version 1 without six fields", ErrProxyHeader)
	}
	var ends [2]netip.AddrPort
	for i := range ends {
		addr, err := netip.ParseAddr(fields[2+i])
		if err != nil || addr.Zone() != "" || addr.Is4() != (fields[1] == "TCP4") {
			return netip.AddrPort{}, fmt.Errorf("%w: version 1 with a bad address", ErrProxyHeader)
		}
		digits := fields[4+i]
		port, err := strconv.ParseUint(digits, 10, 16)
		if err != nil || strconv.FormatUint(port, 10) != digits {
			return netip.AddrPort{}, fmt.Errorf("%w: version 1 with a bad port", ErrProxyHeader)
		}
		ends[i] = netip.AddrPortFrom(addr, uint16(port))
	}
	return ends[0], nil
}

// readV2 reads what follows the signature.
func readV2(r io.Reader) (netip.AddrPort, error) {
	var head [4]byte // version and command, family and transport, length
	if _, err := io.ReadFull(r, head[:]); err != nil {
		return netip.AddrPort{}, headerError(err)
	}
	length := int(binary.BigEndian.Uint16(head[2:]))
	if head[0]>>4 != 2 || head[0]&0xf > 1 || length > maxV2 {
		return netip.AddrPort{}, fmt.Errorf("%w: version 2 with a head that is not known", ErrProxyHeader)
	}
	block := make([]byte, length)
	if _, err := io.ReadFull(r, block); err != nil {
		return netip.AddrPort{}, headerError(err)
	}
	if local := head[0]&0xf == 0; local {
		return netip.AddrPort{}, nil
	}
	return parseV2(head[1], block)
}

// parseV2 returns the source in an address block; what is behind it is the proxy's notes.
func parseV2(family byte, block []byte) (netip.AddrPort, error) {
	const tcp4, tcp6 = 0x11, 0x21
	switch {
	case family == tcp4 && len(block) >= 12:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(block)), binary.BigEndian.Uint16(block[8:])), nil
	case family == tcp6 && len(block) >= 36:
		return netip.AddrPortFrom(netip.AddrFrom16([16]byte(block)), binary.BigEndian.Uint16(block[32:])), nil
	case family == tcp4 || family == tcp6 || family>>4 > 3 || family&0xf > 2:
		return netip.AddrPort{}, fmt.Errorf("%w: version 2 with a bad address", ErrProxyHeader)
	}
	return netip.AddrPort{}, nil // a unix socket, UDP, or not said
}
