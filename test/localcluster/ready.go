//go:build unix

package localcluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"time"
)

const (
	askTimeout = 2 * time.Second // for one answer
	maxAnswer  = 64 << 10        // bytes of it
)

// httpReady asks a page that answers 200 when its process is ready.
func httpReady(ctx context.Context, url string) error {
	_, err := get(ctx, url)
	return err
}

func get(ctx context.Context, url string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	transport := &http.Transport{DisableKeepAlives: true} // no proxy, nothing left behind
	res, err := transport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, maxAnswer))
	if err != nil {
		return nil, err
	}
	if res.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("%s says %s: %.500s", url, res.Status, strings.TrimSpace(string(body)))
	}
	return body, nil
}

// natsReady asks a NATS server whether it is well, knows the cluster's leader, and
// has all others in its cluster.
func natsReady(ctx context.Context, monitor string) error {
	if _, err := get(ctx, monitor+"/healthz"); err != nil {
		return err
	}
	body, err := get(ctx, monitor+"/jsz")
	if err != nil {
		return err
	}
	var js struct {
		Meta struct {
			Leader string `json:"leader"`
			Size   int    `json:"cluster_size"`
		} `json:"meta_cluster"`
	}
	if err := json.Unmarshal(body, &js); err != nil {
		return fmt.Errorf("%s/jsz: %w", monitor, err)
	}
	if js.Meta.Leader == "" {
		return errors.New("JetStream has no leader yet")
	}
	if js.Meta.Size < natsServers {
		return fmt.Errorf("the JetStream cluster has %d servers of %d yet", js.Meta.Size, natsServers)
	}
	return nil
}

// redisReady asks a Redis server for a pong.
func redisReady(ctx context.Context, address string) error {
	d := net.Dialer{Timeout: askTimeout}
	conn, err := d.DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	if err := conn.SetDeadline(time.Now().Add(askTimeout)); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, "PING\r\n"); err != nil {
		return err
	}
	const pong = "+PONG\r\n"
	answer := make([]byte, len(pong))
	if n, err := io.ReadFull(conn, answer); err != nil {
		return fmt.Errorf("redis says %q: %w", answer[:n], err)
	}
	if string(answer) != pong {
		return fmt.Errorf("redis says %q", answer)
	}
	return nil
}
