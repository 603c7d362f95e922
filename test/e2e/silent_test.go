package e2e

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Ten thousand connections that never send hurt nobody: they are counted, somebody
// else is let in and served beside them, and they are gone when they go.
func TestTenThousandSilentConnections(t *testing.T) {
	t.Parallel()
	c := startCluster(t, 1, "--guests=watch", "--max-viewers=10100")
	edge := c.Edges[0]
	const silent = 10_000
	conns := make([]net.Conn, silent)
	t.Cleanup(func() {
		for _, nc := range conns {
			if nc != nil {
				_ = nc.Close()
			}
		}
	})
	var wg sync.WaitGroup
	for k := range 20 {
		wg.Go(func() {
			for i := k; i < silent; i += 20 {
				nc, err := upgrade(edge.URL, "silent")
				if err != nil {
					t.Errorf("connection %d: %v", i, err)
					return
				}
				conns[i] = nc
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		return
	}
	tok := token(t, c, "boss", protocol.RoleBroadcaster)
	w := watch(t, edge.URL, "silent", tok)
	eventually(t, 20*time.Second, "all are counted", func() bool {
		n := counts(t, edge, tok, "silent")
		return n != nil && n.Connections == silent+1 && n.Users == silent+1
	})
	eventually(t, 10*time.Second, "a comment is taken", func() bool {
		req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, edge.URL+"/v1/rooms/silent/comments", strings.NewReader(`{"text":"loud"}`))
		req.Header.Set("Authorization", "Bearer "+tok)
		res, err := http.DefaultClient.Do(req)
		if err != nil {
			return false
		}
		defer res.Body.Close()
		return res.StatusCode == http.StatusCreated
	})
	eventually(t, 10*time.Second, "and reaches who listens", func() bool { return len(w.texts()) > 0 })
	for i, nc := range conns {
		_ = nc.Close()
		conns[i] = nil
	}
	eventually(t, 20*time.Second, "who went is not counted", func() bool {
		n := counts(t, edge, tok, "silent")
		return n != nil && n.Connections == 1
	})
}

// upgrade makes a WebSocket by hand and says nothing on it.
func upgrade(url, room string) (net.Conn, error) {
	host := strings.TrimPrefix(url, "http://")
	nc, err := net.DialTimeout("tcp", host, 10*time.Second)
	if err != nil {
		return nil, err
	}
	_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
	fmt.Fprintf(nc, "GET /v1/rooms/%s/ws HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Protocol: %s\r\n\r\n",
		room, host, protocol.Subprotocol)
	line, err := bufio.NewReaderSize(nc, 64).ReadString('\n')
	if err == nil && !strings.Contains(line, " 101 ") {
		err = fmt.Errorf("answered %s", strings.TrimSpace(line))
	}
	if err != nil {
		_ = nc.Close()
		return nil, err
	}
	return nc, nc.SetDeadline(time.Time{})
}
