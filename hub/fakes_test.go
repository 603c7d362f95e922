package hub

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// fakeLog is a room log in memory. Its positions have holes, as those of a log that
// many rooms share.
type fakeLog struct {
	mu      sync.Mutex
	epoch   string
	events  map[string][]Event
	seqs    map[string]uint64 // of the last event, also of one that is forgotten
	times   map[uint64]int64  // of every position ever, for the tests
	follows map[string]*fakeFollow
	first   uint64   // what comes before is forgotten
	end     Position // of the log, when nothing was said
	stopped int
	silent  bool // Follow reports nothing
	reads   int
	slow    time.Duration // of each Read
	reading func(n int)   // is called in the middle of the nth Read
	asked   int           // how often Has was
	pages   int           // how often Before was
	paging  func(n int)   // is called at the end of the nth Before
	pageErr error         // of Before
	hasErr  error         // of Has
	unsure  bool          // it may have lost its end
	behind  time.Duration // its clock, behind this node's

	standing []Standing // what a room is opened with
	state    State
}

type fakeFollow struct {
	log  *fakeLog
	room string
	mu   sync.Mutex // one report at a time
	f    Follower
	had  uint64
}

func newFakeLog() *fakeLog {
	return &fakeLog{epoch: "e1", events: map[string][]Event{}, seqs: map[string]uint64{}, times: map[uint64]int64{}, follows: map[string]*fakeFollow{}}
}

func body(text string) []byte {
	return protocol.EncodeBody(protocol.Comment{User: protocol.User{ID: "u"}, Text: text})
}

// put adds an event without telling anybody.
func (l *fakeLog) put(room, text, audience string) Event {
	l.mu.Lock()
	defer l.mu.Unlock()
	seq := l.seqs[room] + 1
	if n := len(l.events[room]); n > 0 {
		seq += uint64(n % 3)
	}
	l.seqs[room] = seq
	e := Event{Seq: seq, At: time.Now().Add(-l.behind).UnixMilli(), ID: "draft-" + text, Kind: KindComment, Audience: audience, Body: body(text)}
	l.events[room] = append(l.events[room], e)
	l.times[seq] = e.At
	return e
}

// say adds an event to room r and reports it to who follows.
func (l *fakeLog) say(text string) Event {
	e := l.put("r", text, AudienceAll)
	l.tell("r")
	return e
}

// tell reports everything that has not been reported.
func (l *fakeLog) tell(room string) {
	l.mu.Lock()
	f := l.follows[room]
	l.mu.Unlock()
	if f == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	l.mu.Lock()
	all := l.events[room]
	fresh := all[sort.Search(len(all), func(i int) bool { return all[i].Seq > f.had }):]
	l.mu.Unlock()
	if len(fresh) > 0 && f.f != nil {
		f.had = fresh[len(fresh)-1].Seq
		f.f.Deliver(fresh)
	}
}

func (l *fakeLog) Append(room string, d Draft, done func(Receipt, error)) {
	panic("the hub does not append")
}

func (l *fakeLog) Follow(room string, recent int, f Follower) Follow {
	ff := &fakeFollow{log: l, room: room, f: f}
	l.mu.Lock()
	l.follows[room] = ff
	silent := l.silent
	l.mu.Unlock()
	if !silent {
		go ff.reset(recent)
	}
	return ff
}

func (f *fakeFollow) reset(recent int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.f == nil {
		return
	}
	f.log.mu.Lock()
	all := f.log.events[f.room]
	epoch := f.log.epoch
	head := f.log.end
	standing, state := slices.Clone(f.log.standing), f.log.state
	f.log.mu.Unlock()
	if len(all) > 0 {
		head = all[len(all)-1].Position()
	}
	f.had = head.Seq
	f.f.Standing(standing, state)
	from := max(0, len(all)-recent)
	for st := DecodeState(state); from > 0 && st.DelayMS > 0 && time.Since(time.UnixMilli(all[from-1].At)).Milliseconds() < st.DelayMS; {
		from--
	}
	f.f.Reset(epoch, all[from:], head)
	f.f.SetState(state)
}

