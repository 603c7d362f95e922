package socket

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestServerClose closes a server with peers of every kind.
func TestServerClose(t *testing.T) { onBoth(t, testServerClose) }

func testServerClose(t *testing.T, via path) {
	m := NewMetrics(nil)
	s := NewServer(via.config(Config{Metrics: m, CloseTimeout: 300 * time.Millisecond}))
	st := withTCP(newSite(t, s))
	good, _ := st.dial("")
	var viewers []*viewer
	_, idle := st.dial("") // never answers, never ends
	_, frozen := st.dial("")
	frozen.behind(m)
	gone, lost := st.dial("")
	_ = gone.Close()
	viewers = append(viewers, idle, frozen, lost)
	never, _ := pipe(t, s) // accepted, never started; its peer reads nothing
	if n := s.Len(); n < 4 || n > 5 {
		t.Errorf("Len is %d", n)
	}

	closed := make(chan error)
	go func() { closed <- s.Close(context.Background()) }() // ends when the server has
	good.expectClose(1001, "shutting down")
	_ = good.Close()
	if err := <-closed; err != nil {
		t.Error(err)
	}
	for _, v := range viewers {
		v.cause()
	}
	if n := s.Len(); n != 0 {
		t.Errorf("Len is %d", n)
	}
	v := newViewer(t)
	never.Start(v)
	if got := v.cause(); got.Kind != ClosedByServer || got.Code != 1001 {
		t.Errorf("cause %v", got)
	}
	if r, err := http.DefaultClient.Get(st.URL); err != nil || r.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("after Close: %v, %v", r, err)
	} else {
		_ = r.Body.Close()
	}
	http.DefaultClient.CloseIdleConnections()
	if err := s.Close(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestServerCloseByForce: the context bounds Close.
func TestServerCloseByForce(t *testing.T) { onBoth(t, testServerCloseByForce) }

func testServerCloseByForce(t *testing.T, via path) {
	m := NewMetrics(nil)
	s := NewServer(via.config(Config{Metrics: m, CloseTimeout: time.Hour}))
	st := withTCP(newSite(t, s))
	_, v := st.dial("")
	_, frozen := st.dial("")
	frozen.behind(m)
	ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
	defer cancel()
	if err := s.Close(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("Close: %v", err)
	}
	v.cause()
	frozen.cause()
}

// TestCloseDuringAccept closes servers while connections arrive: every connection
// ends, and every started one is reported.
func TestCloseDuringAccept(t *testing.T) { onBoth(t, testCloseDuringAccept) }

func testCloseDuringAccept(t *testing.T, via path) {
	for range 20 {
		s := NewServer(via.config(Config{CloseTimeout: 200 * time.Millisecond}))
		st := withTCP(newSite(t, s))
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				nc, err := net.Dial("tcp", st.Listener.Addr().String())
				if err != nil {
					t.Error(err)
					return
				}
				defer func() { _ = nc.Close() }()
				if _, err := io.WriteString(nc, request("")); err != nil {
					return
				}
				br := bufio.NewReader(nc)
				r, err := http.ReadResponse(br, nil)
				if err != nil || r.StatusCode != http.StatusSwitchingProtocols {
					return
				}
				_, _ = io.Copy(io.Discard, br) // up to the end, whichever it is
			})
		}
		if err := s.Close(context.Background()); err != nil {
			t.Error(err)
		}
		wg.Wait()
		eventually(t, "the handlers have returned", func() bool { return st.running.Load() == 0 })
		for range len(st.viewers) {
			(<-st.viewers).cause()
		}
	}
}

// TestChurn opens, uses and ends connections in every way at once; goleak looks
// for what is left.
func TestChurn(t *testing.T) { onBoth(t, testChurn) }

func testChurn(t *testing.T, via path) {
	s := newTestServer(t, via.config(Config{Deflate: true, CloseTimeout: time.Second}))
	st := withTCP(newSite(t, s))
	var wg sync.WaitGroup
	for i := range 60 {
		p, v := st.dial(offerDeflate)
		wg.Go(func() {
			for range 20 {
				v.send(plain("x"))
			}
		})
		wg.Go(func() {
			p.write(text("hello"), frame(finBit|opPing, "x"), frame(opText, "half"))
			switch i % 5 {
			case 0:
				_ = p.Close()
			case 1:
				_ = p.Conn.(*net.TCPConn).SetLinger(0)
				_ = p.Close()
			case 2:
				_, _ = p.Write(closing(1000, ""))
				_, _ = io.Copy(io.Discard, p.br)
				_ = p.Close()
			case 3:
				v.conn.Close(4400, "")
				_, _ = io.Copy(io.Discard, p.br)
				_ = p.Close()
			case 4:
				_, _ = p.Write([]byte{0xff, 0xff, 0xff})
				_, _ = io.Copy(io.Discard, p.br)
				_ = p.Close()
			}
			v.cause()
		})
	}
	wg.Wait()
	eventually(t, "all are forgotten", func() bool { return s.Len() == 0 })
}
