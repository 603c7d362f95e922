package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"

	"github.com/kansei-live/kansei/protocol"
)

// fakeServer is a server of one room that does what a test tells it, with the
// pages in front of it.
type fakeServer struct {
	*httptest.Server

	mu       sync.Mutex
	conns    map[*websocket.Conn]struct{}
	joins    []join
	comments []*protocol.CommentRequest
	answer   func(*protocol.CommentRequest) protocol.Message // nil: never
	you      protocol.You
	limits   protocol.Limits
	greet    []protocol.Message // behind each welcome
	refuse   int                // HTTP status in place of an upgrade; 0: none
	refuseIn time.Duration      // Retry-After
	leaving  bool               // newcomers are closed with 1012
	asked    []string           // Authorization of each question why
	state    protocol.State
	acts     []*protocol.ActRequest
	sets     []*protocol.SetRequest
	refusal  *protocol.Error // of acts and sets; nil: they are done
	puts     []string        // Authorization of each PUT
	saving   chan struct{}   // holds up each PUT until it is closed; nil: none
	members  []protocol.Member
	lists    int // times that a page of members was asked for
	noList   int // HTTP status in place of one; 0: none
	stopped  int // times that the demo was stopped
	entries  []protocol.Entry
	people   map[string]protocol.Person
	found    protocol.Sweep
	sweeps   []protocol.SweepQuery // that were asked for
	casts    []protocol.BroadcastEntry
	watched  map[string]protocol.WatchLog // by broadcast; "" the last one
	csv      []string                     // queries for CSV
	seq      int
}

// join is what a viewer came with.
type join struct {
	query     url.Values
	protocols string
}

func newFakeServer(t *testing.T, cfg Config) *fakeServer {
	t.Helper()
	s := &fakeServer{
		conns:  make(map[*websocket.Conn]struct{}),
		you:    protocol.You{ID: "me", Name: "Me", Role: protocol.RoleViewer, Can: []string{"comment"}},
		limits: protocol.Limits{Text: 200, PerS: 1, Burst: 5},
		state:  protocol.State{Rev: 3, Status: protocol.StatusLive, Title: "第七回 光と影"},
	}
	s.answer = s.accept
	if cfg.Guests == "" {
		cfg.Guests = protocol.GuestsComment
	}
	pages, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var running sync.WaitGroup
	mux := http.NewServeMux()
	mux.Handle("/", pages)
	mux.HandleFunc("GET /v1/rooms/{room}/ws", func(w http.ResponseWriter, r *http.Request) {
		running.Add(1)
		defer running.Done()
		s.serve(ctx, w, r)
	})
	mux.HandleFunc("GET /v1/rooms/{room}", s.getRoom)
	mux.HandleFunc("GET /v1/rooms/{room}/viewers", s.getViewers)
	mux.HandleFunc("GET /v1/rooms/{room}/moderation", func(w http.ResponseWriter, r *http.Request) {
		s.tells(w, func() any {
			page := protocol.ModerationLog{Entries: s.entries}
			if r.URL.Query().Get("cursor") == "" && len(s.entries) > 2 {
				page = protocol.ModerationLog{Entries: s.entries[:2], Cursor: "older"}
			} else if len(s.entries) > 2 {
				page.Entries = s.entries[2:]
			}
			return page
		})
	})
	mux.HandleFunc("GET /v1/rooms/{room}/users/{user}", func(w http.ResponseWriter, r *http.Request) {
		s.tells(w, func() any { return s.people[r.PathValue("user")] })
	})
	mux.HandleFunc("GET /v1/rooms/{room}/watchlog", s.getWatchLog)
	mux.HandleFunc("GET /v1/rooms/{room}/broadcasts", func(w http.ResponseWriter, _ *http.Request) {
		s.tells(w, func() any { return protocol.Broadcasts{Broadcasts: append([]protocol.BroadcastEntry{}, s.casts...)} })
	})
	mux.HandleFunc("POST /v1/rooms/{room}/sweeps", func(w http.ResponseWriter, r *http.Request) {
		var q protocol.SweepQuery
		_ = json.NewDecoder(r.Body).Decode(&q) // of the page
		s.tells(w, func() any {
			s.sweeps = append(s.sweeps, q)
			return s.found
		})
	})
	mux.HandleFunc("OPTIONS /v1/", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		w.Header().Set("Access-Control-Allow-Headers", "Authorization")
	})
	mux.HandleFunc("PUT /v1/rooms/{room}", s.putRoom)
	mux.HandleFunc("POST /demo/stop", func(w http.ResponseWriter, _ *http.Request) {
		s.mu.Lock()
		s.stopped++
		s.mu.Unlock()
		w.WriteHeader(http.StatusNoContent)
	})
	s.Server = httptest.NewServer(mux)
	t.Cleanup(func() {
		cancel()
		s.closeAll(protocol.CloseGoingAway, "")
		running.Wait()
		s.Close()
	})
	return s
}

