package edge

import (
	"bufio"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/kansei-live/kansei/internal/clientaddr"
)

// from is a connection from an address.
type from struct {
	net.Conn
	address string
}

func (f from) RemoteAddr() net.Addr {
	return net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(f.address), 12345))
}

// shares is a door whose requests to /endless do not end before the test does.
type shares struct {
	t *testing.T
	pipes
	door *Door
}

func shareSite(t *testing.T, places int) *shares {
	over := make(chan struct{})
	l := make(pipes, 1000)
	srv := &http.Server{WriteTimeout: 72 * time.Second, ReadTimeout: bodyTime, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/endless" {
			<-over
		}
		w.WriteHeader(http.StatusNoContent)
	})}
	addresses := clientaddr.New(clientaddr.Config{
		Trusted: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, Exempt: []netip.Prefix{netip.MustParsePrefix("203.0.113.0/24")},
	})
	d := NewDoor(DoorConfig{Places: places, Listener: ListenerPublic, Addresses: addresses, Metrics: NewMetrics(prometheus.NewRegistry())})
	guarded := d.Guard(l, srv)
	done := make(chan struct{})
	go func() { // ends with srv
		defer close(done)
		_ = srv.Serve(guarded)
	}()
	t.Cleanup(func() {
		close(over)
		_ = srv.Close()
		<-done
		synctest.Wait()
		if len(d.places)+len(d.from)+d.heavy+d.busy.Len()+d.waiting.Len() > 0 {
			t.Errorf("after the end %d are held, of %d addresses, %d of them with too many", len(d.places), len(d.from), d.heavy)
		}
	})
	return &shares{t, l, d}
}

func (s *shares) dialFrom(address string) net.Conn {
	client, server := net.Pipe()
	s.pipes <- from{server, address}
	s.t.Cleanup(func() { _ = client.Close() })
	return client
}

// holds has an address hold a request open, and returns its connection.
func (s *shares) holds(address string) net.Conn {
	c := s.dialFrom(address)
	go func() { // ends with c
		_, _ = io.WriteString(c, "GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
	}()
	synctest.Wait()
	return c
}

// waits is how long a newcomer from an address waits for its answer.
func (s *shares) waits(address string) time.Duration {
	s.t.Helper()
	began := time.Now()
	ask(s.t, s.dialFrom(address))
	return time.Since(began)
}

// Nobody keeps others out for long with requests that do not end: who has more than a share
// of the places makes room, oldest first, and others keep theirs.
func TestDoorShare(t *testing.T) {
	t.Parallel()
	for name, addresses := range map[string][]string{
		"one address": {"198.51.100.7"},
		"one /64":     {"2001:db8::1", "2001:db8::2", "2001:db8::3"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := shareSite(t, 20)
				honest := s.holds("192.0.2.1") // the oldest of all
				for i := range 19 {
					s.holds(addresses[i%len(addresses)])
				}
				if took := s.waits("192.0.2.2"); took < heavyPatience-doorPatience || took > heavyPatience+2*doorPatience {
					t.Errorf("a newcomer waited for %v", took)
				}
				// The next ones find the others older than that, as long as they are too many.
				for range 10 {
					s.holds("192.0.2.3")
				}
				if n := testutil.ToFloat64(s.door.evicted); n < 10 {
					t.Errorf("%v were evicted", n)
				}
				_ = honest.SetReadDeadline(time.Now().Add(time.Millisecond))
				if _, err := bufio.NewReader(honest).ReadByte(); err == nil || err == io.EOF {
					t.Errorf("somebody within its share was evicted: %v", err)
				}
			})
		})
	}
}

// Proxies, this machine and networks that are excepted have no share: their requests are
// left to their deadlines, as those of addresses within their share are.
func TestDoorWithoutShare(t *testing.T) {
	t.Parallel()
	for _, address := range []string{"10.1.2.3", "127.0.0.1", "203.0.113.9"} {
		t.Run(address, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := shareSite(t, 20)
				for range 20 {
					s.holds(address)
				}
				if took := s.waits("192.0.2.2"); took < 80*time.Second {
					t.Errorf("a newcomer waited for %v only", took)
				}
			})
		})
	}
	t.Run("many", func(t *testing.T) {
		t.Parallel()
		synctest.Test(t, func(t *testing.T) {
			s := shareSite(t, 20)
			for i := range 20 {
				s.holds([]string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4"}[i%4])
			}
			if took := s.waits("192.0.2.5"); took < 80*time.Second {
				t.Errorf("a newcomer waited for %v only", took)
			}
		})
	})
}
