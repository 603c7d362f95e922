package edge

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
)

// pipes is a listener in memory.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	if c, ok := <-p; ok {
		return c, nil
	}
	return nil, net.ErrClosed
}
func (p pipes) Close() error { close(p); return nil }
func (pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dial offers a connection; it is accepted when it is accepted.
func (p pipes) dial() net.Conn {
	client, server := net.Pipe()
	p <- server
	return client
}

func doorSite(t *testing.T, places int, h http.HandlerFunc) (pipes, *Door) {
	l := make(pipes, 1000)
	srv := &http.Server{Handler: h, ReadHeaderTimeout: 5 * time.Second, ReadTimeout: bodyTime}
	d := NewDoor(DoorConfig{Places: places, Listener: ListenerPublic, Metrics: NewMetrics(prometheus.NewRegistry())})
	guarded := d.Guard(l, srv)
	done := make(chan error, 1)
	go func() { done <- srv.Serve(guarded) }() // ends with srv
	t.Cleanup(func() {
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		synctest.Wait() // for what the connections have to say
		if n := testutil.ToFloat64(d.open); n != 0 {
			t.Errorf("%v connections are held after the end", n)
		}
	})
	return l, d
}

func ask(t *testing.T, c net.Conn) {
	t.Helper()
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != http.StatusNoContent {
		t.Fatalf("answered %v, %v", res, err)
	}
}

// Sockets that are merely open, fresh or after a request, keep nobody out for longer
// than they are waited for.
func TestDoorIdleSockets(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const places = 10
		l, d := doorSite(t, places, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
		var idle []net.Conn
		for i := range 3 * places {
			c := l.dial()
			defer func() { _ = c.Close() }()
			if i%2 == 0 && i < places {
				ask(t, c)
			}
			idle = append(idle, c)
		}
		synctest.Wait()
		if n := testutil.ToFloat64(d.open); n != places {
			t.Errorf("%v connections are held, want %d", n, places)
		}
		began := time.Now()
		c := l.dial()
		defer func() { _ = c.Close() }()
		ask(t, c)
		if took := time.Since(began); took > 3*doorPatience {
			t.Errorf("a newcomer waited for %v behind %d idle sockets", took, len(idle))
		}
		if n := testutil.ToFloat64(d.evicted); n < 2*places+1 || n > 2*places+2 { // one more for the next connection
			t.Errorf("%v were evicted, want %d", n, 2*places+1)
		}
		_ = idle[0].SetReadDeadline(time.Now().Add(time.Second))
		if _, err := idle[0].Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
			t.Errorf("the longest-waiting one: %v", err)
		}
	})
}

// A body that is announced and held back keeps a place no longer than an idle socket does.
func TestDoorBodies(t *testing.T) {
	t.Parallel()
	for name, header := range map[string]string{"of a length": "Content-Length: 1000", "in chunks": "Transfer-Encoding: chunked"} {
		for _, method := range []string{"GET", "POST"} {
			t.Run(method+" "+name, func(t *testing.T) {
				t.Parallel()
				synctest.Test(t, func(t *testing.T) {
					const places = 5
					l, _ := doorSite(t, places, func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })
					for range places {
						c := l.dial()
						defer func() { _ = c.Close() }()
						if _, err := io.WriteString(c, method+" / HTTP/1.1\r\nHost: x\r\n"+header+"\r\n\r\n"); err != nil {
							t.Fatal(err)
						}
						go func() { _, _ = io.Copy(io.Discard, c) }() // ends with c
					}
					began := time.Now()
					c := l.dial()
					defer func() { _ = c.Close() }()
					ask(t, c)
					if took := time.Since(began); took > 3*doorPatience {
						t.Errorf("a newcomer waited for %v", took)
					}
				})
			})
		}
	}
}

// A body that somebody wants has its time, and one that comes at once leaves the
// connection as it was.
func TestDoorBodiesThatAreWanted(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, _ := doorSite(t, 5, func(w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPost {
				s := &Server{cfg: Config{MaxMessage: 100}}
				if p, ok := s.body(w, r); !ok || string(p) != "12345" {
					t.Errorf("the body is %q, %v", p, ok)
				}
				time.Sleep(5 * time.Second)
				if err := r.Context().Err(); err != nil {
					t.Errorf("its request ends before it is answered: %v", err)
				}
			}
			w.WriteHeader(http.StatusNoContent)
		})
		c := l.dial()
		defer func() { _ = c.Close() }()
		for _, wait := range []time.Duration{0, 5 * doorPatience} {
			if _, err := io.WriteString(c, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
			time.Sleep(wait)
			if _, err := io.WriteString(c, "12345"); err != nil {
				t.Fatal(err)
			}
			if res, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil || res.StatusCode != http.StatusNoContent {
				t.Fatalf("after %v: %v, %v", wait, res, err)
			}
			time.Sleep(3 * doorPatience)
			ask(t, c)
		}
	})
}

