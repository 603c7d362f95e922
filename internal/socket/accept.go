package socket

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/protocol"
)

// Errors of [Server.Accept], for which it has answered the request.
var (
	// ErrSubprotocol: the client did not offer protocol.Subprotocol.
	ErrSubprotocol = errors.New("socket: the subprotocol " + protocol.Subprotocol + " was not offered")
	// ErrVersion: the request came over another version of HTTP than 1.1, which alone has
	// upgrades.
	ErrVersion = errors.New("socket: a WebSocket is opened with HTTP/1.1")
	// ErrBody: the request has a body, which would be taken for frames.
	ErrBody = errors.New("socket: the request has a body")
	// ErrEarlyData: the client sent something behind its request, before the answer.
	ErrEarlyData = errors.New("socket: data before the handshake was complete")
)

const (
	headerProtocol   = "Sec-Websocket-Protocol"
	headerExtensions = "Sec-Websocket-Extensions"
)

// Accept completes the handshake of a WebSocket request with the subprotocol of
// [protocol.Subprotocol], which it leaves as the only one that r offers. The caller
// has checked the origin, and must start or close the connection: where it can wait the
// answer leaves together with the first frames. After an error the request has been
// answered, or its connection is over.
func (s *Server) Accept(w http.ResponseWriter, r *http.Request) (*Conn, error) {
	if s.wheel.isClosed() {
		http.Error(w, "the server is shutting down", http.StatusServiceUnavailable)
		return nil, ErrServerClosed
	}
	if r.ProtoMajor != 1 {
		// Without the header Upgrade, which makes clients of HTTP/2 give up the stream.
		http.Error(w, "a WebSocket is opened with HTTP/1.1", http.StatusUpgradeRequired)
		return nil, ErrVersion
	}
	if r.ContentLength != 0 || len(r.TransferEncoding) > 0 {
		w.Header().Set("Connection", "close") // the body is not wanted
		http.Error(w, "the request that opens a WebSocket has no body", http.StatusBadRequest)
		return nil, ErrBody
	}
	if !offers(r.Header, protocol.Subprotocol) {
		http.Error(w, "the subprotocol "+protocol.Subprotocol+" is required", http.StatusBadRequest)
		return nil, ErrSubprotocol
	}
	// Beside the subprotocol a client may offer its token, which must not be kept.
	r.Header[headerProtocol] = []string{protocol.Subprotocol}
	w.Header().Del(headerExtensions)

	options := &websocket.AcceptOptions{
		Subprotocols:       []string{protocol.Subprotocol},
		InsecureSkipVerify: true, // the caller knows the origins
	}
	if s.config.Deflate {
		options.CompressionMode = websocket.CompressionNoContextTakeover
	}
	h := &handshake{ResponseWriter: w, timeout: s.config.CloseTimeout}
	ws, err := websocket.Accept(h, r, options)
	if err != nil {
		return nil, fmt.Errorf("socket: handshake: %w", err)
	}
	_ = ws.CloseNow() // it closes a deaf connection: from here on the real one is ours

	s.tune(h.nc)
	c := &Conn{srv: s, shard: uint8(s.shards.Add(1))}
	c.dec = decoder{
		deflates: strings.HasPrefix(w.Header().Get(headerExtensions), "permessage-deflate"),
	}
	if err := c.hold(h); err != nil {
		return nil, fmt.Errorf("socket: handshake: %w", err)
	}
	now := s.wheel.now.Load()
	c.heard.Store(now)
	if !s.wheel.add(c, now+s.limits.ping) {
		c.abort(true)
		if c.nc == nil {
			c.releaseFD()
		}
		return nil, ErrServerClosed
	}
	return c, nil
}

// hold takes the network connection: by its descriptor alone where that is
// possible, which is TCP without TLS on Linux. There the answer to the handshake waits
// for the first frames, to leave together with them; elsewhere it is sent here.
func (c *Conn) hold(h *handshake) error {
	if tcp, ok := h.nc.(*net.TCPConn); ok && !c.srv.config.portable && c.srv.polls.open() {
		if fd, ok := takeFD(tcp); ok {
			c.fd = fd
			c.more().answer = h.answer
			c.srv.polls.add(c)
			return nil
		}
	}
	if err := h.send(); err != nil {
		_ = h.nc.Close()
		return err
	}
	c.srv.metrics.sentBytes.add(c.shard, len(h.answer))
	c.nc = &netConn{h.nc}
	return nil
}

