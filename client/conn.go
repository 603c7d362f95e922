package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/protocol"
)

// Options say where one connection goes.
type Options struct {
	// URL is a node or what stands before the nodes: http, https, ws or wss, host,
	// and a path prefix if there is one.
	URL  string
	Room string
	// Token is the JWT to come with; empty: as a guest.
	Token string
	// Since is the cursor to go on from; empty: from now, with the recent comments.
	Since string
	// Session is that of an earlier welcome, to keep its identity; empty: a new one.
	Session string
	// Uncounted keeps the connection out of the room's counts, if its user may be: the
	// staff, and whose token says so.
	Uncounted bool
	// Watching is what is told of the viewer when it comes, as in a beat; nil: nothing.
	Watching *protocol.BeatRequest
	// Compress offers permessage-deflate, for what the server sends.
	Compress bool
	// HTTPClient makes the upgrade request; nil: [http.DefaultClient].
	HTTPClient *http.Client
	// Header is added to the upgrade request, such as an Origin or a User-Agent.
	Header http.Header
	// ReadLimit is the greatest message to take, in bytes; 0: 1 MiB.
	ReadLimit int64
	// Buffers lends the memory that messages are read into; nil: the connection
	// keeps its own.
	Buffers *Buffers
}

const defaultReadLimit = 1 << 20

// Buffers lends read buffers to many connections, so that one that is waiting
// for a message holds none. The zero value is ready.
type Buffers struct{ pool sync.Pool }

func (b *Buffers) get() *[]byte {
	if p, ok := b.pool.Get().(*[]byte); ok {
		return p
	}
	p := make([]byte, 0, 4096)
	return &p
}

func (b *Buffers) put(p *[]byte) {
	// One great message must not keep its memory for good.
	if cap(*p) <= 64<<10 {
		b.pool.Put(p)
	}
}

// Conn is one connection to a room. One goroutine may read while others send.
type Conn struct {
	ws   *websocket.Conn
	bufs *Buffers
	buf  *[]byte // what the last ReadRaw returned
}

// Dial opens a connection; ctx bounds the opening alone. Its error is a
// *[RefusedError] when the server answered with another status than 101.
func Dial(ctx context.Context, o Options) (*Conn, error) {
	target, err := o.target()
	if err != nil {
		return nil, err
	}
	header := o.Header.Clone()
	if header == nil {
		header = http.Header{}
	}
	if token := strings.TrimSpace(o.Token); token != "" { // files end with a line feed
		header.Set("Authorization", "Bearer "+token)
	}
	mode := websocket.CompressionDisabled
	if o.Compress {
		mode = websocket.CompressionNoContextTakeover
	}
	ws, resp, err := websocket.Dial(ctx, target, &websocket.DialOptions{
		HTTPClient:      o.HTTPClient,
		HTTPHeader:      header,
		Subprotocols:    []string{protocol.Subprotocol},
		CompressionMode: mode,
		// What a viewer sends is short: a compressor of 1.2 MB would not pay.
		CompressionThreshold: math.MaxInt,
	})
	if err != nil {
		if resp != nil && resp.StatusCode != http.StatusSwitchingProtocols {
			return nil, refused(resp)
		}
		return nil, fmt.Errorf("client: dial %s: %w", o.URL, err)
	}
	if got := ws.Subprotocol(); got != protocol.Subprotocol {
		_ = ws.CloseNow() // it is of no use either way
		return nil, fmt.Errorf("%w: %s chose %q", ErrSubprotocol, o.URL, got)
	}
	limit := o.ReadLimit
	if limit <= 0 {
		limit = defaultReadLimit
	}
	ws.SetReadLimit(limit)
	bufs := o.Buffers
	if bufs == nil {
		bufs = new(Buffers)
	}
	return &Conn{ws: ws, bufs: bufs}, nil
}

