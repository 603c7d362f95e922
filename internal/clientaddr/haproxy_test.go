//go:build unix

package clientaddr

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/test/proxyrig"
)

// HAProxy tells the address of its clients in each of the ways that there are, and its
// health checks pass.
func TestHAProxy(t *testing.T) {
	t.Parallel()
	// HAProxy is at 127.0.0.1, its client at 127.0.0.5.
	const client = "127.0.0.5"
	address, asked, refused := site(t, 10*time.Second, netip.MustParsePrefix("127.0.0.1/32"))
	for _, way := range []string{"send-proxy", "send-proxy-v2", "send-proxy-v2-ssl-cn"} {
		t.Run(way, func(t *testing.T) {
			for len(asked) > 0 { // the one before is not meant
				<-asked
			}
			front := proxyrig.HAProxy(t, func(front string) string {
				return fmt.Sprintf(`defaults
  mode http
  timeout connect 5s
  timeout client 10s
  timeout server 10s
frontend front
  bind %s
  default_backend nodes
backend nodes
  option httpchk GET /check
  default-server inter 50ms fall 1 rise 1
  server node %s %s check check-send-proxy
`, front, address, way)
			})
			// The checks are HAProxy's own: that is what their header says.
			for checks := 0; checks < 3; {
				select {
				case a := <-asked:
					if strings.HasPrefix(a, "/check 127.0.0.1:") {
						checks++
					}
				case <-time.After(20 * time.Second):
					t.Fatal("no check comes through")
				}
			}
			const get = "GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"
			got := ask(t, front, client, get)
			if _, body, _ := strings.Cut(got, "\r\n\r\n"); !strings.HasPrefix(body, client+":") {
				t.Errorf("the answer is %q", got) // 503 when checks fail
			}
		})
	}
	for len(refused) > 0 {
		t.Errorf("refused: %v", <-refused)
	}
}
