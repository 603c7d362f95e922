package client

import (
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/protocol"
)

// TestConnOverTCP exchanges messages over a real socket, plain and deflated.
func TestConnOverTCP(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("歓声 ", 5000)
	for name, compress := range map[string]bool{"plain": false, "deflated": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t, func(p *peer) {
				p.welcome(false)
				p.send(`{"type":"unknown"}`)
				p.sendMessage(&protocol.State{Status: protocol.StatusLive, Title: long})
				m := p.read()
				p.sendMessage(&protocol.OK{Ref: m["ref"].(string), ID: "x"})
				p.close(protocol.CloseTooMany, "retry_ms=1500")
			})
			defer s.close()
			ts := httptest.NewServer(s)
			defer ts.Close()
			c, err := Dial(t.Context(), Options{
				URL: ts.URL, Room: "r", Compress: compress, HTTPClient: ts.Client(),
				Header: http.Header{"User-Agent": {"test"}},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = c.CloseNow() }()
			if m, err := c.Read(t.Context()); err != nil || m.(*protocol.Welcome).Session != testSession {
				t.Fatalf("read %v, %v, want a welcome", m, err)
			}
			if m, err := c.Read(t.Context()); err != nil || m.(*protocol.State).Title != long {
				t.Fatalf("read %v, %v, want the state", m, err)
			}
			if err := c.Send(t.Context(), &protocol.CommentRequest{Ref: "1", Text: long[:9000]}); err != nil {
				t.Fatal(err)
			}
			if m, err := c.Read(t.Context()); err != nil || m.(*protocol.OK).Ref != "1" {
				t.Fatalf("read %v, %v, want ok", m, err)
			}
			_, err = c.Read(t.Context())
			ce, ok := errors.AsType[*CloseError](err)
			if !ok || ce.Code != protocol.CloseTooMany || ce.RetryAfter() != 1500*time.Millisecond {
				t.Errorf("read error %v, want 4429 after 1.5 s", err)
			}
			if got := s.asked(0).UserAgent(); got != "test" {
				t.Errorf("User-Agent %q, want test", got)
			}
			if got := s.asked(0).Header.Get("Sec-WebSocket-Extensions") != ""; got != compress {
				t.Errorf("deflate offered: %v, want %v", got, compress)
			}
		})
	}
}

func TestDialRefusals(t *testing.T) {
	t.Parallel()
	ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/v1/rooms/other/ws" {
			ws, err := websocket.Accept(w, r, nil)
			if err == nil {
				_, _, _ = ws.Read(r.Context()) // until the client has gone
				_ = ws.CloseNow()
			}
			return
		}
		w.Header().Set("Retry-After", time.Now().Add(time.Hour).UTC().Format(http.TimeFormat))
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = io.WriteString(w, strings.Repeat("x", 1000))
	}))
	defer ts.Close()
	_, err := Dial(t.Context(), Options{URL: ts.URL, Room: "r", HTTPClient: ts.Client()})
	re, ok := errors.AsType[*RefusedError](err)
	if !ok || re.Status != 503 || re.RetryAfter != maxTold || len(re.Detail) != 300 || !re.Temporary() {
		t.Errorf("error %v, want a temporary 503 with the longest time", err)
	}
	if _, err := Dial(t.Context(), Options{URL: ts.URL, Room: "other", HTTPClient: ts.Client()}); !errors.Is(err, ErrSubprotocol) {
		t.Errorf("error %v, want ErrSubprotocol", err)
	}
	if _, err := Dial(t.Context(), Options{URL: "http://127.0.0.1:1", Room: "r"}); err == nil {
		t.Error("nobody answered, and there was no error")
	}
}

func TestReadHead(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ raw, typ, cursor string }{
		{`{"type":"comments","cursor":"ab-1","items":[]}`, "comments", "ab-1"},
		{`{"type":"comments","history":true,"cursor":"ab-1"}`, "comments", "ab-1"},
		{` { "cursor":"x", "type":"gap" }`, "gap", "x"},
		{`{"type":"removed","cursor":"x","ids":[]}`, "removed", "x"},
		{`{"type":"removed","ids":[],"cursor":"x"}`, "removed", "x"},
		{`{"type":"future","cursor":{"x":1}}`, "future", ""},
		{`{"type":"future","cursor":"not one!"}`, "future", ""},
		{`{"type":"f\u0075ture","cursor":"x"}`, "future", "x"},
		{`{"type":"beat","now":1}`, "beat", ""},
		{`{"type":"viewers","connections":1}`, "viewers", ""},
		{`{}`, "", ""},
	} {
		typ, cursor, err := readHead([]byte(tc.raw))
		if err != nil || string(typ) != tc.typ || string(cursor) != tc.cursor {
			t.Errorf("%s: %q %q %v, want %q %q", tc.raw, typ, cursor, err, tc.typ, tc.cursor)
		}
	}
	for _, raw := range []string{``, `[]`, `"x"`, `{"type":7}`, `{"type":"x`} {
		if _, _, err := readHead([]byte(raw)); !errors.Is(err, ErrMessage) {
			t.Errorf("%s: %v, want ErrMessage", raw, err)
		}
	}
}

func TestReadHeadAllocatesNothing(t *testing.T) { // not parallel: it counts
	frame := protocol.Encode(comments("0123456789abcdef", "a", "b"))
	if n := testing.AllocsPerRun(100, func() { _, _, _ = readHead(frame) }); n != 0 {
		t.Errorf("%v allocations for the head of a frame, want none", n)
	}
}

// FuzzReadHead compares the short way with encoding/json.
func FuzzReadHead(f *testing.F) {
	f.Add([]byte(`{"type":"comments","cursor":"ab-1","items":[]}`))
	f.Add([]byte(`{"type":"gap","cursor":"\u0061"}`))
	f.Add([]byte(`{"type":"welcome"}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		typ, cursor, err := readHead(raw)
		if err != nil {
			return
		}
		if len(cursor) > protocol.MaxCursor {
			t.Errorf("a cursor of %d bytes", len(cursor))
		}
		m, err := protocol.Decode(raw)
		if err != nil {
			return // the short way does not look at the rest
		}
		if g, ok := m.(*protocol.Gap); ok && protocol.ValidCursor(g.Cursor) && string(cursor) != g.Cursor &&
			strings.Count(string(raw), "ursor") == 1 {
			t.Errorf("cursor %q, want %q", cursor, g.Cursor)
		}
		if m != nil && len(typ) == 0 {
			t.Errorf("no type in %s", raw)
		}
	})
}
