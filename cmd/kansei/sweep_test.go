package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// tries does a dry run.
func (c crew) tries(token, body string) (sweep protocol.Sweep, status int, problem protocol.Problem) {
	c.t.Helper()
	status, answer := c.do(http.MethodPost, c.url+"/v1/rooms/r/sweeps", token, body)
	if status == http.StatusOK {
		_ = json.Unmarshal([]byte(answer), &sweep)
	} else {
		_ = json.Unmarshal([]byte(answer), &problem)
	}
	return sweep, status, problem
}

// finds is tries for one that has to find some comments.
func (c crew) finds(body string, want ...string) protocol.Sweep {
	c.t.Helper()
	sweep, status, problem := c.tries(c.mod, body)
	if status != http.StatusOK {
		c.t.Fatalf("%s: %d %+v", body, status, problem)
	}
	got := []string{}
	for _, s := range sweep.Samples {
		got = append(got, s.Text)
	}
	slices.Sort(got)
	slices.Sort(want)
	if !slices.Equal(got, want) || sweep.Comments != len(want) {
		c.t.Errorf("%s finds %q, %d comments; want %q", body, got, sweep.Comments, want)
	}
	return sweep
}

// shown is what a reader of the room sees.
func (c crew) shown() string {
	c.t.Helper()
	page, _ := c.comments("r", nil)
	var all []string
	for _, one := range page.Items {
		all = append(all, one.Text)
	}
	return strings.Join(all, " | ")
}

