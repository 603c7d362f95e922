package socket

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"

	"github.com/kansei-live/kansei/protocol"
)

// client is one of the clients that others have written.
type client interface {
	write(m string) error
	read() (string, error)
	close(code int, reason string) error
	closed(err error) (code int, reason string)
}

type coderClient struct{ *coder.Conn }

func dialCoder(url string, deflate bool) (client, error) {
	o := &coder.DialOptions{Subprotocols: []string{protocol.Subprotocol, protocol.BearerPrefix + "x"}, CompressionThreshold: 1}
	if deflate {
		o.CompressionMode = coder.CompressionNoContextTakeover
	}
	c, _, err := coder.Dial(context.Background(), url, o)
	if err != nil {
		return nil, err
	}
	c.SetReadLimit(-1)
	return coderClient{c}, nil
}

func (c coderClient) write(m string) error {
	return c.Write(context.Background(), coder.MessageText, []byte(m))
}

func (c coderClient) read() (string, error) {
	_, p, err := c.Read(context.Background())
	return string(p), err
}

func (c coderClient) close(code int, reason string) error {
	return c.Close(coder.StatusCode(code), reason)
}

func (c coderClient) closed(err error) (int, string) {
	if e, ok := errors.AsType[coder.CloseError](err); ok {
		return int(e.Code), e.Reason
	}
	return 0, ""
}

type gorillaClient struct{ *gorilla.Conn }

func dialGorilla(url string, deflate bool) (client, error) {
	d := gorilla.Dialer{Subprotocols: []string{protocol.Subprotocol, protocol.BearerPrefix + "x"}, EnableCompression: deflate}
	c, r, err := d.Dial(url, nil)
	if err != nil {
		return nil, err
	}
	return gorillaClient{c}, r.Body.Close()
}

func (c gorillaClient) write(m string) error { return c.WriteMessage(gorilla.TextMessage, []byte(m)) }

func (c gorillaClient) read() (string, error) {
	_, p, err := c.ReadMessage()
	return string(p), err
}

func (c gorillaClient) close(code int, reason string) error {
	if err := c.WriteMessage(gorilla.CloseMessage, gorilla.FormatCloseMessage(code, reason)); err != nil {
		return err
	}
	if _, err := c.read(); !gorilla.IsCloseError(err, code) {
		return fmt.Errorf("answered with %w", err)
	}
	return c.Close()
}

func (c gorillaClient) closed(err error) (int, string) {
	_ = c.Close()
	if e, ok := errors.AsType[*gorilla.CloseError](err); ok {
		return e.Code, e.Text
	}
	return 0, ""
}

// TestClients exchanges messages of every size with the clients that viewers use.
func TestClients(t *testing.T) { onBoth(t, testClients) }

func testClients(t *testing.T, via path) {
	for name, dial := range map[string]func(string, bool) (client, error){"coder": dialCoder, "gorilla": dialGorilla} {
		for _, deflate := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s deflate=%v", name, deflate), func(t *testing.T) {
				t.Parallel()
				st := withTCP(newSite(t, newTestServer(t, via.config(Config{Deflate: true, MaxMessage: 200000}))))
				url := "ws" + strings.TrimPrefix(st.URL, "http")
				c, err := dial(url, deflate)
				if err != nil {
					t.Fatal(err)
				}
				v := st.viewer()
				if v.conn.Deflates() != deflate {
					t.Fatalf("Deflates is %v", v.conn.Deflates())
				}
				for _, n := range []int{0, 1, 47, 48, 124, 125, 126, 127, 4096, 65535, 65536, 150000} {
					m := strings.Repeat("コメ b!", n/9+1)[:n]
					m = strings.ToValidUTF8(m, "")
					if err := c.write(m); err != nil {
						t.Fatal(err)
					}
					if got := v.message(); got != m {
						t.Fatalf("%d bytes: received %d", len(m), len(got))
					}
					f := Prepare([]byte(m), true)
					if n > 200 && f.Deflated == nil {
						t.Errorf("%d bytes were not worth deflating", n)
					}
					v.send(f.Bytes(v.conn.Deflates()), plain("between"), f.Bytes(v.conn.Deflates()))
					for _, want := range []string{m, "between", m} {
						if got, err := c.read(); err != nil || got != want {
							t.Fatalf("%d bytes: the client received %d (%v)", len(want), len(got), err)
						}
					}
				}
				if err := c.close(1000, "bye"); err != nil {
					t.Error(err)
				}
				if got := v.cause(); got.Kind != ClosedByPeer || got.Reason != "bye" {
					t.Errorf("cause %v", got)
				}

				if c, err = dial(url, deflate); err != nil {
					t.Fatal(err)
				}
				v = st.viewer()
				v.conn.Close(4403, "banned")
				_, err = c.read()
				if code, reason := c.closed(err); code != 4403 || reason != "banned" {
					t.Errorf("closed with %d %q (%v)", code, reason, err)
				}
				if got := v.cause(); got.Kind != ClosedByServer {
					t.Errorf("cause %v", got)
				}
			})
		}
	}
}