func (f *fakeFollow) Stop() {
	f.mu.Lock()
	f.f = nil
	f.mu.Unlock()
	f.log.mu.Lock()
	f.log.stopped++
	f.log.mu.Unlock()
}

func (l *fakeLog) Read(ctx context.Context, room, epoch string, after Position, limit int) ([]Event, bool, error) {
	time.Sleep(l.slow)
	if err := ctx.Err(); err != nil {
		return nil, false, err
	}
	l.mu.Lock()
	l.reads++
	n, reading := l.reads, l.reading
	var out []Event
	more := false
	for _, e := range l.events[room] {
		if e.Seq > after.Seq {
			if more = len(out) == limit; more {
				break
			}
			out = append(out, e)
		}
	}
	l.mu.Unlock()
	if reading != nil {
		reading(n)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.first > after.Seq+1 || l.has(room, epoch, after) == AnchorNone {
		return nil, false, fmt.Errorf("fake: %w", ErrForgotten)
	}
	return out, more, nil
}

func (l *fakeLog) Before(ctx context.Context, room, epoch string, at Position, with bool, limit int) (Page, error) {
	time.Sleep(l.slow)
	if err := ctx.Err(); err != nil {
		return Page{}, fmt.Errorf("fake: %w: %w", ErrUnavailable, err)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.pages++
	if l.pageErr != nil {
		return Page{}, l.pageErr
	}
	all := l.events[room]
	n := sort.Search(len(all), func(i int) bool { return all[i].Seq > at.Seq || !with && all[i].Seq == at.Seq })
	switch {
	case l.epoch == epoch && (at.Seq == EndSeq || at.Seq < l.first):
	case l.has(room, epoch, at) == AnchorNone:
		return Page{}, fmt.Errorf("fake: %w", ErrForgotten)
	}
	if n == 0 {
		return Page{}, nil
	}
	from := max(0, n-limit)
	page := Page{Events: slices.Clone(all[from:n]), From: all[from].Position(), More: from > 0}
	if l.paging != nil {
		n := l.pages
		l.mu.Unlock()
		l.paging(n)
		l.mu.Lock()
	}
	return page, nil
}

// has is what the log has at a position. l.mu is held.
func (l *fakeLog) has(room, epoch string, p Position) Anchor {
	if l.epoch != epoch {
		return AnchorNone
	}
	for name, all := range l.events {
		i := sort.Search(len(all), func(i int) bool { return all[i].Seq >= p.Seq })
		switch {
		case i == len(all) || all[i].Position() != p:
		case name == room:
			return AnchorRoom
		default:
			return AnchorLog
		}
	}
	if p.Seq == 0 || p == l.end || l.first <= p.Seq && l.elsewhere(p) {
		return AnchorLog
	}
	return AnchorNone
}

// elsewhere reports whether a position is one of the log's in a room that no test looks
// at: their times are told by their sequences.
func (l *fakeLog) elsewhere(p Position) bool { return p == elsewhere(p.Seq) }

func elsewhere(seq uint64) Position { return Position{seq, int64(7_000_000 + seq)} }

func (l *fakeLog) Has(_ context.Context, room, epoch string, p Position) (Anchor, error) {
	time.Sleep(l.slow)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.asked++
	return l.has(room, epoch, p), l.hasErr
}

func (l *fakeLog) Sure(string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return !l.unsure
}

// cursorAt is the cursor of a sequence in room r, with the time that it has, or had last.
func (l *fakeLog) cursorAt(seq uint64) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return makeCursor(cursorTag("e1", "r"), Position{seq, l.times[seq]})
}

// forget removes what comes up to a position. l.mu is held.
func (l *fakeLog) forget(upTo uint64) {
	l.first = upTo + 1
	for room, all := range l.events {
		l.events[room] = all[sort.Search(len(all), func(i int) bool { return all[i].Seq > upTo }):]
	}
}

// renew makes another log of it. l.mu is held.
func (l *fakeLog) renew(epoch string) {
	l.epoch, l.first, l.events, l.seqs = epoch, 0, map[string][]Event{}, map[string]uint64{}
}

// change changes the log under its lock.
func (l *fakeLog) change(f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	f()
}

func (l *fakeLog) State(context.Context, string) (State, error) { return State{}, nil }

func (l *fakeLog) SetState(context.Context, string, uint64, []byte) (State, error) {
	return State{}, ErrUnavailable
}

func (l *fakeLog) Keep(context.Context, string, Standing, time.Duration) (Standing, error) {
	return Standing{}, ErrUnavailable
}

func (l *fakeLog) Kept(context.Context, string, string) (Standing, error) {
	return Standing{}, ErrUnavailable
}

func (l *fakeLog) Event(context.Context, string, uint64) (*Event, error) { return nil, ErrUnavailable }
func (l *fakeLog) Forget(context.Context, string, uint64) error          { return ErrUnavailable }
func (l *fakeLog) ForgetStanding(context.Context, string) error          { return ErrUnavailable }
func (l *fakeLog) Origin(string, string) string                          { return "" }
func (l *fakeLog) UserHash(room, user string) string                     { return "hash of " + user + " in " + room }
func (l *fakeLog) Now() time.Time                                        { return time.Now().Add(-l.behind) }
func (l *fakeLog) KeepFor() time.Duration                                { return 0 }

// fakePresence counts on one node and reports when told to.
type fakePresence struct {
	mu     sync.Mutex
	conns  map[string]int
	report map[string]func(Counts)
	closed int
}

func newFakePresence() *fakePresence {
	return &fakePresence{conns: map[string]int{}, report: map[string]func(Counts){}}
}

type fakeMembership struct {
	r    *fakePresence
	room string
}

func (r *fakePresence) Open(room string, counts func(Counts)) Membership {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.report[room] = counts
	return &fakeMembership{r, room}
}

func (m *fakeMembership) Join(Member)  { m.add(1) }
func (m *fakeMembership) Leave(string) { m.add(-1) }
func (m *fakeMembership) add(n int) {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	m.r.conns[m.room] += n
}

func (m *fakeMembership) Close() {
	m.r.mu.Lock()
	defer m.r.mu.Unlock()
	m.r.closed++
}

func (r *fakePresence) tell(room string) {
	r.mu.Lock()
	f, n := r.report[room], r.conns[room]
	r.mu.Unlock()
	f(Counts{Connections: n, Users: n, PeakUsers: n, At: time.Now().UnixMilli()})
}

// maxServerMessage is what PROTOCOL.md promises of a server's message.
const maxServerMessage = 32 << 10

// fakeSocket takes everything at once unless it is frozen.
type fakeSocket struct {
	viewer *Viewer

	mu     sync.Mutex
	frozen bool
	got    []protocol.Message
	writes int
	closed int
}

func (s *fakeSocket) Form() *Form { return lines }

func (s *fakeSocket) Close(code int, _ string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = code
}

func (s *fakeSocket) Flush() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !s.frozen {
		frames := s.viewer.Next(nil)
		if len(frames) == 0 {
			return
		}
		s.writes++
		for _, f := range frames {
			for line := range bytes.Lines(f) {
				if len(line) > maxServerMessage {
					panic(fmt.Sprintf("a message of %d bytes: %.60s…", len(line), line))
				}
				m, err := protocol.Decode(line)
				if err != nil {
					panic(err)
				}
				s.got = append(s.got, m)
			}
		}
	}
}

