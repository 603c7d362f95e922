package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// Whose name looks like that of the staff is marked, from when the staff has come or has spoken; a
// picture comes if its host is allowed.
func TestNamesAndPictures(t *testing.T) {
	t.Parallel()
	n := runNode(t, "--avatar-host=Img.example")
	viewer := func(id, name, avatar string) *wsConn {
		c := n.mustDial("r", "?token="+n.mint(auth.Claims{Subject: id, Name: name, Avatar: avatar, Rooms: []string{"r"}}))
		c.next("comments")
		return c
	}
	say := func(c *wsConn, id string) map[string]any {
		t.Helper()
		c.say(`{"type":"comment","text":"x"}`)
		for {
			for _, item := range c.next("comments")["items"].([]any) {
				if u := item.(map[string]any)["user"].(map[string]any); u["id"] == id {
					return u
				}
			}
		}
	}
	early := viewer("early-1", "Boss", "https://img.example/a.png")
	if u := say(early, "early-1"); u["confusable"] != nil || u["name"] != "Boss" || u["avatar"] != "https://img.example/a.png" {
		t.Errorf("before the staff: %v", u)
	}
	_ = early.CloseNow()
	boss := n.mustDial("r", "?token="+n.token("boss", protocol.RoleBroadcaster, "r"))
	boss.next("comments")
	if u := say(viewer("user-654321", "B0SS", "https://evil.example/a.png"), "user-654321"); u["confusable"] != true || u["name"] != "B0SS (654321)" || u["avatar"] != nil || u["role"] != nil {
		t.Errorf("like the staff: %v", u)
	}
	if u := say(boss, "boss"); u["confusable"] != nil || u["name"] != "boss" {
		t.Errorf("the staff: %v", u)
	}
	// A back end speaks as one of the staff, in another room; names are those of a room.
	if status, body := n.do("POST", n.url+"/v1/rooms/other/comments", n.token("teacher", protocol.RoleModerator, "*"), `{"text":"hello"}`); status != 201 {
		t.Fatalf("%d %s", status, body)
	}
	c := n.mustDial("other", "?token="+n.mint(auth.Claims{Subject: "pupil-123", Name: "Teacher", Rooms: []string{"other"}}))
	for seen := ""; !strings.Contains(seen, "hello"); {
		seen = fmt.Sprint(texts(c.next("comments")))
	}
	if u := say(c, "pupil-123"); u["confusable"] != true || u["name"] != "Teacher (il-123)" {
		t.Errorf("like somebody who has spoken: %v", u)
	}
}
