package loadtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// command is a run as the flags' defaults make it, small.
func command(change ...func(*Command)) *Command {
	c := &Command{
		URL: []string{"http://one.test", "http://two.test"}, AuthSecret: testSecret, Viewers: 8, JoinRate: 200, UserIDs: idsShort,
		Speed: 1, Rate: 50, Duration: 2 * time.Second, Settle: 3 * time.Second, Seed: 1,
	}
	for _, f := range change {
		f(c)
	}
	return c
}

// measure runs c against a cluster with those faults, in a bubble.
func measure(t *testing.T, f faults, c *Command, meanwhile func(*cluster)) *Report {
	t.Helper()
	var report *Report
	synctest.Test(t, func(t *testing.T) {
		cl := newCluster(t, f, "one.test", "two.test")
		defer cl.close()
		if meanwhile != nil {
			done := make(chan struct{})
			go func() { // the test's own
				defer close(done)
				meanwhile(cl)
			}()
			defer func() { <-done }()
		}
		var progress bytes.Buffer
		r, err := c.measure(t.Context(), &progress, cl.dial)
		if err != nil {
			t.Fatalf("%v\n%s", err, progress.String())
		}
		report = r
	})
	return report
}

func check(r *Report, name string) Check {
	for _, c := range r.Checks {
		if c.Name == name {
			return c
		}
	}
	return Check{Name: "no check " + name}
}

// TestCounts compares a run's figures with what is known of it.
func TestCounts(t *testing.T) {
	t.Parallel()
	for _, compress := range []bool{false, true} {
		t.Run(fmt.Sprintf("compress=%v", compress), func(t *testing.T) {
			t.Parallel()
			r := measure(t, faults{}, command(func(c *Command) { c.Compress = compress }), nil)
			p, d := r.Published, r.Delivered
			if p.Planned != 100 || p.Sent != 100 || p.Acknowledged != 100 || p.Publishers != 2 || p.Late != 0 {
				t.Errorf("published %+v, want 100 of 100 by 2 publishers", p)
			}
			if d.Deliveries != 100*8 || d.History != 0 || d.Untimed != 0 {
				t.Errorf("delivered %+v, want 800", d)
			}
			if r.LatencyMS.Count != d.Deliveries {
				t.Errorf("%d latencies of %d deliveries", r.LatencyMS.Count, d.Deliveries)
			}
			// In a bubble nothing takes time but the round.
			if low, high := 0., float64(round.Milliseconds())+1; r.LatencyMS.P50 < low || r.LatencyMS.Max > high {
				t.Errorf("latency %v, want %v to %v ms", r.LatencyMS, low, high)
			}
			if b := d.BytesPerDelivery; b < 60 || b > 400 || compress && b > 180 {
				t.Errorf("%.0f bytes a delivery", b)
			}
			if r.Viewers.Joined != 8 || r.Viewers.JoinMS.Count != 8 {
				t.Errorf("viewers %+v, want 8", r.Viewers)
			}
		})
	}
}

// TestNodeDies kills a node in the middle: its viewers must come back on the
// other, with their cursors, and miss nothing.
func TestNodeDies(t *testing.T) {
	t.Parallel()
	r := measure(t, faults{}, command(), func(c *cluster) {
		time.Sleep(time.Second)
		c.nodes["one.test:80"].kill()
	})
	if !r.OK {
		t.Errorf("the report is not ok:\n%s", r)
	}
	if r.Viewers.Returned != 4 || r.Viewers.WithoutMS.Count != 4 || sum(r.Viewers.Lost) != 4 {
		t.Errorf("viewers %+v, want 4 that returned", r.Viewers)
	}
	// The last message came up to a comment and a round before the end; the first wait is up
	// to a second.
	if ms, most := r.Viewers.WithoutMS.Max, (time.Second+round).Milliseconds()+1; ms > float64(most) {
		t.Errorf("up to %v ms without delivery, want %d at the most", ms, most)
	}
	if r.Delivered.Deliveries != r.Published.Acknowledged*8 || r.Published.Acknowledged != 100 {
		t.Errorf("%d deliveries of %d comments, want 8 each", r.Delivered.Deliveries, r.Published.Acknowledged)
	}
}

// TestHistory joins a room that has comments already, with others in it.
func TestHistory(t *testing.T) {
	t.Parallel()
	r := measure(t, faults{}, command(func(c *Command) { c.Room = "shared"; c.JoinRate = 10 }), func(c *cluster) {
		for n := range 250 { // from before the first viewer to behind the last comment
			c.append(1_000_000+n, fmt.Sprint("other/", n), protocol.Comment{User: protocol.User{ID: "other"}, Text: "hello"})
			time.Sleep(17 * time.Millisecond)
		}
	})
	if !r.OK {
		t.Errorf("the report is not ok:\n%s", r)
	}
	if r.Delivered.History == 0 || r.Delivered.Untimed == 0 {
		t.Errorf("delivered %+v, want history and comments of others", r.Delivered)
	}
	if r.LatencyMS.Count != 100*8 {
		t.Errorf("%d latencies, want those of our own 800", r.LatencyMS.Count)
	}
}

// TestInterrupted ends a run in each of its phases.
func TestInterrupted(t *testing.T) {
	t.Parallel()
	for name, after := range map[string]time.Duration{"joining": 20 * time.Millisecond, "publishing": time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cl := newCluster(t, faults{}, "one.test", "two.test")
				defer cl.close()
				ctx, cancel := context.WithTimeout(t.Context(), after)
				defer cancel()
				var progress bytes.Buffer
				r, err := command().measure(ctx, &progress, cl.dial)
				if err != nil {
					t.Fatal(err)
				}
				if !r.Interrupted || !r.OK {
					t.Errorf("interrupted %v, ok %v:\n%s", r.Interrupted, r.OK, r)
				}
				if int(r.Published.Acknowledged) != cl.stored() || r.Delivered.Deliveries != r.Published.Acknowledged*8 && r.Published.Acknowledged > 0 {
					t.Errorf("%d acknowledged, %d delivered, %d stored", r.Published.Acknowledged, r.Delivered.Deliveries, cl.stored())
				}
				if !strings.Contains(r.String(), "interrupted") {
					t.Error("the report does not say that the run was interrupted")
				}
			})
		})
	}
}

