package loadtest

import (
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// first reports whether this is the batch-th message of the first connection of
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
		"refuses one for good": {change: func(c *Command) { c.URL = c.URL[:1] }, faults: faults{upgrade: func(n int, w http.ResponseWriter) bool {
			if n == 7 {
				w.WriteHeader(http.StatusForbidden)
			}
			return n == 7
		}}, failed: []string{"joined", "stayed"}},
		"refuses one for good, who has another address": {faults: faults{upgrade: func(n int, w http.ResponseWriter) bool {
			if n == 7 {
				w.WriteHeader(http.StatusForbidden)
			}
			return n == 7
		}}},
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
