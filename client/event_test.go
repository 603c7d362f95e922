package client

import (
	"encoding/json"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/kansei-live/kansei/protocol"
)

// An event is published once, and those of others move the cursor, unless they were there before.
func TestEvent(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, func(p *peer) {
			p.welcome(false)
			p.sendMessage(&protocol.Event{ID: "x1", Name: "slide", Lasting: true})
			p.sendMessage(&protocol.Event{ID: "x2", Name: "gift", Data: json.RawMessage(`{"amount":5}`), Cursor: "c2"})
			p.answer(func(m map[string]any) {
				if m["name"] == "gift" {
					p.sendMessage(&protocol.OK{Ref: m["ref"].(string), ID: "x3"})
				} else {
					p.sendMessage(&protocol.Error{Ref: m["ref"].(string), Code: protocol.CodeForbidden})
				}
			})
		})
		var got []string
		r := start(t, s, func(c *Config) {
			c.Handler.Event = func(e *protocol.Event) { got = append(got, e.Name+" "+e.Cursor) }
		})
		defer r.stop()
		id, err := r.Event(t.Context(), protocol.EventRequest{Name: "gift", Data: json.RawMessage(`{"amount":5}`)})
		if err != nil || id != "x3" {
			t.Errorf("%s, %v", id, err)
		}
		if _, err := r.Event(t.Context(), protocol.EventRequest{Name: "other"}); !isCode(err, protocol.CodeForbidden) {
			t.Errorf("%v", err)
		}
		for _, bad := range []protocol.EventRequest{{Name: "a gift"}, {Name: "gift", Data: json.RawMessage(`{`)}, {Name: "gift", Data: json.RawMessage(`[]`)}} {
			if _, err := r.Event(t.Context(), bad); !isCode(err, protocol.CodeBadMessage) {
				t.Errorf("%+v: %v", bad, err)
			}
		}
		synctest.Wait()
		if strings.Join(got, ", ") != "slide , gift c2" || r.Cursor() != "c2" {
			t.Errorf("got %q, the cursor is %q", got, r.Cursor())
		}
	})
}
