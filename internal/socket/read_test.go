package socket

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// echoing has every viewer send back what it gets.
func echoing(st *site) {
	st.prepare = func(v *viewer) { v.onMessage = func(p []byte) { v.send(plain(string(p))) } }
}

// TestFlood has a peer send messages of all sizes as fast as it can, in pieces that
// are not the messages': all arrive, in order.
func TestFlood(t *testing.T) { onBoth(t, testFlood) }

func testFlood(t *testing.T, via path) {
	st := withTCP(newSite(t, newTestServer(t, via.config(Config{}))))
	p, v := st.dial("")
	message := func(i int) string { return fmt.Sprintf("%d %s", i, strings.Repeat("x", i*37%8000)) }
	const n = 800
	go func() { // ends when all are sent or the test has closed the connection
		var stream []byte
		for i := range n {
			stream = append(stream, text(message(i))...)
			if i%3 == 0 {
				stream = append(stream, frame(finBit|opPong, "")...)
			}
			for len(stream) > 10000 {
				if _, err := p.Write(stream[:10000]); err != nil {
					return
				}
				stream = stream[10000:]
			}
		}
		_, _ = p.Write(stream)
	}()
	for i := range n {
		if got := v.message(); got != message(i) {
			t.Fatalf("message %.20q (%d bytes), want %.20q", got, len(got), message(i))
		}
	}
}

// TestSlowHandlers: handlers that do not return keep nobody else, even if there are
// more of them than are read at a time; and what comes meanwhile is not lost.
func TestSlowHandlers(t *testing.T) { onBoth(t, testSlowHandlers) }

func testSlowHandlers(t *testing.T, via path) {
	release := make(chan struct{})
	st := withTCP(newSite(t, newTestServer(t, via.config(Config{})), func(st *site) {
		st.prepare = func(v *viewer) {
			v.onMessage = func(p []byte) {
				if string(p) == "wait" {
					<-release
				}
				v.got <- string(p)
			}
		}
	}))
	const n = 150
	var slow []*viewer
	for range n {
		p, v := st.dial("")
		slow = append(slow, v)
		p.write(text("wait"), text("behind it"))
		p.write(frame(finBit|opPing, "")[:3])
		defer p.write(frame(finBit|opPing, "")[3:])
	}
	p, v := st.dial("")
	for range 10 {
		p.write(text("hello"))
		if got := v.message(); got != "hello" {
			t.Errorf("received %q", got)
		}
	}
	for _, v := range slow {
		if len(v.got) > 0 {
			t.Fatal("a message was taken while the one before it was under way")
		}
	}
	close(release)
	for _, v := range slow {
		for _, want := range []string{"wait", "behind it"} {
			if got := v.message(); got != want {
				t.Errorf("received %q, want %q", got, want)
			}
		}
	}
}

// TestEndDuringMessage ends connections in every way while their handler is at
// work: Closed comes when it has returned.
func TestEndDuringMessage(t *testing.T) { onBoth(t, testEndDuringMessage) }

func testEndDuringMessage(t *testing.T, via path) {
	for name, end := range map[string]func(*peer, *viewer){
		"peer":   func(p *peer, _ *viewer) { _ = p.Close() },
		"server": func(_ *peer, v *viewer) { v.conn.Close(4400, "") },
		"force":  func(_ *peer, v *viewer) { v.conn.abort(true) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			entered, release := make(chan struct{}), make(chan struct{})
			st := withTCP(newSite(t, newTestServer(t, via.config(Config{CloseTimeout: 50 * time.Millisecond})), func(st *site) {
				st.prepare = func(v *viewer) {
					v.onMessage = func([]byte) {
						close(entered)
						<-release
					}
				}
			}))
			p, v := st.dial("")
			p.write(text("x"))
			<-entered
			end(p, v)
			time.Sleep(200 * time.Millisecond) // past the time to close
			if len(v.done) > 0 {
				t.Error("Closed was called during Message")
			}
			close(release)
			v.cause()
		})
	}
}
