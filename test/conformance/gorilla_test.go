package conformance

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	gorilla "github.com/gorilla/websocket"
)

func playGorilla(t *testing.T, table []scenario) {
	playGo(t, table, dialGorilla, fragments|pings|codes, []mode{
		{name: "not asked for", agree: true},
		{name: "declined", offer: true},
		{name: "agreed", offer: true, agree: true},
		{name: "agreed chopped", offer: true, agree: true, chopped: true},
	})
}

type gorillaClient struct{ *gorilla.Conn }

func dialGorilla(ctx context.Context, r *run, w *wire, s *seen) (goClient, error) {
	// It sends in fragments what exceeds its buffer.
	size := 100
	if r.needs&fragments == 0 {
		size = 1000
		for _, m := range r.steps {
			size = max(size, len(m.Text))
		}
	}
	d := gorilla.Dialer{
		Subprotocols:      subprotocols(),
		EnableCompression: r.mode.offer,
		WriteBufferSize:   size,
		NetDialContext:    w.dial,
		TLSClientConfig:   r.house.trust(),
	}
	c, res, err := d.DialContext(ctx, r.url(), nil)
	if err != nil {
		return nil, err
	}
	s.agreed(res)
	c.SetPongHandler(func(data string) error {
		s.note(func(p *report) { p.Pongs = append(p.Pongs, data) })
		return nil
	})
	answer := c.PingHandler()
	c.SetPingHandler(func(data string) error {
		s.note(func(p *report) { p.Pings = append(p.Pings, data) })
		return answer(data)
	})
	return gorillaClient{c}, res.Body.Close()
}

func (c gorillaClient) read() (string, error) {
	kind, p, err := c.ReadMessage()
	if err == nil && kind != gorilla.TextMessage {
		err = fmt.Errorf("a message of kind %d", kind)
	}
	return string(p), err
}

func (c gorillaClient) send(text string) error {
	return c.WriteMessage(gorilla.TextMessage, []byte(text))
}

func (c gorillaClient) binary(text string) error {
	return c.WriteMessage(gorilla.BinaryMessage, []byte(text))
}

func (c gorillaClient) fragments(parts [][]byte, between func() error) error {
	w, err := c.NextWriter(gorilla.TextMessage)
	if err != nil {
		return err
	}
	return writeParts(w, parts, between)
}

func (c gorillaClient) ping(data string) error {
	return c.WriteControl(gorilla.PingMessage, []byte(data), time.Now().Add(patience))
}

func (c gorillaClient) close(code int, reason string) error {
	return c.WriteMessage(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, reason))
}

func (c gorillaClient) closed(err error) (int, string, bool) {
	if e, ok := errors.AsType[*gorilla.CloseError](err); ok {
		return e.Code, e.Text, true
	}
	return 1006, err.Error(), false
}

func (c gorillaClient) release() { _ = c.Close() }