func (s *fakeServer) serve(ctx context.Context, w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	status, in := s.refuse, s.refuseIn
	s.mu.Unlock()
	if status != 0 {
		w.Header().Set("Retry-After", fmt.Sprint(int(in.Seconds())))
		w.WriteHeader(status)
		return
	}
	c, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols:   []string{protocol.Subprotocol},
		OriginPatterns: []string{"127.0.0.1:*"}, // other people's pages too
	})
	if err != nil {
		return
	}
	defer func() { _ = c.CloseNow() }() // it has ended already
	s.mu.Lock()
	if s.leaving {
		s.mu.Unlock()
		_ = c.Close(websocket.StatusCode(protocol.CloseRestart), protocol.CloseReason("leaving", 300)) // it may have gone
		return
	}
	s.joins = append(s.joins, join{query: r.URL.Query(), protocols: r.Header.Get("Sec-WebSocket-Protocol")})
	s.conns[c] = struct{}{}
	first := append([]protocol.Message{&protocol.Welcome{
		V: protocol.Version, Room: r.PathValue("room"), Session: "session-0123456789", You: s.you, Now: time.Now().UnixMilli(),
		Recovered: r.URL.Query().Has("since"), BeatMS: 30000, Limits: s.limits,
	}, new(s.state)}, s.greet...)
	for _, m := range first {
		write(c, m)
	}
	s.mu.Unlock()
	defer func() {
		s.mu.Lock()
		delete(s.conns, c)
		s.mu.Unlock()
	}()
	for {
		_, p, err := c.Read(ctx)
		if err != nil {
			return
		}
		req, err := protocol.DecodeRequest(p)
		if err != nil {
			continue
		}
		switch req := req.(type) {
		case *protocol.BeatRequest:
			write(c, &protocol.Beat{Now: time.Now().UnixMilli()})
		case *protocol.ActRequest:
			write(c, s.act(req))
		case *protocol.SetRequest:
			write(c, s.setState(req))
		case *protocol.CommentRequest:
			s.mu.Lock()
			s.comments = append(s.comments, req)
			answer := s.answer
			s.mu.Unlock()
			if answer != nil {
				write(c, answer(req))
			}
		}
	}
}

// tells answers with JSON.
func (s *fakeServer) getWatchLog(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	log, is := s.watched[r.URL.Query().Get("broadcast")]
	if r.Header.Get("Accept") == "text/csv" {
		s.csv = append(s.csv, r.URL.RawQuery)
	}
	s.mu.Unlock()
	if !is {
		w.WriteHeader(http.StatusNotFound)
		return
	}
	s.tells(w, func() any { return log })
}

func (s *fakeServer) tells(w http.ResponseWriter, what func() any) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(what()) // the page is gone
}

// act does an act, whatever it is: what it removes is gone.
func (s *fakeServer) act(req *protocol.ActRequest) protocol.Message {
	s.mu.Lock()
	s.acts = append(s.acts, req)
	id, refusal := fmt.Sprint("act-", len(s.acts)), s.refusal
	s.mu.Unlock()
	if refusal != nil {
		return &protocol.Error{Ref: req.Ref, Code: refusal.Code, Message: refusal.Message}
	}
	switch {
	case req.Type == protocol.TypeRemove:
		s.send(&protocol.Removed{IDs: req.IDs})
	case req.Clear:
		s.send(&protocol.Removed{User: req.User})
	}
	return &protocol.OK{Ref: req.Ref, Act: id, Cursor: "c1"}
}

// setState changes the state as a node does, and tells everybody.
func (s *fakeServer) setState(req *protocol.SetRequest) protocol.Message {
	patch, err := protocol.DecodePatch(req.State)
	s.mu.Lock()
	s.sets = append(s.sets, req)
	refusal := s.refusal
	if err != nil || refusal != nil {
		s.mu.Unlock()
		return &protocol.Error{Ref: req.Ref, Code: protocol.CodeForbidden, Message: "no"}
	}
	doc, _ := json.Marshal(s.state)
	var now protocol.State
	_ = json.Unmarshal(protocol.MergeState(doc, patch.Encode(), time.Now().UnixMilli()), &now) // it is a state
	now.Rev = s.state.Rev + 1
	s.state = now
	s.mu.Unlock()
	s.send(&now)
	return &protocol.OK{Ref: req.Ref, Rev: now.Rev}
}