func (s *fakeSocket) freeze(frozen bool) {
	s.mu.Lock()
	s.frozen = frozen
	s.mu.Unlock()
	if !frozen {
		s.Flush()
	}
}

// take returns what came since the last take.
func (s *fakeSocket) take() []protocol.Message {
	s.mu.Lock()
	defer s.mu.Unlock()
	got := s.got
	s.got = nil
	return got
}

// lines is a form that writes messages as lines.
var lines = &Form{Encode: func(messages [][]byte) []byte { return bytes.Join(messages, []byte("\n")) }}

type world struct {
	t        testing.TB
	log      *fakeLog
	presence *fakePresence
	hub      *Hub
}

func newWorld(t testing.TB, change func(*Config)) *world {
	w := &world{t: t, log: newFakeLog(), presence: newFakePresence()}
	cfg := Config{Log: w.log, Presence: w.presence}
	if change != nil {
		change(&cfg)
	}
	w.hub = New(cfg)
	return w
}

func (w *world) join(room, since string) (*Viewer, *fakeSocket) { return w.joinAs(room, since, false) }

func (w *world) joinAs(room, since string, staff bool) (*Viewer, *fakeSocket) {
	v := new(Viewer)
	s := &fakeSocket{viewer: v}
	w.hub.Join(w.t.Context(), v, Join{Room: room, User: "u", Staff: staff, Socket: s, Since: since,
		Welcome: func(recovered bool) []byte {
			return protocol.Encode(&protocol.Welcome{Room: room, Recovered: recovered})
		}})
	return v, s
}

