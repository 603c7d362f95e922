package conformance

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"

	coder "github.com/coder/websocket"
)

func playCoder(t *testing.T, table []scenario) {
	playGo(t, table, dialCoder, fragments|pings|codes|newCodes, []mode{
		{name: "not asked for chopped", agree: true, chopped: true},
		{name: "declined", offer: true},
		{name: "agreed", offer: true, agree: true},
		{name: "agreed without takeover", offer: true, agree: true, options: map[string]any{noTakeover: true}},
	})
}

// noTakeover is coder's only option: it offers both parameters for it or none.
const noTakeover = "no context takeover"

type coderClient struct {
	*coder.Conn
	w       *wire
	pings   *coderPings
	idle    func()
	closing *closing
}

// closing is a call of Close.
type closing struct {
	begun atomic.Bool
	done  chan struct{} // closed when it has returned
	err   error
}

// coderPings has coder's pings, whose payload it numbers, bear any.
type coderPings struct {
	mu    sync.Mutex
	sent  int
	bears map[string]string
}

func dialCoder(ctx context.Context, r *run, w *wire, s *seen) (goClient, error) {
	pings := &coderPings{bears: map[string]string{}}
	transport := &http.Transport{DialContext: w.dial, TLSClientConfig: r.house.trust()}
	o := &coder.DialOptions{
		HTTPClient:           &http.Client{Transport: transport},
		Subprotocols:         subprotocols(),
		CompressionThreshold: 64,
		OnPingReceived: func(_ context.Context, data []byte) bool {
			s.note(func(p *report) { p.Pings = append(p.Pings, string(data)) })
			return true
		},
		OnPongReceived: func(_ context.Context, data []byte) {
			pings.mu.Lock()
			text, ok := pings.bears[string(data)]
			pings.mu.Unlock()
			if !ok {
				text = "unasked " + string(data)
			}
			s.note(func(p *report) { p.Pongs = append(p.Pongs, text) })
		},
	}
	switch {
	case r.mode.options[noTakeover] != nil:
		o.CompressionMode = coder.CompressionNoContextTakeover
	case r.mode.offer:
		o.CompressionMode = coder.CompressionContextTakeover
	}
	c, res, err := coder.Dial(ctx, r.url(), o)
	if err != nil {
		return nil, err
	}
	s.agreed(res)
	c.SetReadLimit(-1)
	return coderClient{c, w, pings, transport.CloseIdleConnections, &closing{done: make(chan struct{})}}, nil
}

func (c coderClient) read() (string, error) {
	kind, p, err := c.Read(context.Background())
	if err == nil && kind != coder.MessageText {
		err = fmt.Errorf("a message of kind %v", kind)
	}
	return string(p), err
}

func (c coderClient) send(text string) error {
	return c.Write(context.Background(), coder.MessageText, []byte(text))
}

func (c coderClient) binary(text string) error {
	return c.Write(context.Background(), coder.MessageBinary, []byte(text))
}

func (c coderClient) fragments(parts [][]byte, between func() error) error {
	w, err := c.Writer(context.Background(), coder.MessageText)
	if err != nil {
		return err
	}
	return writeParts(w, parts, between)
}

// ping waits for the pong as well.
func (c coderClient) ping(data string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c.pings.mu.Lock()
	c.pings.sent++
	c.pings.bears[fmt.Sprint(c.pings.sent)] = data
	c.pings.mu.Unlock()
	return c.Ping(ctx)
}

func (c coderClient) close(code int, reason string) error {
	c.w.letGo(1) // it waits for the answer
	defer close(c.closing.done)
	c.closing.begun.Store(true)
	if c.closing.err = c.Close(coder.StatusCode(code), reason); c.closing.err == nil {
		c.closing.err = coder.CloseError{Code: coder.StatusCode(code)} // the answer was the same
	}
	return nil
}

// closed: either read or Close reads the close frame.
func (c coderClient) closed(err error) (int, string, bool) {
	if e, ok := errors.AsType[coder.CloseError](err); ok {
		return int(e.Code), e.Reason, true
	}
	if c.closing.begun.Load() {
		<-c.closing.done
		if e, ok := errors.AsType[coder.CloseError](c.closing.err); ok {
			return int(e.Code), e.Reason, true
		}
		err = c.closing.err
	}
	return 1006, err.Error(), false
}

func (c coderClient) release() {
	_ = c.CloseNow()
	c.idle()
}