// write gives up on a peer that has gone; the read loop notices.
func write(c *websocket.Conn, m protocol.Message) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	_ = c.Write(ctx, websocket.MessageText, protocol.Encode(m))
}

// accept shows a comment to everybody and says ok.
func (s *fakeServer) accept(req *protocol.CommentRequest) protocol.Message {
	s.mu.Lock()
	me := s.you
	s.mu.Unlock()
	role := me.Role
	if role == protocol.RoleViewer {
		role = ""
	}
	ids := s.say(protocol.Comment{User: protocol.User{ID: me.ID, Name: me.Name, Role: role}, Text: req.Text, Style: req.Style})
	return &protocol.OK{Ref: req.Ref, ID: ids[0]}
}

// say sends comments to everybody, with ids and times, in one message.
func (s *fakeServer) say(items ...protocol.Comment) []string {
	s.mu.Lock()
	var ids []string
	for i := range items {
		s.seq++
		items[i].ID, items[i].At = fmt.Sprintf("c%05x", s.seq), time.Now().UnixMilli()
		if items[i].User.ID == "" {
			items[i].User = protocol.User{ID: fmt.Sprintf("u%d", s.seq%97), Name: fmt.Sprintf("viewer %d", s.seq%97)}
		}
		ids = append(ids, items[i].ID)
	}
	cursor := fmt.Sprintf("c%d", s.seq)
	s.mu.Unlock()
	s.send(&protocol.Comments{Cursor: cursor, Items: items})
	return ids
}

func (s *fakeServer) send(m protocol.Message) {
	s.mu.Lock()
	var conns []*websocket.Conn
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		write(c, m)
	}
}

func (s *fakeServer) closeAll(code protocol.CloseCode, reason string) {
	s.mu.Lock()
	var conns []*websocket.Conn
	for c := range s.conns {
		conns = append(conns, c)
	}
	s.mu.Unlock()
	for _, c := range conns {
		_ = c.Close(websocket.StatusCode(code), reason) // it may have gone
	}
}

// crash cuts all connections off without a word.
func (s *fakeServer) crash() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for c := range s.conns {
		_ = c.CloseNow() // it may have gone
	}
}

func (s *fakeServer) set(f func(*fakeServer)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	f(s)
}

func (s *fakeServer) getRoom(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	w.Header().Set("Access-Control-Allow-Origin", "*")
	w.Header().Set("Access-Control-Expose-Headers", "Retry-After")
	if s.refuse != 0 {
		s.asked = append(s.asked, r.Header.Get("Authorization"))
		w.Header().Set("Retry-After", fmt.Sprint(int(s.refuseIn.Seconds())))
		w.WriteHeader(s.refuse)
		return
	}
	_ = json.NewEncoder(w).Encode(protocol.Room{Room: "r", State: s.state})
}

func (s *fakeServer) putRoom(w http.ResponseWriter, r *http.Request) {
	var in protocol.State
	if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	s.mu.Lock()
	saving := s.saving
	s.mu.Unlock()
	if saving != nil {
		<-saving
	}
	s.mu.Lock()
	s.puts = append(s.puts, r.Header.Get("Authorization"))
	if !strings.HasPrefix(r.Header.Get("Authorization"), "Bearer ") {
		s.mu.Unlock()
		w.WriteHeader(http.StatusUnauthorized)
		return
	}
	if in.Rev != s.state.Rev {
		s.mu.Unlock()
		w.WriteHeader(http.StatusConflict)
		return
	}
	in.Rev++
	s.state = in
	s.mu.Unlock()
	s.send(&in)
	_ = json.NewEncoder(w).Encode(in)
}

// getViewers answers with all members, two to a page.
func (s *fakeServer) getViewers(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.lists++
	if s.noList != 0 {
		w.WriteHeader(s.noList)
		return
	}
	from, _ := strconv.Atoi(r.URL.Query().Get("cursor")) // none: 0
	to := min(from+2, len(s.members))
	page := protocol.Members{Users: s.members[from:to]}
	if to < len(s.members) {
		page.Cursor = strconv.Itoa(to)
	}
	_ = json.NewEncoder(w).Encode(page)
}
