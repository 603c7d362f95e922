package client

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"

	"github.com/kansei-live/kansei/protocol"
)

// What the staff read is asked of the first address that answers, with a token; what is refused says why.
func TestStaffRead(t *testing.T) {
	t.Parallel()
	var asked []string
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body) // of this test
		asked = append(asked, r.Method+" "+r.URL.RequestURI()+" "+r.Header.Get("Authorization")+" "+string(body))
		switch r.URL.EscapedPath() {
		case "/live/v1/rooms/r/sweeps":
			_ = json.NewEncoder(w).Encode(protocol.Sweep{Sweep: "dry", Comments: 3})
		case "/live/v1/rooms/r/moderation":
			_ = json.NewEncoder(w).Encode(protocol.ModerationLog{Entries: []protocol.Entry{{Act: "a"}}, Cursor: "2s"})
		case "/live/v1/rooms/r/users/u%2F4%202":
			_ = json.NewEncoder(w).Encode(protocol.Person{Devices: 2})
		case "/live/v1/rooms/r/users/odd":
			w.WriteHeader(http.StatusBadGateway)
		default:
			w.WriteHeader(http.StatusForbidden)
			_ = json.NewEncoder(w).Encode(protocol.Problem{Code: protocol.CodeForbidden, Detail: "only the staff"})
		}
	}))
	defer s.Close()
	c, err := New(Config{URLs: []string{"http://127.0.0.1:1", "ws" + s.URL[len("http"):] + "/live/"}, Room: "r", Token: StaticToken("tok")})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := c.Sweep(t.Context(), protocol.SweepQuery{LastMS: 60000, Text: "join"}); err != nil || got.Sweep != "dry" || got.Comments != 3 {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.Moderation(t.Context(), protocol.ModerationQuery{Limit: 5, Cursor: "2s", AllRooms: true}); err != nil || len(got.Entries) != 1 || got.Cursor != "2s" {
		t.Errorf("%+v, %v", got, err)
	}
	if got, err := c.Person(t.Context(), "u/4 2"); err != nil || got.Devices != 2 {
		t.Errorf("%+v, %v", got, err)
	}
	if _, err := c.Person(t.Context(), "nobody"); !isCode(err, protocol.CodeForbidden) {
		t.Errorf("%v", err)
	}
	if _, err := c.Person(t.Context(), "odd"); err == nil {
		t.Error("what is no answer is none")
	} else if refused, is := errors.AsType[*RefusedError](err); !is || refused.Status != http.StatusBadGateway {
		t.Errorf("%v", err)
	}
	if _, err := c.Sweep(t.Context(), protocol.SweepQuery{LastMS: 60000}); !isCode(err, protocol.CodeBadMessage) {
		t.Errorf("%v", err)
	}
	want := []string{
		`POST /live/v1/rooms/r/sweeps Bearer tok {"last_ms":60000,"text":"join"}`,
		`GET /live/v1/rooms/r/moderation?all_rooms=1&cursor=2s&limit=5 Bearer tok `,
		`GET /live/v1/rooms/r/users/u%2F4%202 Bearer tok `,
	}
	for i := range want {
		if asked[i] != want[i] {
			t.Errorf("asked %q, want %q", asked[i], want[i])
		}
	}
}

// The staff is told of acts.
func TestModeration(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := newServer(t, func(p *peer) {
			p.welcome(false)
			p.sendMessage(&protocol.Moderation{Entry: protocol.Entry{Act: "a", Type: protocol.TypeSweep, Comments: 3}})
			p.answer(func(m map[string]any) { p.sendMessage(&protocol.OK{Ref: m["ref"].(string), Act: "b"}) })
		})
		var got []protocol.Entry
		r := start(t, s, func(c *Config) {
			c.Handler.Moderation = func(m *protocol.Moderation) { got = append(got, m.Entry) }
		})
		defer r.stop()
		done, err := r.Act(t.Context(), protocol.ActRequest{Type: protocol.TypeSweep, Sweep: "dry", Until: protocol.UntilBroadcast})
		if err != nil || done.Act != "b" {
			t.Errorf("%+v, %v", done, err)
		}
		synctest.Wait()
		if len(got) != 1 || got[0].Act != "a" || got[0].Comments != 3 {
			t.Errorf("got %+v", got)
		}
	})
}