// A connection that always has a request under way does not hold its place for ever.
func TestDoorEndlessRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const places, write = 3, time.Minute
		over := make(chan struct{})
		l := make(pipes, 1000)
		srv := &http.Server{ReadTimeout: bodyTime, WriteTimeout: write, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/" {
				<-over
			}
			w.WriteHeader(http.StatusNoContent)
		})}
		d := NewDoor(DoorConfig{Places: places, Listener: ListenerPublic, Metrics: NewMetrics(prometheus.NewRegistry())})
		done := make(chan error, 1)
		guarded := d.Guard(l, srv)
		go func() { done <- srv.Serve(guarded) }() // ends with srv
		for range places {
			c := l.dial()
			defer func() { _ = c.Close() }()
			if _, err := io.WriteString(c, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
				t.Fatal(err)
			}
		}
		began := time.Now()
		c := l.dial()
		defer func() { _ = c.Close() }()
		ask(t, c)
		if took := time.Since(began); took < write || took > bodyTime+write+3*doorPatience {
			t.Errorf("a newcomer waited for %v", took)
		}
		if n := testutil.ToFloat64(d.evicted); n < 1 || n > 2 {
			t.Errorf("%v were evicted", n)
		}
		close(over)
		_ = srv.Close()
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		synctest.Wait()
		if n := testutil.ToFloat64(d.open); n != 0 || d.busy.Len()+d.waiting.Len() > 0 {
			t.Errorf("%v connections are held after the end", n)
		}
	})
}

// Requests under way are left alone, and newcomers wait until one of them ends.
func TestDoorRequests(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		const places = 3
		l, d := doorSite(t, places, func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(10 * time.Second)
			w.Header().Set("Connection", "close")
			w.WriteHeader(http.StatusNoContent)
		})
		began := time.Now()
		for range places {
			c := l.dial()
			defer func() { _ = c.Close() }()
			go func() { // ends with c
				_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n\r\n")
				_, _ = io.Copy(io.Discard, c)
			}()
		}
		synctest.Wait()
		c := l.dial()
		defer func() { _ = c.Close() }()
		ask(t, c)
		if took := time.Since(began); took != 20*time.Second {
			t.Errorf("answered after %v, want 20s", took)
		}
		if n := testutil.ToFloat64(d.evicted); n != 0 {
			t.Errorf("%v were evicted", n)
		}
	})
}

// A viewer's connection leaves its place with its upgrade.
func TestDoorHijacked(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, d := doorSite(t, 1, func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer func() { _ = c.Close() }()
			_, _ = fmt.Fprint(c, "HTTP/1.1 204 No Content\r\n\r\n")
			time.Sleep(time.Hour)
		})
		for range 20 {
			c := l.dial()
			defer func() { _ = c.Close() }()
			ask(t, c)
		}
		if n := testutil.ToFloat64(d.evicted); n != 0 {
			t.Errorf("%v were evicted", n)
		}
		time.Sleep(2 * time.Hour)
	})
}

// A server that is stopped does not wait for a place.
func TestDoorStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l, _ := doorSite(t, 1, func(http.ResponseWriter, *http.Request) {})
		for range 3 {
			c := l.dial()
			defer func() { _ = c.Close() }()
		}
		synctest.Wait()
	}) // and everything has ended
}

func TestDoorTLS(t *testing.T) {
	t.Parallel()
	st := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	st.EnableHTTP2 = true
	d := NewDoor(DoorConfig{Places: 2, Listener: ListenerPublic, Metrics: NewMetrics(prometheus.NewRegistry())})
	st.StartTLS()
	defer st.Close()
	srv := &http.Server{TLSConfig: st.TLS.Clone(), ErrorLog: log.New(io.Discard, "", 0), Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) })}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() { done <- srv.ServeTLS(d.Guard(l, srv), "", "") }() // ends with srv
	var mute []net.Conn
	for range 6 {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		mute = append(mute, c)
	}
	res, err := st.Client().Get("https://" + l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusNoContent || testutil.ToFloat64(d.evicted) < 4 {
		t.Errorf("%s, %v of %d mute connections evicted", res.Status, testutil.ToFloat64(d.evicted), len(mute))
	}
	if err := srv.Close(); err != nil {
		t.Error(err)
	}
	if err := <-done; !errors.Is(err, http.ErrServerClosed) {
		t.Error(err)
	}
}

// BenchmarkDoor is what a join costs at the door.
func BenchmarkDoor(b *testing.B) {
	d := NewDoor(DoorConfig{Places: 1000, Listener: ListenerPublic, Metrics: NewMetrics(prometheus.NewRegistry())})
	nc, other := net.Pipe()
	defer func() { _ = errors.Join(nc.Close(), other.Close()) }()
	b.ReportAllocs()
	for b.Loop() {
		d.state(nc, http.StateNew)
		d.state(nc, http.StateActive)
		d.state(nc, http.StateHijacked)
	}
}
