package edge

import (
	"context"
	"log/slog"
	"testing"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// The id of a draft is that of the request: what may change between two tries does not
// make another one, and what was sent does.
func TestDraftID(t *testing.T) {
	t.Parallel()
	media := func(ms int64) *int64 { return &ms }
	first := func() comment {
		return comment{
			room: "r", session: "s", identity: &identity{id: "u", name: "old name", role: protocol.RoleViewer, comment: true},
			req: &protocol.CommentRequest{Ref: "1", Text: " a  b ", MediaMS: media(5), Style: &protocol.Style{Color: "#ff0000"}},
		}
	}
	want := draftID(first())
	for name, change := range map[string]func(*comment){
		"name": func(c *comment) { c.identity.name = "new name" },
		"role": func(c *comment) { c.identity.role = protocol.RoleModerator },
		"may":  func(c *comment) { c.identity.comment = false },
	} {
		c := first()
		if change(&c); draftID(c) != want {
			t.Errorf("another %s makes another comment", name)
		}
	}
	ids := map[string]string{want: "the first"}
	for name, change := range map[string]func(*comment){
		"room":       func(c *comment) { c.room = "q" },
		"session":    func(c *comment) { c.session = "t" },
		"user":       func(c *comment) { c.identity.id = "v" },
		"author":     func(c *comment) { c.author = &protocol.User{ID: "w"} },
		"ref":        func(c *comment) { c.req.Ref = "2" },
		"text":       func(c *comment) { c.req.Text = "a b" },
		"place":      func(c *comment) { c.req.MediaMS = media(6) },
		"no place":   func(c *comment) { c.req.MediaMS = nil },
		"place 0":    func(c *comment) { c.req.MediaMS = media(0) },
		"color":      func(c *comment) { c.req.Style.Color = "#00ff00" },
		"size":       func(c *comment) { c.req.Style.Size = "big" },
		"position":   func(c *comment) { c.req.Style.Position = "top" },
		"no style":   func(c *comment) { c.req.Style = nil },
		"no ref":     func(c *comment) { c.req.Ref = "" },
		"no ref yet": func(c *comment) { c.req.Ref = "" },
	} {
		c := first()
		change(&c)
		id := draftID(c)
		if before, there := ids[id]; there {
			t.Errorf("%s: the same as %s", name, before)
		}
		ids[id] = name
	}
}

// knowing is a room log that has one event in each room, and takes whatever comes.
type knowing struct {
	hub.RoomLog
	id    string
	sure  bool
	state hub.State
	err   error // of what is appended
	taken []hub.Draft
}

func (l *knowing) Follow(_ string, _ int, f hub.Follower) hub.Follow {
	body := protocol.EncodeBody(protocol.Comment{User: protocol.User{ID: "u"}, Text: "x"})
	e := hub.Event{Seq: 5, At: 1, ID: l.id, Kind: hub.KindComment, Body: body}
	f.Standing(nil, l.state)
	f.Reset("e", []hub.Event{e}, e.Position())
	f.SetState(l.state)
	return unfollowed{}
}

func (l *knowing) State(context.Context, string) (hub.State, error) { return l.state, nil }

func (l *knowing) Sure(string) bool { return l.sure }

func (l *knowing) Now() time.Time { return time.Now() }

func (l *knowing) UserHash(_, user string) string { return user }

func (l *knowing) Append(_ string, d hub.Draft, done func(hub.Receipt, error)) {
	l.taken = append(l.taken, d)
	done(hub.Receipt{Seq: 9}, l.err)
}

type unfollowed struct{}

func (unfollowed) Stop() {}

// What was said before is answered from memory. While the log may have lost it the log is
// asked, by the same draft, and nothing is judged; what cannot be drafted any more is
// neither taken nor refused.
func TestSaidAgain(t *testing.T) {
	t.Parallel()
	who := &identity{id: "u", role: protocol.RoleViewer, comment: true}
	c := comment{room: "r", session: "s", identity: who, req: &protocol.CommentRequest{Ref: "1", Text: "x"}}
	l := &knowing{id: draftID(c), sure: true}
	h := hub.New(hub.Config{Log: l})
	defer h.Close()
	s := New(Config{Hub: h, Log: l, ViewerRate: Rate{PerS: 0.001, Burst: 1}, ViewerText: 10, Metrics: NewMetrics(nil), Logger: slog.New(slog.DiscardHandler)})
	defer s.Close()
	room, _ := h.AcquireToRead("r")
	defer room.Release()
	say := func(ref string) (id string, code protocol.ErrorCode) {
		c := c
		c.user = s.users.hold(userOf("r", "u"), time.Now())
		c.req = &protocol.CommentRequest{Ref: ref, Text: "x"}
		s.publish(c, func(got string, err *protocol.Error) {
			if id = got; err != nil {
				code = err.Code
			}
		})
		return id, code
	}
	if id, code := say("2"); code != "" || id == "" { // uses up the rate
		t.Fatalf("the first is answered with %q, %s", id, code)
	}
	if _, code := say("3"); code != protocol.CodeRateLimited {
		t.Errorf("the rate is not used up: %s", code)
	}
	l.taken = nil
	if id, code := say("1"); id != hub.CommentID(5, l.id) || code != "" || len(l.taken) > 0 {
		t.Errorf("the log is sure: %q, %s, and %d drafts", id, code, len(l.taken))
	}
	l.sure = false
	if id, code := say("1"); id != hub.CommentID(9, l.id) || code != "" || len(l.taken) != 1 || l.taken[0].ID != l.id {
		t.Errorf("the log is not sure: %q, %s, and the drafts %v", id, code, l.taken)
	}
	l.err = hub.ErrUnavailable
	if id, code := say("1"); id != "" || code != protocol.CodeUnknownOutcome {
		t.Errorf("the log cannot be reached: %q, %s", id, code)
	}
	l.taken = l.taken[:1]
	who.comment = false
	if id, code := say("1"); id != "" || code != protocol.CodeUnknownOutcome || len(l.taken) != 1 {
		t.Errorf("the log is not sure, and it cannot be said any more: %q, %s, and %d drafts", id, code, len(l.taken))
	}
}

// In a room whose broadcast has ended nobody but the staff may comment; what is in the log
// already is answered all the same. No other state keeps anybody from it.
func TestEndedRoom(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		status string
		role   protocol.Role
		code   protocol.ErrorCode
	}{
		{"ended", protocol.RoleViewer, protocol.CodeLocked},
		{"ended", protocol.RoleMonitor, protocol.CodeForbidden},
		{"ended", protocol.RoleModerator, ""},
		{"ended", protocol.RoleBroadcaster, ""},
		{"scheduled", protocol.RoleViewer, ""},
		{"live", protocol.RoleViewer, ""},
		{"later", protocol.RoleViewer, ""},
	} {
		t.Run(c.status+" "+string(c.role), func(t *testing.T) {
			t.Parallel()
			who := &identity{id: "u", role: c.role, comment: c.role != protocol.RoleMonitor}
			said := comment{room: "r", session: "s", identity: who, req: &protocol.CommentRequest{Ref: "said", Text: "x"}}
			l := &knowing{id: draftID(said), sure: true, state: hub.State{Rev: 1, Body: []byte(`{"status":"` + c.status + `"}`)}}
			h := hub.New(hub.Config{Log: l})
			defer h.Close()
			s := New(Config{Hub: h, Log: l, ViewerRate: Rate{PerS: 1000, Burst: 1000}, StaffRate: Rate{PerS: 1000, Burst: 1000},
				ViewerText: 10, StaffText: 10, Metrics: NewMetrics(nil), Logger: slog.New(slog.DiscardHandler)})
			defer s.Close()
			room, _ := h.AcquireToRead("r")
			defer room.Release()
			for _, ref := range []string{"new", "", "said"} {
				req := said
				req.user = s.users.hold(userOf("r", "u"), time.Now())
				req.req = &protocol.CommentRequest{Ref: ref, Text: "x"}
				var code protocol.ErrorCode
				s.publish(req, func(_ string, err *protocol.Error) {
					if err != nil {
						code = err.Code
					}
				})
				want := c.code
				if ref == "said" {
					want = ""
				}
				if code != want {
					t.Errorf("ref %q is answered with %q, want %q", ref, code, want)
				}
			}
			// What moderators have done in a room that is not open is not known: nobody comments there.
			elsewhere := said
			elsewhere.room, elsewhere.req = "other", &protocol.CommentRequest{Text: "x"}
			if _, err := s.draft(elsewhere, "id"); who.comment && (err == nil || err.Code != protocol.CodeUnavailable) {
				t.Errorf("in a room that is not open: %v", err)
			}
		})
	}
}

func TestWeightOf(t *testing.T) {
	t.Parallel()
	w := Weights{Guest: 1, User: 2, Member: 10}
	for want, p := range map[int]identity{1: {guest: true}, 2: {}, 10: {member: true}} {
		if got := w.of(&p); got != want {
			t.Errorf("%+v weighs %d", p, got)
		}
	}
}
