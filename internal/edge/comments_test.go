package edge

import (
	"encoding/json"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/protocol"
)

// tardy is a presence that reports only when it is told to.
type tardy struct{ report func(hub.Counts) }

func (r *tardy) Open(_ string, counts func(hub.Counts)) hub.Membership {
	r.report = counts
	return nobodyCounts{}
}

type nobodyCounts struct{}

func (nobodyCounts) Join(hub.Member) {}
func (nobodyCounts) Leave(string)    {}
func (nobodyCounts) Close()          {}

// site is a server with one room's log, and who asks it.
func site(t *testing.T, change func(*Config)) (ask func(method, path string, header ...string) *http.Response, presence *tardy) {
	t.Helper()
	l := &knowing{id: "one", sure: true}
	presence = new(tardy)
	h := hub.New(hub.Config{Log: l, Presence: presence})
	guests, err := auth.NewGuests([]byte(strings.Repeat("g", 32)))
	if err != nil {
		t.Fatal(err)
	}
	tokens, err := auth.NewVerifier([]byte(strings.Repeat("t", 32)))
	if err != nil {
		t.Fatal(err)
	}
	cfg := Config{Hub: h, Log: l, Guests: protocol.GuestsWatch, GuestIDs: guests, Tokens: tokens, MaxViewers: 10, MaxMessage: 8192,
		Metrics: NewMetrics(nil), Logger: slog.New(slog.DiscardHandler)}
	if change != nil {
		change(&cfg)
	}
	s := New(cfg)
	t.Cleanup(func() { s.Close(); h.Close() })
	mux := http.NewServeMux()
	s.Register(mux)
	return func(method, path string, header ...string) *http.Response {
		r := httptest.NewRequestWithContext(t.Context(), method, path, nil)
		for i := 0; i < len(header); i += 2 {
			r.Header.Set(header[i], header[i+1])
		}
		w := httptest.NewRecorder()
		mux.ServeHTTP(w, r)
		return w.Result()
	}, presence
}

// The answer about a room comes at once, without the counts; they are there for who asks
// again when the presence has told them.
func TestRoomDoesNotWaitForCounts(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ask, presence := site(t, nil)
		get := func() (out protocol.Room) {
			began := time.Now()
			res := ask("GET", "/v1/rooms/r")
			if err := json.NewDecoder(res.Body).Decode(&out); err != nil || res.StatusCode != http.StatusOK || time.Since(began) > 0 {
				t.Fatalf("%s after %v: %v", res.Status, time.Since(began), err)
			}
			return out
		}
		if got := get(); got.Viewers != nil || got.State.Status != protocol.StatusLive {
			t.Errorf("at first %+v, %+v", got, got.Viewers)
		}
		time.Sleep(time.Second)
		presence.report(hub.Counts{At: 5})
		if got := get(); got.Viewers == nil || got.Viewers.At != 5 {
			t.Errorf("then %+v", got.Viewers)
		}
	})
}