// tune sets what the kernel should know. It is a matter of memory and works
// without, hence no errors.
func (s *Server) tune(nc net.Conn) {
	nc = transport(nc)
	if b, ok := nc.(interface{ SetWriteBuffer(int) error }); ok && s.config.SendBuffer > 0 {
		_ = b.SetWriteBuffer(s.config.SendBuffer)
	}
	if s.config.NotSentLowat > 0 {
		setNotSentLowat(nc, s.config.NotSentLowat)
	}
}

// offers reports whether the request offers a subprotocol.
func offers(h http.Header, subprotocol string) bool {
	for _, line := range h.Values(headerProtocol) {
		for offer := range strings.SplitSeq(line, ",") {
			if strings.TrimSpace(offer) == subprotocol {
				return true
			}
		}
	}
	return false
}

// handshake is the response as websocket.Accept sees it. It takes the connection
// before the answer is sent, so that a failure can still be answered properly.
type handshake struct {
	http.ResponseWriter
	timeout time.Duration
	nc      net.Conn
	answer  []byte // the 101, which is still to be sent
	taken   bool   // the connection is not HTTP's any more, and ended
}

// WriteHeader keeps back the 101 until the connection is taken.
func (h *handshake) WriteHeader(status int) {
	if status != http.StatusSwitchingProtocols && !h.taken {
		h.ResponseWriter.WriteHeader(status)
	}
}

// Hijack takes the connection, writes the 101 down, and returns a connection that
// does nothing. Buffers are as small as they can be: they are thrown away.
func (h *handshake) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	nc, rw, err := http.NewResponseController(h.ResponseWriter).Hijack()
	if err != nil {
		for _, name := range []string{"Upgrade", "Connection", "Sec-Websocket-Accept", headerProtocol, headerExtensions} {
			h.Header().Del(name) // they belong to the answer that is not given
		}
		return nil, nil, err
	}
	if rw.Reader.Buffered() > 0 {
		return nil, nil, h.refuse(nc, ErrEarlyData)
	}
	var answer bytes.Buffer
	answer.Grow(320)
	answer.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	if err := h.Header().Write(&answer); err != nil {
		return nil, nil, h.refuse(nc, err)
	}
	answer.WriteString("\r\n")
	h.nc, h.answer = direct(nc), answer.Bytes()
	d := deaf{h.nc}
	return d, bufio.NewReadWriter(bufio.NewReaderSize(d, 16), bufio.NewWriterSize(d, 16)), nil
}

// send sends the 101.
func (h *handshake) send() error {
	if err := h.nc.SetWriteDeadline(time.Now().Add(h.timeout)); err != nil {
		return err
	}
	if _, err := h.nc.Write(h.answer); err != nil {
		return err
	}
	return h.nc.SetWriteDeadline(time.Time{})
}

// refuse ends a connection that was taken already.
func (h *handshake) refuse(nc net.Conn, err error) error {
	h.taken = true
	if errors.Is(err, ErrEarlyData) {
		text := "data before the handshake was complete\n"
		_ = nc.SetWriteDeadline(time.Now().Add(h.timeout))
		_, _ = fmt.Fprintf(nc, "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n"+
			"Content-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n\r\n%s", len(text), text)
	}
	_ = nc.Close()
	return err
}

// maxRefusal is how many bytes of a refusal by websocket.Accept are sent: it quotes
// whole headers.
const maxRefusal = 200

// Write drops what websocket.Accept has to say about a connection that is taken, and
// cuts what it says about another.
func (h *handshake) Write(p []byte) (int, error) {
	if h.taken {
		return len(p), nil
	}
	if _, err := h.ResponseWriter.Write(p[:min(len(p), maxRefusal)]); err != nil {
		return 0, err
	}
	return len(p), nil
}

// deaf is a connection whose end is not the end of what is below it.
type deaf struct{ net.Conn }

func (deaf) Close() error { return nil }
