package bench

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/protocol"
)

// serve starts a WebSocket server, each connection of which is act's, and a crowd of n.
func serve(t *testing.T, n int, act func(ctx context.Context, c *websocket.Conn, raw net.Conn)) *crowd {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		g := &grip{ResponseWriter: w}
		c, err := websocket.Accept(g, r, &websocket.AcceptOptions{
			Subprotocols: []string{protocol.Subprotocol}, CompressionMode: websocket.CompressionNoContextTakeover,
		})
		if err != nil {
			return
		}
		defer func() { _ = c.CloseNow() }()
		act(r.Context(), c, g.nc)
	}))
	t.Cleanup(srv.Close)
	address := strings.TrimPrefix(srv.URL, "http://")
	c, err := newCrowd(address, false, func(int) []byte { return upgrade(address, "r", "token", true) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	if err := c.bring(t.Context(), 0, n, 1000, normal); err != nil {
		t.Fatal(err)
	}
	return c
}

func eventually(t *testing.T, c *crowd, what string, ready func() bool) {
	t.Helper()
	if err := c.await(t.Context(), 10*time.Second, func() (bool, string) { return ready(), what }); err != nil {
		t.Fatal(err)
	}
}

// Many viewers come from more than one address.
func TestSources(t *testing.T) {
	t.Parallel()
	for number, want := range map[int][4]byte{0: {127, 0, 0, 1}, perSource - 1: {127, 0, 0, 1}, perSource: {127, 0, 0, 2}, 300 * perSource: {127, 0, 1, 45}} {
		if got := source(number).Addr; got != want {
			t.Errorf("%d: %v, want %v", number, got, want)
		}
	}
	if got := tcpAddress(netip.MustParseAddrPort("127.0.0.2:8080")); got != "0200007F:1F90" {
		t.Errorf("%s", got)
	}
}

// Frames may come in any pieces, and several at once.
func TestFramesInPieces(t *testing.T) {
	t.Parallel()
	c := serve(t, 3, func(ctx context.Context, c *websocket.Conn, raw net.Conn) {
		var all []byte
		for n := range 20 {
			all = append(all, floorFrame(0, n, 130+n)...)
		}
		for i, b := range all {
			if i < 500 { // byte by byte, then the rest at once
				_, _ = raw.Write([]byte{b})
				continue
			}
			_, _ = raw.Write(all[i:])
			break
		}
		_, _, _ = c.Read(ctx) // until the other end goes
	})
	eventually(t, c, "all came", func() bool { return c.tally.deliveries == 60 && c.tally.frames == 60 })
	if got := c.counts(); got.latency.TotalCount() != 60 || got.other != 0 {
		t.Errorf("%d timed, %d others", got.latency.TotalCount(), got.other)
	}
}

// A crowd reads what is deflated, answers pings, and says what it is told to.
func TestConversation(t *testing.T) {
	t.Parallel()
	c := serve(t, 2, func(ctx context.Context, c *websocket.Conn, _ net.Conn) {
		long := protocol.Encode(&protocol.Comments{Cursor: "c", Items: []protocol.Comment{{ID: "1", Text: text(0, 1) + strings.Repeat("8", 600)}}})
		_ = c.Write(ctx, websocket.MessageText, long)
		reading := c.CloseRead // pongs are seen by who reads
		pinged := make(chan error, 1)
		go func() { pinged <- c.Ping(ctx) }() // ends with the answer
		_, p, err := c.Read(ctx)
		if err != nil || string(p) != "hello" {
			return
		}
		over := reading(ctx)
		if <-pinged == nil {
			_ = c.Write(over, websocket.MessageText, protocol.Encode(&protocol.OK{Ref: "r", ID: "1"}))
		}
		<-over.Done()
	})
	eventually(t, c, "comments came", func() bool { return c.tally.deliveries == 2 })
	hello, err := deflated([]byte("hello"))
	if err != nil {
		t.Fatal(err)
	}
	c.send(0, hello)
	c.send(1, clientFrame(opText, []byte("hello")))
	eventually(t, c, "both are answered", func() bool { return c.tally.acks == 2 })
	if err := c.leave(t.Context(), 2); err != nil {
		t.Error(err)
	}
	if c.in != 0 || c.open != 0 {
		t.Errorf("%d in, %d open", c.in, c.open)
	}
}

// Who is sent away makes the run fail, and the code is told.
func TestCutOff(t *testing.T) {
	t.Parallel()
	c := serve(t, 1, func(ctx context.Context, c *websocket.Conn, _ net.Conn) {
		_, _, _ = c.Read(ctx) // until everybody is in
		_ = c.Close(websocket.StatusCode(protocol.CloseTooSlow), "too slow")
	})
	c.send(0, clientFrame(opText, []byte("all are in")))
	err := c.await(t.Context(), 10*time.Second, func() (bool, string) { return false, "nobody is cut off" })
	if err == nil || !strings.Contains(err.Error(), "4408") {
		t.Errorf("%v", err)
	}
	if e := c.events[0]; e.code != 4408 {
		t.Errorf("%+v", e)
	}
}

func TestRefused(t *testing.T) {
	t.Parallel()
	srv := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(srv.Close)
	address := strings.TrimPrefix(srv.URL, "http://")
	c, err := newCrowd(address, true, func(int) []byte { return upgrade(address, "r", "token", false) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	if err := c.bring(t.Context(), 0, 1, 1000, normal); err == nil || !strings.Contains(err.Error(), "404") {
		t.Errorf("%v", err)
	}
	if _, err := newCrowd("nonsense", true, nil); err == nil {
		t.Error("a nonsensical address is taken")
	}
}

// The floor writes what it is told to, to all that are there.
func TestFloorObeys(t *testing.T) {
	t.Parallel()
	orders, say := io.Pipe()
	answers, out := io.Pipe()
	ended := make(chan error, 1)
	go func() { ended <- serveFloor(t.Context(), orders, out) }() // ends with its orders
	f := &bare{process: &process{lines: make(chan string, 8), done: make(chan struct{}), in: say}}
	go func() { // ends with the floor's answers
		buf := make([]byte, 1024)
		for {
			n, err := answers.Read(buf)
			if err != nil {
				return
			}
			f.note(string(buf[:n]))
		}
	}()
	a, err := f.answer(t.Context(), 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	c, err := newCrowd(a.Address, false, func(int) []byte { return upgrade(a.Address, "floor", "token", true) })
	if err != nil {
		t.Fatal(err)
	}
	if err := c.bring(t.Context(), 0, 5, 1000, normal); err != nil {
		t.Fatal(err)
	}
	plan := newSchedule(1, 100, 100*time.Millisecond)
	c.begin(plan)
	if a, err = f.write(t.Context(), plan, 300, 0); err != nil || a.Writes != 50 || a.Failed != 0 {
		t.Errorf("%+v %v", a, err)
	}
	if err := c.settle(t.Context(), 50); err != nil {
		t.Error(err)
	}
	if got := c.counts(); got.deliveries != 50 || got.bytes%50 != 0 || got.bytes/50 < 290 {
		t.Errorf("%+v", got)
	}
	// In groups of two the fifth has no turn.
	plan = newSchedule(2, 100, 100*time.Millisecond)
	c.begin(plan)
	if a, err = f.write(t.Context(), plan, 300, 2); err != nil || a.Writes != 20 || a.Failed != 0 {
		t.Errorf("%+v %v", a, err)
	}
	if err := c.settle(t.Context(), 20); err != nil {
		t.Error(err)
	}
	c.close()
	_ = say.Close()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	_ = out.Close()
}
