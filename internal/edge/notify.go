package edge

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"sync"
	"time"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/protocol"
)

// What moderators do, and changes of a room's state, concern viewers who are there: they are told by
// you what they may do now, or closed. The hub says what has changed while it holds a room, so that is
// noted here, and one goroutine sees to it.

// change is something that viewers are to be told.
type change struct {
	room    string
	user    string // the id of whom it concerns; empty: all in the room
	deleted bool   // the room was deleted
	all     bool   // it concerns the user in all rooms
	carry   *hub.Act
	drop    []string // acts to undo, whose act for all rooms does not count any more
	watch   bool     // the room knows now what is kept of who watches
}

// changes is what is to be seen to. It is unbounded, but rooms and users are noted once.
type changes struct {
	mu    sync.Mutex
	queue []change
	noted map[[2]string]bool // rooms and users in queue
	wake  chan struct{}
}

func (c *changes) add(x change) {
	c.mu.Lock()
	defer c.mu.Unlock()
	key := [2]string{x.room, x.user}
	if plain := !x.deleted && !x.all && !x.watch && x.carry == nil && x.drop == nil; plain {
		if c.noted[key] {
			return
		}
		if c.noted == nil {
			c.noted = map[[2]string]bool{}
		}
		c.noted[key] = true
	}
	c.queue = append(c.queue, x)
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

func (c *changes) take() []change {
	c.mu.Lock()
	defer c.mu.Unlock()
	q := c.queue
	c.queue, c.noted = nil, nil
	return q
}

// Acted is told of an act about a user that begins or ceases to count in a room.
func (s *Server) Acted(room string, a *hub.Act) {
	if a.User != "" && !a.Quiet {
		s.changes.add(change{room: room, user: a.User})
	}
	for i := range a.Users {
		s.changes.add(change{room: room, user: a.Users[i].User})
	}
}

// Stated is told of a change of a room's state.
func (s *Server) Stated(room string, before, now protocol.State) {
	if before.Watch != now.Watch {
		s.cfg.Watch.Set(room, now.Watch)
	}
	gates := func(st protocol.State) protocol.State {
		return protocol.State{Status: st.Status, Mode: st.Mode, KnownMS: st.KnownMS, Text: st.Text}
	}
	a, b := gates(before), gates(now)
	early := func(st protocol.State) bool { return st.EarlyChat == nil || *st.EarlyChat }
	if a.Status != b.Status || a.Mode != b.Mode || a.KnownMS != b.KnownMS || a.Text != b.Text || early(before) != early(now) {
		s.changes.add(change{room: room})
	}
}

// Opened is told of a room that was opened while viewers waited in it.
func (s *Server) Opened(room string) {
	s.changes.add(change{room: room})
	s.changes.add(change{room: room, watch: true})
}

// Deleted is told of a room that was deleted.
func (s *Server) Deleted(room string) { s.changes.add(change{room: room, deleted: true}) }

// ActedEverywhere is told of acts for all rooms that have come or gone.
func (s *Server) ActedEverywhere(acts []hub.Act) {
	for i := range acts {
		if acts[i].User != "" {
			s.changes.add(change{user: acts[i].User, all: true})
		}
	}
}

// notify sees to changes until quit is closed.
func (s *Server) notify() {
	for {
		select {
		case <-s.quit:
			return
		case <-s.changes.wake:
		}
		for _, c := range s.changes.take() {
			switch {
			case c.carry != nil:
				s.carryOut(c.room, c.carry)
			case c.watch:
				if room := s.cfg.Hub.Find(c.room); room != nil {
					s.cfg.Watch.Set(c.room, s.watchOf(room))
				}
			case c.drop != nil:
				s.undoStale(c.room, c.drop)
			default:
				for _, v := range s.concerned(c) {
					s.tellChange(v, &c)
				}
			}
		}
	}
}

// concerned are the sessions that a change is about.
func (s *Server) concerned(c change) []holder {
	var all []holder
	s.mu.Lock()
	defer s.mu.Unlock()
	if c.user != "" && !c.all {
		for _, v := range s.users.sessions(userOf(c.room, c.user)) {
			if _, in := s.sessions[v]; in {
				all = append(all, holder{v, v.identity})
			}
		}
		return all
	}
	for v := range s.sessions {
		if (c.all || v.room == c.room) && (c.user == "" || v.id == c.user) {
			all = append(all, holder{v, v.identity})
		}
	}
	return all
}

// tellChange tells one session of a change.
func (s *Server) tellChange(v holder, c *change) {
	if c.deleted {
		v.conn.Close(int(protocol.CloseNoRoom), protocol.CloseReason("the room was deleted", 0))
		return
	}
	room := s.cfg.Hub.Find(v.room)
	if room == nil {
		return
	}
	no, b := s.judge(room, &v.who)
	if no != nil {
		if no.blocked != nil {
			v.sayYou(&v.who, no.blocked)
		}
		v.conn.Close(int(no.close), protocol.CloseReason(no.message, no.retryMS))
		return
	}
	if !v.settled.Load() {
		return // its welcome says it
	}
	if had := v.told.Load(); !sameBlocked(had, b) || c.user == "" && !c.all && s.limitsIn(room, &v.who).Text != s.limitsOf(&v.who).Text {
		v.sayYou(&v.who, b)
	}
}

// sayYou tells a viewer what it may do now.
func (v *session) sayYou(who *identity, b *protocol.Blocked) {
	s := v.server
	v.told.Store(b)
	you := &protocol.YouNow{You: s.you(v.room, who), Limits: s.limitsIn(s.cfg.Hub.Find(v.room), who)}
	you.Blocked = b
	v.send(you)
}

// refusesNow says why a room would not let somebody in, and does not keep them; nil when it does.
func (s *Server) refusesNow(room *hub.Room, who *identity) *refusal {
	no, _ := s.excluded(room, who)
	return no
}

// judge says why a room would not let somebody in, and does not keep them; if it does, why they may
// not comment. Both are nil for those who may do all. The caller holds no lock of the room.
func (s *Server) judge(room *hub.Room, who *identity) (*refusal, *protocol.Blocked) {
	no, acts := s.excluded(room, who)
	if no != nil {
		return no, nil
	}
	return nil, s.silenced(room, who, &acts)
}

// excluded is refusesNow, with what moderators have done about somebody whom the room keeps.
func (s *Server) excluded(room *hub.Room, who *identity) (*refusal, sanctions) {
	if !s.exists(room) {
		return noRoom(), sanctions{}
	}
	acts := s.sanctionsOf(room, who)
	s.meet(room, who, &acts)
	if acts.ban == nil {
		return nil, acts
	}
	b := s.told(protocol.CodeBanned, "you are banned", acts.ban)
	return &refusal{close: protocol.CloseBanned, code: b.Code, message: b.Message, retryMS: b.RetryMS, reason: refusedBanned, blocked: b}, acts
}

// meet has acts for all rooms be carried out in a room in which their user is met, and what has carried
// out those that do not count any more be undone.
func (s *Server) meet(room *hub.Room, who *identity, acts *sanctions) {
	if len(acts.stale) > 0 {
		s.changes.add(change{room: room.Name(), drop: acts.stale})
	}
	if len(acts.everywhere) == 0 {
		return
	}
	for i := range acts.everywhere {
		a := acts.everywhere[i]
		if a.Kind != protocol.TypeMute && a.Kind != protocol.TypeBan || who.rank() >= a.By.Role.Rank() {
			continue
		}
		sum := sha256.Sum256([]byte("everywhere/" + room.Name() + "/" + a.ID))
		from := a.ID
		a.ID, a.From = base64.RawURLEncoding.EncodeToString(sum[:16]), from
		a.Hash, a.After = s.cfg.Log.UserHash(room.Name(), who.id), room.Head().Seq
		if _, is := room.Act(a.ID); !is {
			s.changes.add(change{room: room.Name(), carry: &a})
		}
	}
}

// carryTime bounds the carrying out of one act.
const carryTime = 5 * time.Second

// carryOut does in a room what an act for all rooms says.
func (s *Server) carryOut(room string, a *hub.Act) {
	if r := s.cfg.Hub.Find(room); r != nil {
		if _, is := r.Act(a.ID); is {
			return
		}
	}
	s.beside(func(ctx context.Context) {
		if _, err := s.cfg.Desk.Do(ctx, room, a); err != nil {
			s.cfg.Logger.Debug("an act for all rooms was not carried out in a room: it is when its user is met there next", "room", room, "error", err)
		}
	})
}

// undoStale undoes what has carried out acts that do not count any more.
func (s *Server) undoStale(room string, ids []string) {
	sum := sha256.New()
	for _, id := range ids {
		_, _ = sum.Write([]byte("stale/" + room + "/" + id)) // never fails
	}
	u := &hub.Act{ID: base64.RawURLEncoding.EncodeToString(sum.Sum(nil)[:16]), Kind: protocol.TypeUndo, At: s.cfg.Log.Now().UnixMilli(), Undoes: ids}
	s.beside(func(ctx context.Context) {
		if _, err := s.cfg.Desk.Undo(ctx, room, u); err != nil {
			s.cfg.Logger.Debug("what an act for all rooms had done in a room was not undone: it is when its user is met there next", "room", room, "error", err)
		}
	})
}

// beside does something of a room beside all others.
func (s *Server) beside(f func(ctx context.Context)) {
	s.running.Go(func() { // ends with its deadline; Close waits for it
		ctx, cancel := context.WithTimeout(context.Background(), carryTime)
		defer cancel()
		f(ctx)
	})
}