// target is the address of the room's WebSocket.
func (o *Options) target() (string, error) {
	if !protocol.ValidRoom(o.Room) {
		return "", fmt.Errorf("client: %q is not a room name", o.Room)
	}
	u, err := url.Parse(o.URL)
	if err != nil {
		return "", fmt.Errorf("client: address: %w", err)
	}
	switch u.Scheme {
	case "http", "https", "ws", "wss":
	default:
		return "", fmt.Errorf("client: address %q: the scheme must be http, https, ws or wss", o.URL)
	}
	if u.Host == "" {
		return "", fmt.Errorf("client: address %q has no host", o.URL)
	}
	// As it was written: a prefix may have an escaped slash, which Path alone forgets.
	u.RawPath = strings.TrimRight(u.EscapedPath(), "/") + "/v1/rooms/" + o.Room + "/ws"
	u.Path = strings.TrimRight(u.Path, "/") + "/v1/rooms/" + o.Room + "/ws"
	q := u.Query()
	if o.Since != "" {
		q.Set("since", o.Since)
	}
	if o.Session != "" {
		q.Set("session", o.Session)
	}
	if o.Uncounted {
		q.Set("count", "0")
	}
	if w := o.Watching; w != nil && w.Visible != nil {
		q.Set("visible", map[bool]string{true: "1", false: "0"}[*w.Visible])
	}
	if w := o.Watching; w != nil && w.MediaMS != nil {
		q.Set("media_ms", strconv.FormatInt(*w.MediaMS, 10))
	}
	u.RawQuery = q.Encode()
	return u.String(), nil
}

func refused(resp *http.Response) error {
	e := &RefusedError{
		Status:     resp.StatusCode,
		RetryAfter: parseRetryAfter(resp.Header.Get("Retry-After"), time.Now()),
	}
	if resp.Body != nil {
		b, _ := io.ReadAll(io.LimitReader(resp.Body, 300)) // as much as there is
		_ = resp.Body.Close()
		e.Detail = strings.TrimSpace(strings.ToValidUTF8(string(b), ""))
	}
	return e
}

// ReadRaw waits for the next message and returns it as it came. The bytes are
// valid until the next call. The error is a *[CloseError] when the server closed
// the connection; any error ends the connection, the end of ctx too.
func (c *Conn) ReadRaw(ctx context.Context) ([]byte, error) {
	if c.buf != nil {
		c.bufs.put(c.buf)
		c.buf = nil
	}
	typ, r, err := c.ws.Reader(ctx)
	if err != nil {
		return nil, readError(err)
	}
	if typ != websocket.MessageText {
		_ = c.ws.Close(websocket.StatusUnsupportedData, "messages are text") // within 10 s
		return nil, fmt.Errorf("%w: it is binary", ErrMessage)
	}
	c.buf = c.bufs.get()
	b := (*c.buf)[:0]
	for {
		if len(b) == cap(b) {
			b = append(b, 0)[:len(b)]
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		if err == io.EOF {
			*c.buf = b
			return b, nil
		}
		if err != nil {
			return nil, readError(err)
		}
	}
}

// Read waits for the next message that this version knows. Its errors are those
// of [Conn.ReadRaw], and [ErrMessage].
func (c *Conn) Read(ctx context.Context) (protocol.Message, error) {
	for {
		raw, err := c.ReadRaw(ctx)
		if err != nil {
			return nil, err
		}
		m, err := decode[protocol.Message](raw)
		if err != nil || m != nil {
			return m, err
		}
	}
}

// Send sends a request. The end of ctx, if it comes before all is written, ends
// the connection.
func (c *Conn) Send(ctx context.Context, r protocol.Request) error {
	if err := c.ws.Write(ctx, websocket.MessageText, protocol.EncodeRequest(r)); err != nil {
		return fmt.Errorf("client: send: %w", err)
	}
	return nil
}

// Close says goodbye and waits up to 10 s until the server has answered.
func (c *Conn) Close(code protocol.CloseCode, reason string) error {
	if err := c.ws.Close(websocket.StatusCode(code), reason); err != nil {
		return fmt.Errorf("client: close: %w", err)
	}
	return nil
}

// CloseNow ends the connection without a word.
func (c *Conn) CloseNow() error {
	if err := c.ws.CloseNow(); err != nil {
		return fmt.Errorf("client: close: %w", err)
	}
	return nil
}

func readError(err error) error {
	if e, ok := errors.AsType[websocket.CloseError](err); ok {
		return &CloseError{Code: protocol.CloseCode(e.Code), Reason: e.Reason}
	}
	if errors.Is(err, websocket.ErrMessageTooBig) {
		return fmt.Errorf("%w: %w", ErrMessage, err)
	}
	return fmt.Errorf("client: read: %w", err)
}

// decode decodes a message as an M, or as nothing if it is of a type that is not
// known.
func decode[M protocol.Message](raw []byte) (m M, err error) {
	v, err := protocol.Decode(raw)
	if err != nil {
		return m, fmt.Errorf("%w: %w", ErrMessage, err)
	}
	m, _ = v.(M)
	return m, nil
}