// read acquires a room as one who is not in it.
func (w *world) read(room string) *Room {
	w.t.Helper()
	r, ok := w.hub.AcquireToRead(room)
	if !ok {
		w.t.Fatalf("%s cannot be read", room)
	}
	return r
}

// polls asks for what came after a cursor, if there is one.
func (r *Room) polls(ctx context.Context, since string) ([]byte, bool) {
	message, recovered, err := r.Comments(ctx, Ask{Since: since})
	if err != nil {
		panic(err)
	}
	return message, recovered
}

// brief writes messages so that they can be compared at a glance.
func brief(messages []protocol.Message) string {
	var out []string
	for _, m := range messages {
		switch m := m.(type) {
		case *protocol.Welcome:
			out = append(out, fmt.Sprintf("welcome(%v)", m.Recovered))
		case *protocol.Comments:
			var texts []string
			for _, c := range m.Items {
				texts = append(texts, c.Text)
			}
			name := "comments"
			if m.History {
				name = "history"
			}
			out = append(out, name+"["+strings.Join(texts, " ")+"]")
		case *protocol.State:
			out = append(out, "state")
		case *protocol.Viewers:
			out = append(out, fmt.Sprintf("viewers(%d)", m.Connections))
		case *protocol.Gap:
			out = append(out, fmt.Sprintf("gap(%d)", m.Missed))
		case *protocol.Moderation:
			done := m.Entry.Type
			if m.Entry.Undone != nil {
				done += " undone"
			}
			out = append(out, fmt.Sprintf("moderation(%s)", done))
		default:
			b, _ := json.Marshal(m)
			out = append(out, string(b))
		}
	}
	return strings.Join(out, " ")
}

// cursor is where a client that got these messages would go on.
func cursor(messages []protocol.Message) string {
	at := ""
	for _, m := range messages {
		switch m := m.(type) {
		case *protocol.Comments:
			at = m.Cursor
		case *protocol.Gap:
			at = m.Cursor
		}
	}
	return at
}

func (w *world) expect(s *fakeSocket, want string) []protocol.Message {
	w.t.Helper()
	got := s.take()
	if b := brief(got); b != want {
		w.t.Errorf("got  %s\nwant %s", b, want)
	}
	return got
}

func (m *fakeMembership) Broadcast(int64) {}

func (m *fakeMembership) First(string) (time.Time, bool) { return time.Time{}, false }