// What may be read without a token any page may read, and a cache in front gives the same
// answer to all of them. Nothing that was asked with a token, or with an attempt at one, is
// shared.
func TestReadsAreShared(t *testing.T) {
	t.Parallel()
	foreign := "https://other.example"
	for _, path := range []string{"/v1/rooms/r", "/v1/rooms/r/comments", "/v1/rooms/r/comments?limit=0"} {
		ask, _ := site(t, nil)
		for _, origin := range []string{"", foreign, "null", "https://" + strings.Repeat("x", 1000)} {
			res := ask("GET", path, "Origin", origin)
			if origin == "" {
				res = ask("GET", path)
			}
			head := res.Header
			want := http.StatusOK
			if strings.Contains(path, "limit") {
				want = http.StatusBadRequest
			}
			if res.StatusCode != want || head.Get("Access-Control-Allow-Origin") != "*" || strings.Join(head["Vary"], ",") != "Authorization" {
				t.Errorf("%s of %.30s: %s, %v", path, origin, res.Status, head)
			}
			if cached := head.Get("Cache-Control"); strings.HasSuffix(path, "/comments") && cached != "public, max-age=1" || !strings.HasSuffix(path, "/comments") && cached != "no-store" {
				t.Errorf("%s of %.30s: %q", path, origin, cached)
			}
		}
		for name, header := range map[string][]string{
			"token":    {"Authorization", "Bearer x"},
			"empty":    {"Authorization", "Bearer "},
			"password": {"Authorization", "Basic eDp5"},
		} {
			head := ask("GET", path, append(header, "Origin", foreign)...).Header
			if head.Get("Access-Control-Allow-Origin") != "" || strings.Join(head["Vary"], ",") != "Authorization,Origin" {
				t.Errorf("%s with %s: %v", path, name, head)
			}
			if cached := ask("GET", path, header...).Header.Get("Cache-Control"); cached == "" || strings.Contains(cached, "public") {
				t.Errorf("%s with %s: %q", path, name, cached)
			}
		}
		// Pages of other origins may read, and do nothing.
		for _, method := range []string{"PUT", "POST", "OPTIONS"} {
			if res := ask(method, path, "Origin", foreign); res.StatusCode != http.StatusForbidden {
				t.Errorf("%s %s of another origin: %s", method, path, res.Status)
			}
		}
		closed, _ := site(t, func(c *Config) { c.Guests = protocol.GuestsNone })
		if res := closed("GET", path, "Origin", foreign); res.StatusCode != http.StatusForbidden || res.Header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s where guests may not watch: %s, %v", path, res.Status, res.Header)
		}
	}
}

// A page that may not connect may read that this is why, at the entrance that refuses it.
func TestForeignOriginIsTold(t *testing.T) {
	t.Parallel()
	ask, _ := site(t, nil)
	res := ask("GET", "/v1/rooms/r/ws", "Origin", "https://other.example")
	var p protocol.Problem
	if err := json.NewDecoder(res.Body).Decode(&p); err != nil || res.StatusCode != http.StatusForbidden || p.Code != protocol.CodeForbidden ||
		res.Header.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("%s, %+v, %v", res.Status, p, res.Header)
	}
}

// A known parameter with a bad value is refused by name.
func TestBadParameters(t *testing.T) {
	t.Parallel()
	ask, _ := site(t, nil)
	for _, entrance := range []string{"GET /v1/rooms/r", "PUT /v1/rooms/r", "GET /v1/rooms/r/comments", "POST /v1/rooms/r/comments"} {
		method, path, _ := strings.Cut(entrance, " ")
		var p protocol.Problem
		if err := json.NewDecoder(ask(method, path+"?token=a&token=b").Body).Decode(&p); err != nil || p.Status != 400 || p.Detail != "token appears twice" {
			t.Errorf("%s with two tokens: %+v, %v", entrance, p, err)
		}
	}
	for query, says := range map[string]string{
		"limit=abc":                          `limit must be a whole number from 1 to 1000, not "abc"`,
		"limit=1001":                         `limit must be`,
		"before=a%20b":                       `before must be a cursor`,
		"after=":                             `after must be a cursor`,
		"since=%ff":                          `since must be a cursor`,
		"since=a&after=b":                    `since and after exclude each other`,
		"limit=" + strings.Repeat("9", 9000): `limit must be`,
	} {
		res := ask("GET", "/v1/rooms/r/comments?"+query)
		var p protocol.Problem
		if err := json.NewDecoder(res.Body).Decode(&p); err != nil || res.StatusCode != 400 || p.Code != protocol.CodeBadMessage || !strings.Contains(p.Detail, says) || len(p.Detail) > 150 {
			t.Errorf("%.60s: %s, %+v, %v", query, res.Status, p, err)
		}
		if got := res.Header.Get("Cache-Control"); got != "no-store" {
			t.Errorf("%.60s: %q", query, got)
		}
	}
}

func (nobodyCounts) Broadcast(int64) {}

func (nobodyCounts) First(string) (time.Time, bool) { return time.Time{}, false }
