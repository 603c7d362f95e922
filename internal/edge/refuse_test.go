package edge

import (
	"bufio"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/socket"

	"github.com/kansei-live/kansei/protocol"
)

// stranger asks to be let in without a token, reads the answer and does nothing more.
func stranger(t *testing.T, address string) (*http.Response, net.Conn) {
	t.Helper()
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	if _, err := fmt.Fprint(c, "GET /v1/rooms/r/ws HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Protocol: kansei.v1\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		t.Fatal(err)
	}
	return res, c
}

// Who is refused takes the place of no viewer, is held for a short time, and when there
// are too many is refused without being held.
func TestRefusedAreBounded(t *testing.T) {
	t.Parallel()
	sockets := socket.NewServer(socket.Config{})
	defer func() { _ = sockets.Close(t.Context()) }()
	s := New(Config{GuestIDs: new(auth.Guests), Sockets: sockets, Guests: protocol.GuestsNone, MaxViewers: 1, Metrics: NewMetrics(nil), Logger: slog.New(slog.DiscardHandler)})
	defer s.Close()
	mux := http.NewServeMux()
	s.Register(mux)
	site := httptest.NewServer(mux)
	defer site.Close()
	address := site.Listener.Addr().String()

	const n = 20
	began := time.Now()
	var conns []net.Conn
	for range n {
		res, c := stranger(t, address)
		if res.StatusCode != http.StatusSwitchingProtocols {
			t.Fatalf("refused with %s", res.Status)
		}
		conns = append(conns, c)
	}
	if v, r := s.viewers.Load(), s.refused.Load(); v != 0 || r != n && time.Since(began) < time.Second || s.Ready() != nil {
		t.Errorf("%d viewers, %d refused; %v", v, r, s.Ready())
	}
	for _, c := range conns { // their end comes without anything of theirs
		_, _ = io.Copy(io.Discard, c)
	}
	for end := time.Now().Add(time.Minute); s.refused.Load() > 0; time.Sleep(2 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d are held for ever", s.refused.Load())
		}
	}
	if d := time.Since(began); d > 5*time.Second {
		t.Logf("they were held for %v", d) // on a machine that is busy
	}

	s.refused.Store(MaxRefused)
	res, _ := stranger(t, address)
	if res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "2" {
		t.Errorf("one more than may be refused at a time: %s, Retry-After %q", res.Status, res.Header.Get("Retry-After"))
	}
	if got := s.refused.Load(); got != MaxRefused {
		t.Errorf("%d are counted, want %d", got, MaxRefused)
	}
}