// A dry run finds what it is asked for and hides nothing; the act that cites it hides that and mutes who has said it; undone,
// all of it is back.
func TestSweep(t *testing.T) {
	t.Parallel()
	c := newCrew(t, "--guests=comment", "--trusted-proxy=127.0.0.1")
	at := func(address, query string) *wsConn {
		t.Helper()
		conn, _, err := c.dial("r", query, from(address))
		if err != nil {
			t.Fatal(err)
		}
		conn.next("welcome")
		return conn
	}
	in := func(address, user string) *wsConn {
		return at(address, "?token="+c.token(user, protocol.RoleViewer, "r"))
	}
	early := in("198.51.100.99", "early")
	for until := time.Now().Add(20 * time.Second); ; time.Sleep(50 * time.Millisecond) { // until there is a key of the day
		early.comment(fmt.Sprint(time.Now().UnixNano()))
		if _, status, _ := c.tries(c.mod, `{"last_ms":60000,"same_address_as":"early"}`); status == http.StatusOK {
			break
		}
		if time.Now().After(until) {
			t.Fatal("comments bear no hash of an address")
		}
	}
	ken, yui, staff := in("198.51.100.1", "ken"), in("198.51.100.2", "yui"), c.in(c.mod)
	staff.next("welcome")
	for i := range 8 { // so that the others are few
		in(fmt.Sprintf("198.51.100.%d", 100+i), fmt.Sprintf("v%d", i)).comment(fmt.Sprint("hello ", i))
	}
	eve, bot, guest := in("203.0.113.9", "eve"), in("203.0.113.9", "bot"), at("192.0.2.77", "")
	ken.comment("nice")
	yui.comment("see https://docs.example/")
	eve.comment("JOIN NOW evil.example")
	bot.comment("ｊｏｉｎ  n.o.w!!")
	guest.comment("join now")
	staff.comment("do not join now")

	c.finds(`{"last_ms":60000,"guests":true}`, "join now")
	c.finds(`{"last_ms":60000,"text":"Join Now"}`, "JOIN NOW evil.example", "ｊｏｉｎ  n.o.w!!", "join now")
	c.finds(`{"last_ms":60000,"links":true}`, "see https://docs.example/")
	c.finds(`{"last_ms":60000,"same_address_as":"eve"}`, "JOIN NOW evil.example", "ｊｏｉｎ  n.o.w!!")
	c.finds(`{"last_ms":60000,"same_address_as":"eve","guests":true}`, "JOIN NOW evil.example", "ｊｏｉｎ  n.o.w!!", "join now")
	c.finds(`{"last_ms":60000,"same_address_as":"eve","text":"evil"}`, "JOIN NOW evil.example")
	if _, status, problem := c.tries(c.mod, `{"last_ms":60000,"same_address_as":"nobody"}`); status != http.StatusBadRequest {
		t.Errorf("the same address as somebody who has said nothing: %d %+v", status, problem)
	}

	before := c.shown()
	sweep := c.finds(`{"last_ms":60000,"text":"join now"}`, "JOIN NOW evil.example", "ｊｏｉｎ  n.o.w!!", "join now")
	if sweep.Users != 3 || sweep.Of != 14 || !sweep.Sure || c.shown() != before {
		t.Errorf("%+v, shown %s", sweep, c.shown())
	}
	// Three of fourteen are more than a fifth.
	body := fmt.Sprintf(`{"type":"sweep","ref":"1","sweep":%q,"for_ms":600000`, sweep.Sweep)
	if status, _, problem := c.act(c.mod, body+"}"); status != http.StatusForbidden || !strings.Contains(problem.Detail, "sure") || c.shown() != before {
		t.Errorf("without sure: %d %+v", status, problem)
	}
	act := c.does(c.mod, body+`,"sure":true}`)
	if again := c.does(c.mod, body+`,"sure":true}`); again != act {
		t.Errorf("the same again: %+v, %+v", again, act)
	}
	if got := c.shown(); strings.Contains(strings.ReplaceAll(got, "do not join now", ""), "join") || strings.Contains(got, "JOIN") || !strings.Contains(got, "nice") || !strings.Contains(got, "docs.example") {
		t.Errorf("after the sweep: %s", got)
	}
	m := ken.next("removed")
	if ids := m["ids"].([]any); len(ids) != 3 {
		t.Errorf("a viewer is told %v", m)
	}
	if m := eve.refused("again"); m["code"] != "muted" || m["act"] != act.Act || m["ends"] == nil {
		t.Errorf("a swept user is told %v", m)
	}
	ken.comment("fine")
	live := staff.next("moderation")["entry"].(map[string]any)
	if live["type"] != "sweep" || live["comments"] != 3.0 || live["users"] != 3.0 || live["sweep"].(map[string]any)["text"] != "join now" {
		t.Errorf("the staff is told %v", live)
	}
	c.logged("sweep 3 comments by mod")

	// One of them is let in again, and nothing else of it changes.
	c.does(c.mod, `{"type":"unmute","user":"bot"}`)
	bot.comment("sorry")
	if m := eve.refused("and again"); m["code"] != "muted" {
		t.Errorf("another swept user: %v", m)
	}
	if got := c.shown(); strings.Contains(got, "ｊｏｉｎ") {
		t.Errorf("after one was let in: %s", got)
	}
	var p protocol.Person
	c.reads(c.mod, "users/eve", &p)
	if len(p.Acts) != 1 || p.Acts[0].Type != "sweep" || p.Acts[0].Act != act.Act || len(p.Comments) != 1 || !p.Comments[0].Removed {
		t.Errorf("who was swept is %+v", p)
	}

	c.does(c.boss, fmt.Sprintf(`{"type":"undo","act":%q}`, act.Act))
	if m := ken.next("restored"); len(m["items"].([]any)) != 3 {
		t.Errorf("undone, a viewer is told %v", m)
	}
	if got := c.shown(); got != before+" | fine | sorry" {
		t.Errorf("undone: %s\nbefore: %s", got, before)
	}
	eve.comment("back")
	c.logged("sweep 3 comments by mod, undone by boss", "unmute bot by mod")

	// A spared one hides and mutes nobody.
	sweep = c.finds(`{"last_ms":60000,"text":"back"}`, "back")
	c.does(c.mod, fmt.Sprintf(`{"type":"sweep","sweep":%q,"spare":true}`, sweep.Sweep))
	eve.comment("still here")
	if got := c.shown(); strings.Contains(got, "back") {
		t.Errorf("after a spared sweep: %s", got)
	}
	// What is hidden is not found again.
	if again := c.finds(`{"last_ms":60000,"text":"back"}`); again.Of != 14 {
		t.Errorf("%+v", again)
	}
}

// Who is new is known from when they were first seen.
func TestSweepOfNewcomers(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	ken := c.in(c.ken)
	ken.next("welcome")
	ken.comment("nice")
	for i := range 6 {
		old := c.in(c.token(fmt.Sprint("old", i), protocol.RoleViewer, "r"))
		old.next("welcome")
		old.comment("hello")
	}
	time.Sleep(4 * time.Second) // first seen is told in seconds
	eve := c.in(c.token("eve", protocol.RoleViewer, "r"))
	eve.next("welcome")
	eve.comment("new here")
	time.Sleep(time.Second) // the tick of presence
	sweep := c.finds(`{"last_ms":60000,"newcomers_ms":3000}`, "new here")
	if sweep.Sure || sweep.Unknown != 0 {
		t.Errorf("%+v", sweep)
	}
	c.does(c.mod, fmt.Sprintf(`{"type":"sweep","sweep":%q}`, sweep.Sweep))
	if m := eve.refused("again"); m["code"] != "muted" || m["ends"] != nil {
		t.Errorf("%v", m)
	}
}

