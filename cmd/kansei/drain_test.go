package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// While a node leaves it says so, takes nobody in, and answers what can be answered.
func TestDrain(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--drain=10s")
	w := n.mustDial("r", "")
	w.next("comments")
	status, body := n.do("POST", n.ops+"/drain", "", "")
	var told struct {
		Viewers int
		Seconds float64
	}
	if err := json.Unmarshal([]byte(body), &told); err != nil || status != http.StatusAccepted || told.Viewers != 1 || told.Seconds < 9 || told.Seconds > 10 {
		t.Errorf("POST /drain: %d %s", status, body)
	}
	if status, body := n.do("POST", n.ops+"/drain", "", ""); status != http.StatusAccepted || !strings.Contains(body, `"viewers":1`) {
		t.Errorf("POST /drain again: %d %s", status, body)
	}
	if m := w.next("reconnect"); m["after_ms"].(float64) < 0 || m["after_ms"].(float64) > 10_000 {
		t.Errorf("told %v", m)
	}
	if status, body := n.get(n.ops + "/readyz"); status != http.StatusServiceUnavailable || !strings.Contains(body, "edge: this node is leaving\n") {
		t.Errorf("readyz: %d %s", status, body)
	}
	if _, res, err := n.dial("r", "", nil); err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable || res.Header.Get("Retry-After") != "1" || !res.Close {
		t.Errorf("a newcomer got %v %v", res, err)
	}
	if status, body := n.get(n.url + "/v1/rooms/r"); status != http.StatusServiceUnavailable || !strings.Contains(body, `"close":1012`) || !strings.Contains(body, `"retry_ms":`) {
		t.Errorf("GET room: %d %s", status, body)
	}
	// Whoever is here goes on as before, and so do requests.
	w.say(`{"type":"comment","ref":"1","text":"still here"}`)
	w.next("ok")
	if status, body := n.do("POST", n.url+"/v1/rooms/r/comments", n.token("boss", protocol.RoleBroadcaster, "r"), `{"text":"here too"}`); status != http.StatusCreated {
		t.Errorf("POST: %d %s", status, body)
	}
	_, metrics := n.get(n.ops + "/metrics")
	for _, want := range []string{"kansei_draining 1", "kansei_drain_told_total 1", `kansei_refused_total{reason="leaving"} 1`} {
		if !strings.Contains(metrics, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
	req, _ := http.NewRequestWithContext(t.Context(), http.MethodPost, n.ops+"/drain", nil)
	req.Header.Set("Sec-Fetch-Site", "cross-site")
	res, err := (&http.Client{Transport: &http.Transport{DisableKeepAlives: true}}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	if res.StatusCode != http.StatusForbidden {
		t.Errorf("a page of another site may drain the node: %d", res.StatusCode)
	}
	// Who leaves by itself is not waited for.
	began := time.Now()
	_ = w.CloseNow()
	if err := n.stop(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(began); took > 8*time.Second {
		t.Errorf("the node needed %v to stop without viewers", took)
	}
}

// A node with everything inside has no other to send anybody to, and tells newcomers to the end
// when to come back.
func TestDrainAlone(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--drain=1s")
	n.drain()
	<-n.edge.Noticed()
	for range 3 {
		if status, body := n.get(n.url + "/v1/rooms/r"); status != http.StatusServiceUnavailable || !strings.Contains(body, `"close":1012`) {
			t.Fatalf("GET room: %d %s", status, body)
		}
	}
	if _, res, err := n.dial("r", "", nil); err == nil || res == nil || res.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a newcomer got %v %v", res, err)
	}
}

// running is kansei serve in this process.
type running struct {
	stop context.CancelFunc
	ops  string
	url  string
	done chan error
	logs *syncBuffer
}

func serve(t *testing.T, args ...string) *running {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	r := &running{stop: cancel, done: make(chan error, 1), logs: new(syncBuffer)}
	c := serveCommand{Serve: parse(t, append(args, "--log-format=json")...)}
	go func() { r.done <- c.Run(ctx, new(bytes.Buffer), errorStream{r.logs}) }() // ends with the node, at the latest with the test
	t.Cleanup(func() {
		cancel()
		select {
		case err := <-r.done:
			if err != nil {
				t.Errorf("the node ended with %v", err)
			}
		case <-time.After(30 * time.Second):
			t.Error("the node still runs")
		}
	})
	for end := time.Now().Add(20 * time.Second); r.ops == ""; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("the node did not start:\n%s", r.logs)
		}
		for line := range strings.Lines(r.logs.String()) {
			var m struct{ Msg, Ops, Listen string }
			if json.Unmarshal([]byte(line), &m) == nil && m.Msg == "the node runs" {
				r.ops, r.url = m.Ops, m.Listen
			}
		}
	}
	return r
}

// ended waits for the end of the node, which is without an error.
func (r *running) ended(t *testing.T, within time.Duration) {
	t.Helper()
	began := time.Now()
	select {
	case err := <-r.done:
		r.done <- nil
		if err != nil {
			t.Errorf("the node ended with %v", err)
		}
		t.Logf("ended after %v", time.Since(began).Round(10*time.Millisecond))
	case <-time.After(within):
		t.Errorf("the node still runs after %v:\n%s", within, r.logs)
	}
}

func TestPostDrainEndsTheNode(t *testing.T) {
	t.Parallel()
	r := serve(t, "--drain=5m")
	res, err := http.Post(r.ops+"/drain", "", nil)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	r.ended(t, 20*time.Second) // nobody is here
	http.DefaultClient.CloseIdleConnections()
}

// A request that does not end, of a client that holds back its body, is cut off in time for
// the rest of what a node does when it leaves.
func TestDrainCutsRequests(t *testing.T) {
	t.Parallel()
	r := serve(t, "--drain=0s")
	n := &testNode{node: &node{url: r.url, ops: r.ops}, t: t}
	n.ready()
	c, err := net.Dial("tcp", strings.TrimPrefix(r.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, "POST /v1/rooms/r/comments HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 1000\r\nExpect: 100-continue\r\n\r\n",
		n.token("boss", protocol.RoleBroadcaster, "r")); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(c).ReadString('\n'); err != nil || !strings.Contains(line, "100 Continue") {
		t.Fatalf("%q %v", line, err) // which says that the body is waited for
	}
	r.stop()
	r.ended(t, time.Minute)
	if log := r.logs.String(); !strings.Contains(log, "requests took too long and were cut off") {
		t.Errorf("the log does not say so:\n%s", log)
	}
}

// A second signal ends a long drain; one come twice does not.
func TestSecondSignal(t *testing.T) { // not parallel: the signals are for the whole process
	r := serve(t, "--drain=5m")
	n := &testNode{node: &node{url: r.url, ops: r.ops}, t: t}
	n.ready()
	w := n.mustDial("r", "")
	w.next("comments")
	r.stop() // as the first signal does
	w.next("reconnect")
	self, err := os.FindProcess(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	// The process must outlive those that come when the node does not listen.
	spare := make(chan os.Signal, 1)
	signal.Notify(spare, syscall.SIGTERM)
	defer signal.Stop(spare)
	stop := make(chan struct{})
	var sending sync.WaitGroup
	// Ends with stop.
	sending.Go(func() {
		for {
			select {
			case <-time.After(300 * time.Millisecond):
				_ = self.Signal(syscall.SIGTERM) // this process is there
			case <-stop:
				return
			}
		}
	})
	began := time.Now()
	if code, _ := w.closed(); code != 1012 {
		t.Errorf("closed with %d", code)
	}
	if took := time.Since(began); took < sameSignal/2 {
		t.Errorf("closed %v after the first signal, as if another came at once were a second one", took)
	}
	close(stop)
	sending.Wait()
	r.ended(t, 20*time.Second)
}
