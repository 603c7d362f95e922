package loadtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
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

// first tells whether this is the batch-th message of the first connection of
// the first viewer.
func first(p *fakePeer, batch int) bool {
	return p.user == "v0" && p.earlier == 0 && p.batches == batch
}

// TestFaults shows a fault of the servers to the checks: each must be caught by
// those that are named, and by no other.
func TestFaults(t *testing.T) {
	t.Parallel()
	type comments = []protocol.Comment
	closing := func(code protocol.CloseCode, reason string) faults {
		return faults{batch: func(p *fakePeer, items comments) comments {
			if first(p, 5) {
				go p.close(code, reason) // ends with the connection
			}
			return items
		}}
	}
	for name, tc := range map[string]struct {
		faults faults
		change func(*Command)
		failed []string
		lost   string // a reason for which connections were lost
	}{
		"none":           {},
		"none, deflated": {change: func(c *Command) { c.Compress = true }},
		"none, guests": {
			faults: faults{limits: protocol.Limits{Text: 200, PerS: 1, Burst: 5}},
			change: func(c *Command) { c.AuthSecret = "" },
		},
		"drops one": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if first(p, 5) {
				return items[1:]
			}
			return items
		}}, failed: []string{"complete"}},
		"drops the first": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if first(p, 1) {
				return items[1:]
			}
			return items
		}}, failed: []string{"complete"}},
		"drops all": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if p.user == "v0" {
				return nil
			}
			return items
		}}, failed: []string{"complete"}},
		"drops the tail": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if p.user == "v0" && p.batches > 20 {
				return nil
			}
			return items
		}}, failed: []string{"complete"}},
		"a node drops one": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if strings.HasSuffix(p.user, "0") && p.batches == 5 {
				return items[1:]
			}
			return items
		}}, failed: []string{"complete"}},
		"duplicates one": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if first(p, 5) {
				return append(items, items[0])
			}
			return items
		}}, failed: []string{"once"}},
		"duplicates an old one": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if first(p, 20) {
				return append(items, p.c.log[0])
			}
			return items
		}}, failed: []string{"once"}},
		"swaps two": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if p.user == "v0" && p.batches >= 5 && len(items) > 1 && !p.swapped {
				p.swapped = true
				items[0], items[1] = items[1], items[0]
			}
			return items
		}}, change: func(c *Command) { c.Rate = 100 }, failed: []string{"in order"}},
		"swaps the first two": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if first(p, 1) && len(items) > 1 {
				items[0], items[1] = items[1], items[0]
			}
			return items
		}}, change: func(c *Command) { c.Rate = 100 }, failed: []string{"in order"}},
		"acknowledges without keeping": {
			faults: faults{swallow: func(n int) bool { return n == 50 }}, failed: []string{"seen"},
		},
		"keeps two": {faults: faults{store: func(n int, c protocol.Comment) []protocol.Comment {
			if n != 50 {
				return comments{c}
			}
			again := c
			again.ID = "again"
			return comments{c, again}
		}}, failed: []string{"single"}},
		"one id for two": {faults: faults{answer: func(p *fakePeer, n int, ref string) bool {
			if n == 50 {
				p.send(&protocol.OK{Ref: ref, ID: "c49"})
			}
			return n == 50
		}}, failed: []string{"single"}},
		"a bad id": {faults: faults{answer: func(p *fakePeer, n int, ref string) bool {
			if n == 50 {
				p.send(&protocol.OK{Ref: ref, ID: "NOT ONE"})
			}
			return n == 50
		}}, failed: []string{"well formed"}},
		"malformed items": {faults: faults{lastWords: func(p *fakePeer, m *protocol.Comments) string {
			if !first(p, 5) {
				return ""
			}
			bad := *m
			bad.Items = append(comments{{ID: "TOO LONG AND IN CAPITALS"}}, m.Items...)
			return string(protocol.Encode(&bad))
		}}, failed: []string{"well formed"}},
		"tells a gap": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if first(p, 5) {
				p.send(&protocol.Gap{Missed: 1, Cursor: cursor(p.pos - len(items) + 1)})
				return items[1:]
			}
			return items
		}}, failed: []string{"no gap"}},
		"tells a gap at the end": {faults: faults{batch: func(p *fakePeer, items comments) comments {
			if p.user == "v0" && p.batches > 20 {
				if p.batches == 21 {
					p.send(&protocol.Gap{Cursor: cursor(p.pos)})
				}
				return nil
			}
			return items
		}}, failed: []string{"no gap"}},
		"withholds": {faults: faults{lastWords: func(p *fakePeer, m *protocol.Comments) string {
			if !first(p, 5) {
				return ""
			}
			some := *m
			some.Items, some.Shown, some.Of = m.Items[1:], len(m.Items)-1, len(m.Items)
			return string(protocol.Encode(&some))
		}}, failed: []string{"nothing withheld"}},
		"another order of fields": {faults: faults{lastWords: func(_ *fakePeer, m *protocol.Comments) string {
			return strings.Replace(string(protocol.Encode(m)), `{"type":"comments",`, `{"more":1,"type":"comments",`, 1)
		}}},
		"closes 1012": {faults: closing(protocol.CloseRestart, "retry_ms=300"), lost: "closed 1012"},
		"closes 4408": {faults: closing(protocol.CloseTooSlow, ""), lost: "closed 4408"},
		"closes 4429": {faults: closing(protocol.CloseTooMany, "retry_ms=300"), lost: "closed 4429"},
		"closes 1011": {faults: closing(protocol.CloseInternal, ""), lost: "closed 1011"},
		"closes 1001": {faults: closing(protocol.CloseGoingAway, ""), lost: "closed 1001"},
		"closes 4400": {faults: closing(protocol.CloseMalformed, ""), lost: "closed 4400", failed: []string{"stayed", "complete"}},
		"closes 4403": {faults: closing(protocol.CloseBanned, ""), lost: "closed 4403", failed: []string{"stayed", "complete"}},
		"closes 4404": {faults: closing(protocol.CloseNoRoom, ""), lost: "closed 4404", failed: []string{"stayed", "complete"}},
		"closes 4401": {faults: closing(protocol.CloseUnauthorized, ""), lost: "closed 4401", failed: []string{"stayed", "complete"}},
		"asks to move": {faults: faults{welcomed: func(p *fakePeer) bool {
			if p.user == "v0" && p.earlier == 0 {
				p.send(&protocol.Reconnect{AfterMS: 1500})
			}
			return false
		}}, lost: "asked to reconnect"},
		"never answers beats": {faults: faults{deaf: true}, change: func(c *Command) { c.Duration, c.Rate = 20*time.Second, 5 }, lost: "silent"},
		"forgets cursors": {faults: faults{amnesia: true, batch: closing(protocol.CloseTooSlow, "").batch},
			lost: "closed 4408", failed: []string{"recovered"}},
		"refuses a text": {faults: faults{answer: func(p *fakePeer, n int, ref string) bool {
			if n%10 == 0 {
				p.send(&protocol.Error{Ref: ref, Code: protocol.CodeTooLong, Message: "too long"})
			}
			return n%10 == 0
		}}},
		"refuses for the rate": {faults: faults{answer: func(p *fakePeer, n int, ref string) bool {
			if n == 50 {
				p.send(&protocol.Error{Ref: ref, Code: protocol.CodeRateLimited, Message: "too fast", RetryMS: 100})
			}
			return n == 50
		}}, failed: []string{"accepted"}},
		"is away for a moment": {faults: faults{answer: func(p *fakePeer, n int, ref string) bool {
			if n > 50 && n < 60 {
				p.send(&protocol.Error{Ref: ref, Code: protocol.CodeUnavailable, Message: "away"})
			}
			return n > 50 && n < 60
		}}},
		"never answers a comment": {faults: faults{answer: func(p *fakePeer, _ int, ref string) bool { return ref == "50" }},
			failed: []string{"answered"}},
		"busy with joins": {faults: faults{upgrade: func(n int, w http.ResponseWriter) bool {
			if n > 10 {
				return false
			}
			w.Header().Set("Retry-After", "2")
			w.WriteHeader(http.StatusServiceUnavailable)
			return true
		}}},
		"refuses one for good": {faults: faults{upgrade: func(n int, w http.ResponseWriter) bool {
			if n == 7 {
				w.WriteHeader(http.StatusForbidden)
			}
			return n == 7
		}}, failed: []string{"joined", "stayed"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			c := command()
			if tc.change != nil {
				tc.change(c)
			}
			r := measure(t, tc.faults, c, nil)
			var failed []string
			for _, c := range r.Checks {
				if !c.OK {
					failed = append(failed, c.Name)
				}
			}
			if !slices.Equal(failed, tc.failed) {
				t.Errorf("failed %v, want %v\n%s", failed, tc.failed, r)
			}
			if r.OK != (len(failed) == 0) {
				t.Errorf("ok is %v with %v failed", r.OK, failed)
			}
			if tc.lost != "" && r.Viewers.Lost[tc.lost] == 0 {
				t.Errorf("no connection was lost for %q: %v", tc.lost, r.Viewers.Lost)
			}
			if tc.lost == "" && len(r.Viewers.Lost) > 0 {
				t.Errorf("connections were lost: %v", r.Viewers.Lost)
			}
			if len(failed) > 0 && len(r.Examples) == 0 && len(tc.failed) > 0 && tc.failed[0] != "accepted" &&
				tc.failed[0] != "answered" && tc.failed[0] != "joined" && tc.failed[0] != "nothing withheld" {
				t.Error("no example says what went wrong")
			}
		})
	}
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
	if ms := r.Viewers.WithoutMS.Max; ms > 1000 {
		t.Errorf("up to %v ms without delivery, want less than a second", ms)
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