// A sweep of more than one act names has further parts, which are undone with it.
func TestSweepInParts(t *testing.T) {
	t.Parallel()
	c := newCrew(t, "--rate=10000", "--burst=10000", "--rate-address=0", "--room-limit=0", "--max-sweep=1500")
	eve, ken := c.in(c.token("eve", protocol.RoleViewer, "r")), c.in(c.ken)
	eve.next("welcome")
	ken.next("welcome")
	for i := range 1600 {
		eve.say(fmt.Sprintf(`{"type":"comment","ref":"%d","text":"spam"}`, i))
		if i%100 == 99 {
			for range 100 {
				if m := eve.next("ok", "error"); m["type"] != "ok" {
					t.Fatal(m)
				}
			}
		}
	}
	ken.comment("hello")
	sweep, _, _ := c.tries(c.mod, `{"last_ms":600000,"text":"spam"}`)
	if sweep.Comments != 1500 || sweep.Users != 1 || !sweep.Partial || len(sweep.Samples) != protocol.SweepSamples {
		t.Fatalf("%+v", sweep)
	}
	body := fmt.Sprintf(`{"type":"sweep","ref":"1","sweep":%q,"sure":true}`, sweep.Sweep)
	act := c.does(c.mod, body)
	if got := c.shown(); got != "hello" && strings.Count(got, "spam") > 100 {
		t.Errorf("swept: %s", got)
	}
	if left, _, _ := c.tries(c.mod, `{"last_ms":600000,"text":"spam"}`); left.Comments != 100 {
		t.Errorf("left: %+v", left)
	}
	if status, _, problem := c.act(c.mod, fmt.Sprintf(`{"type":"undo","act":"%s-1"}`, act.Act)); status != http.StatusForbidden || !strings.Contains(problem.Detail, act.Act) {
		t.Errorf("undo of a part: %d %+v", status, problem)
	}
	c.does(c.mod, fmt.Sprintf(`{"type":"undo","act":%q}`, act.Act))
	if left, _, _ := c.tries(c.mod, `{"last_ms":600000,"text":"spam"}`); left.Comments != 1500 || !left.Partial {
		t.Errorf("undone: %+v", left)
	}
	c.logged("sweep 1500 comments by mod, undone by mod")
}

func TestSweepsThatAreRefused(t *testing.T) {
	t.Parallel()
	c := newCrew(t)
	for body, want := range map[string]string{
		`{`:                                        "not JSON",
		`{"last_ms":60000}`:                        "looks for something",
		`{"guests":true}`:                          "last_ms",
		`{"last_ms":99,"guests":true}`:             "last_ms",
		`{"last_ms":99000000,"guests":true}`:       "last_ms",
		`{"last_ms":60000,"text":"  "}`:            "text",
		`{"last_ms":60000,"newcomers_ms":5}`:       "newcomers_ms",
		`{"last_ms":60000,"guests":1}`:             "guests",
		`{"last_ms":60000,"links":true,"links":1}`: "twice",
	} {
		if _, status, problem := c.tries(c.mod, body); status != http.StatusBadRequest || !strings.Contains(problem.Detail, want) {
			t.Errorf("%s: %d %+v", body, status, problem)
		}
	}
	if _, status, _ := c.tries(c.ken, `{"last_ms":60000,"guests":true}`); status != http.StatusForbidden {
		t.Errorf("a viewer: %d", status)
	}
	for body, want := range map[string]int{
		`{"type":"sweep"}`:                                        http.StatusBadRequest,
		`{"type":"sweep","sweep":"none"}`:                         http.StatusNotFound,
		`{"type":"sweep","sweep":"a b"}`:                          http.StatusBadRequest,
		`{"type":"sweep","sweep":"x","spare":true,"for_ms":5000}`: http.StatusBadRequest,
		`{"type":"note","user":"ken"}`:                            http.StatusBadRequest,
		`{"type":"note","text":"x"}`:                              http.StatusBadRequest,
	} {
		if status, _, problem := c.act(c.mod, body); status != want {
			t.Errorf("%s: %d %+v", body, status, problem)
		}
	}
	// Nothing to do is nothing done.
	sweep := c.finds(`{"last_ms":60000,"guests":true}`)
	if done := c.does(c.mod, fmt.Sprintf(`{"type":"sweep","sweep":%q}`, sweep.Sweep)); done.Act != "" {
		t.Errorf("%+v", done)
	}
}