// TestUnusable cannot be made a run of.
func TestUnusable(t *testing.T) {
	t.Parallel()
	for name, tc := range map[string]struct {
		faults faults
		change func(*Command)
		want   string
	}{
		"no node":       {change: func(c *Command) { c.URL = []string{"http://three.test"} }, want: "no viewer could join"},
		"a secret":      {change: func(c *Command) { c.AuthSecret = "wrong" }, want: "4401"},
		"may not":       {faults: faults{noComments: true}, want: "--auth-secret"},
		"nothing right": {faults: faults{upgrade: func(_ int, w http.ResponseWriter) bool { w.WriteHeader(404); return true }}, want: "404"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				cl := newCluster(t, tc.faults, "one.test", "two.test")
				defer cl.close()
				c := command(func(c *Command) { c.Quiet = true })
				if tc.change != nil {
					tc.change(c)
				}
				_, err := c.measure(t.Context(), nil, cl.dial)
				if err == nil || !strings.Contains(err.Error(), tc.want) {
					t.Errorf("error %v, want one with %q", err, tc.want)
				}
			})
		})
	}
}

// TestPublisherIDs are as short as those of users in a room of the run's own; elsewhere they
// differ from those of other runs.
func TestPublisherIDs(t *testing.T) {
	t.Parallel()
	for room, want := range map[string]string{"": `^p[0-9]$`, "theirs": `^[0-9a-f]{8}p[0-9]$`} {
		synctest.Test(t, func(t *testing.T) {
			cl := newCluster(t, faults{}, "one.test", "two.test")
			defer cl.close()
			if _, err := command(func(c *Command) { c.Room = room }).measure(t.Context(), io.Discard, cl.dial); err != nil {
				t.Fatal(err)
			}
			cl.mu.Lock()
			defer cl.mu.Unlock()
			if len(cl.log) == 0 {
				t.Error("nothing was said")
			}
			for _, c := range cl.log {
				if !regexp.MustCompile(want).MatchString(c.User.ID) {
					t.Fatalf("in room %q %s speaks, want %s", room, c.User.ID, want)
				}
			}
		})
	}
}

// TestTooFewPublishers warns.
func TestTooFewPublishers(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		cl := newCluster(t, faults{limits: protocol.Limits{Text: 200, PerS: 10, Burst: 5}}, "one.test", "two.test")
		defer cl.close()
		var progress bytes.Buffer
		if _, err := command(func(c *Command) { c.Publishers = 2 }).measure(t.Context(), &progress, cl.dial); err != nil {
			t.Fatal(err)
		}
		if want := "2 publishers at 10/s and 5 at once are too few"; !strings.Contains(progress.String(), want) {
			t.Errorf("progress:\n%s\nwant %q", progress.String(), want)
		}
		if want := "8 viewers"; !strings.Contains(progress.String(), want) {
			t.Errorf("progress:\n%s\nwant %q", progress.String(), want)
		}
	})
}

// TestOverTCP plays a trace over real sockets and reads what is printed.
func TestOverTCP(t *testing.T) {
	t.Parallel()
	cl := newCluster(t, faults{swallow: func(n int) bool { return n == 3 }}, "one.test", "two.test")
	defer cl.close()
	var urls []string
	for _, n := range cl.nodes {
		ts := httptest.NewServer(n)
		defer ts.Close()
		urls = append(urls, ts.URL)
	}
	trace := filepath.Join(t.TempDir(), "trace.ndjson")
	lines := `{"media_ms": 1000, "text": "うぽつ"}
{"media_ms": 1400, "text": "わあ\n！", "color": "red", "size": "big", "position": "top"}

{"media_ms": 2000, "text": "` + strings.Repeat("長", 201) + `"}
{"media_ms": 1200, "text": "8888"}
`
	if err := os.WriteFile(trace, []byte(lines), 0o600); err != nil {
		t.Fatal(err)
	}
	var stdout, stderr bytes.Buffer
	err := command(func(c *Command) {
		c.URL, c.Trace, c.Speed, c.JSON, c.UserIDs, c.Settle, c.Duration = urls, trace, 2, true, idsUUID, time.Second, 0
		c.Compress = true
	}).Run(t.Context(), &stdout, &stderr)
	if !errors.Is(err, ErrFailed) || !strings.Contains(err.Error(), "seen (1)") {
		t.Errorf("error %v, want that one comment was not seen", err)
	}
	r := decodeReport(t, stdout.String())
	if p := r.Published; p.Planned != 4 || p.Acknowledged != 3 || p.Refused[protocol.CodeTooLong] != 1 || p.Unanswered != 0 {
		t.Errorf("published %+v, want 3 of 4, one too long\n%s", p, stderr.String())
	}
	if c := check(r, "seen"); c.OK || c.Failed != 1 {
		t.Errorf("check %+v, want one comment that nobody saw", c)
	}
	if r.Delivered.Deliveries != 16 {
		t.Errorf("%d deliveries, want 16", r.Delivered.Deliveries)
	}
	for _, m := range cl.log {
		if m.Text == "わあ\n！" && (m.Style == nil || *m.Style != protocol.Style{Position: "top", Size: "big", Color: "#ff0000"}) {
			t.Errorf("style %+v", m.Style)
		}
	}
}
