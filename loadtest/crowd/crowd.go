// Package crowd fills rooms with viewers and publishers that outlive whatever is done to
// the nodes, and notes in a journal of package audit everything that they send, are told
// and receive.
//
// A comment carries its serial number as its media_ms, wherever it goes. Viewers are
// clients of package client, which come back by themselves; what they receive is read
// here, from the messages as they came (frames.go). Publishers (publish.go) are clients
// that ask again until they know, and back ends that ask once.
package crowd

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"sync"
	"time"

	"github.com/kansei-live/kansei/client"
	"github.com/kansei-live/kansei/loadtest"
	"github.com/kansei-live/kansei/loadtest/audit"
	"github.com/kansei-live/kansei/protocol"
)

// Config says how many viewers and publishers there are, and where they connect.
type Config struct {
	Front  string   // one address for all nodes
	Nodes  []string // their own; a third of the viewers goes there
	Secret string   // of tokens
	Rooms  []string

	Viewers    int     // over all rooms
	JoinRate   float64 // viewers that come in a second
	Publishers int     // in each room; half as many back ends besides
	Rate       float64 // comments a second in each room
	// Events has back ends, and hecklers, say every fourth thing by an event of the application, [EventName].
	Events bool
	// Acts is how many acts a second moderators do in each room; 0: none. As many hecklers as
	// publishers are there for them to be done to.
	Acts float64

	Trace   string // a file whose texts are said; empty: texts are made up
	Seed    uint64
	Journal *audit.Journal
}

// EventName is the name of the events.
const EventName = "said"

// joinPatience is how long all may take to come, beyond their rate.
const joinPatience = 60 * time.Second

// Crowd is who is there. Make one with [Join].
type Crowd struct {
	cfg    Config
	texts  *texts
	frames *frames
	http   *http.Transport
	bufs   client.Buffers

	life    context.Context // of everybody
	leave   context.CancelFunc
	running sync.WaitGroup

	mu    sync.Mutex
	stays []Stay // that are over

	viewers    []*member
	publishers map[string][]*publisher // by room
	backEnds   map[string][]*backEnd
	hecklers   map[string][]*heckler
}

// Join brings everybody in and returns when all have been welcome. They stay until Leave.
func Join(ctx context.Context, cfg Config) (*Crowd, error) {
	said, err := loadtest.Texts(cfg.Trace, cfg.Seed)
	if err != nil {
		return nil, err
	}
	c := &Crowd{
		cfg: cfg, texts: &texts{next: said}, frames: newFrames(),
		http:       &http.Transport{DisableKeepAlives: true, ResponseHeaderTimeout: 30 * time.Second},
		publishers: map[string][]*publisher{}, backEnds: map[string][]*backEnd{}, hecklers: map[string][]*heckler{},
	}
	c.life, c.leave = context.WithCancel(context.WithoutCancel(ctx))
	if err := loadtest.RaiseFileLimit(cfg.Viewers + len(cfg.Rooms)*cfg.Publishers*2); err != nil {
		return nil, err
	}
	if err := c.join(ctx); err != nil {
		c.Leave()
		return nil, err
	}
	return c, nil
}

func (c *Crowd) join(ctx context.Context) error {
	began := time.Now()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for len(c.viewers) < c.cfg.Viewers {
		for float64(len(c.viewers)) < time.Since(began).Seconds()*c.cfg.JoinRate && len(c.viewers) < c.cfg.Viewers {
			n := len(c.viewers)
			m, err := c.enter(c.cfg.Rooms[n%len(c.cfg.Rooms)], fmt.Sprint("v", n), protocol.RoleViewer, c.addresses(n), "", false)
			if err != nil {
				return err
			}
			c.viewers = append(c.viewers, m)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	for i, room := range c.cfg.Rooms {
		for n := range c.cfg.Publishers {
			name := fmt.Sprintf("p%d-%d", i, n)
			m, err := c.enter(room, name, protocol.RoleBroadcaster, c.addresses(n+1), "", false)
			if err != nil {
				return err
			}
			c.publishers[room] = append(c.publishers[room], &publisher{m})
			if n%2 == 0 {
				b, err := c.backEnd(room, fmt.Sprintf("b%d-%d", i, n), protocol.RoleBroadcaster)
				if err != nil {
					return err
				}
				c.backEnds[room] = append(c.backEnds[room], b)
			}
			if c.cfg.Acts > 0 {
				b, err := c.backEnd(room, fmt.Sprintf("h%d-%d", i, n), protocol.RoleViewer)
				if err != nil {
					return err
				}
				c.hecklers[room] = append(c.hecklers[room], &heckler{backEnd: b})
			}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, joinPatience)
	defer cancel()
	for _, m := range c.members() {
		select {
		case <-m.welcome:
		case <-ctx.Done():
			return fmt.Errorf("crowd: %s could not join %s: %w", m.name, m.room, errors.Join(m.lastError(), ctx.Err()))
		}
	}
	return nil
}

// members are all who hold a connection.
func (c *Crowd) members() []*member {
	all := slices.Clone(c.viewers)
	for _, room := range c.cfg.Rooms {
		for _, p := range c.publishers[room] {
			all = append(all, p.member)
		}
	}
	return all
}

// Leave ends everybody and waits for them.
func (c *Crowd) Leave() {
	c.leave()
	c.running.Wait()
	c.http.CloseIdleConnections()
}

// Counts are the connections of a room, and its distinct users.
type Counts struct{ Connections, Users int }

// Counts tells who is connected now, and what of it its viewers have been told last.
func (c *Crowd) Counts() (now map[string]Counts, told map[string][]Counts) {
	now, told = map[string]Counts{}, map[string][]Counts{}
	for _, m := range c.members() {
		connected, last := m.state()
		if connected {
			n := now[m.room]
			now[m.room] = Counts{n.Connections + 1, n.Users + 1} // each is a user of its own
			if !slices.Contains(told[m.room], last) {
				told[m.room] = append(told[m.room], last)
			}
		}
	}
	return now, told
}

// Stay is from when to when somebody was connected, since the journal began.
type Stay struct {
	Room, User string
	From, To   time.Duration
}

// Stays are all that there were, by now. Each member is a user of its own.
func (c *Crowd) Stays() []Stay {
	c.mu.Lock()
	defer c.mu.Unlock()
	return slices.Clone(c.stays)
}

// Here tells who is connected now, by room, in order.
func (c *Crowd) Here() map[string][]string {
	here := map[string][]string{}
	for _, m := range c.members() {
		if connected, _ := m.state(); connected {
			here[m.room] = append(here[m.room], m.name)
		}
	}
	for _, names := range here {
		slices.Sort(names)
	}
	return here
}

// Behind tells how many viewers have not received what their room was sent last, and is
// the serial of last.
func (c *Crowd) Behind(last map[string]audit.Serial) (behind int) {
	for _, m := range c.viewers {
		if m.account.Last() != last[m.room] {
			behind++
		}
	}
	return behind
}

// member is one client in one room.
type member struct {
	crowd   *Crowd
	room    string
	name    string
	client  *client.Client
	account *audit.Viewer
	welcome chan struct{} // closed by the first one

	mu        sync.Mutex
	connected bool
	wasIn     bool
	since     time.Duration // of the welcome
	counts    Counts
	err       error // why it lost its connection last
}

// enter makes a client and starts it. Since is where it begins; whole says that it wants
// everything from there on.
func (c *Crowd) enter(room, name string, role protocol.Role, urls []string, since string, whole bool) (*member, error) {
	token, err := loadtest.Mint(c.cfg.Secret, room, name, name, role, time.Now())
	if err != nil {
		return nil, err
	}
	m := &member{crowd: c, room: room, name: name, welcome: make(chan struct{}), account: c.cfg.Journal.Viewer(room, name, whole)}
	m.client, err = client.New(client.Config{
		URLs: urls, Room: room, Token: client.StaticToken(token), Since: since,
		HTTPClient: &http.Client{Transport: c.http}, Buffers: &c.bufs, Compress: len(urls) > 1, // some of each
		Handler: client.Handler{
			Frame: m.frame, Welcome: m.welcomed, NotRecovered: m.notRecovered, Disconnected: m.disconnected,
		},
	})
	if err != nil {
		return nil, err
	}
	c.running.Go(func() { // ends with Leave
		_ = m.client.Run(c.life) // Disconnected has told why
		if c.life.Err() == nil {
			m.account.Ended()
		}
	})
	return m, nil
}

// addresses are where the n-th goes: two of three to what stands before the nodes, the
// others to the nodes, each in an order of its own.
func (c *Crowd) addresses(n int) []string {
	if n%3 != 0 || len(c.cfg.Nodes) == 0 {
		return []string{c.cfg.Front}
	}
	at := (n / 3) % len(c.cfg.Nodes)
	return slices.Concat(c.cfg.Nodes[at:], c.cfg.Nodes[:at])
}

// The handlers run on the client's goroutine, one at a time.

func (m *member) frame(raw []byte) {
	f := m.crowd.frames.read(raw)
	switch {
	case f.gap:
		m.account.Told()
	case f.counts != nil:
		m.mu.Lock()
		m.counts = *f.counts
		m.mu.Unlock()
	case f.back:
		m.account.Restored(f.items)
	default:
		m.account.Received(f.items)
	}
}

// A welcome is followed by word of a cursor that was not recovered, before any other
// message is taken in; so it is accounted for when it is known which it was.
func (m *member) welcomed(w *protocol.Welcome) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.connected { // it has moved
		m.stayed()
	}
	m.connected, m.since = true, m.crowd.cfg.Journal.Now()
	if !m.wasIn {
		m.wasIn = true
		close(m.welcome)
	}
	if m.client.Cursor() == "" || w.Recovered {
		m.account.Welcomed(true)
	}
}

func (m *member) notRecovered(string) { m.account.Welcomed(false) }

func (m *member) disconnected(err error, _ time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
	if m.connected {
		m.connected = false
		m.stayed()
		m.account.Lost(errors.Is(err, client.ErrMoved))
	}
}

// stayed notes that a stay is over. m.mu is held.
func (m *member) stayed() {
	c := m.crowd
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stays = append(c.stays, Stay{m.room, m.name, m.since, c.cfg.Journal.Now()})
}

func (m *member) state() (connected bool, counts Counts) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.connected, m.counts
}

func (m *member) lastError() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.err
}

// History has somebody come to each room at each node with a cursor of the room's
// beginning, and wait until it has received the last comment. They are accounted for like
// everybody else, but are owed the whole log. Cursors are what Cursors returned.
func (c *Crowd) History(ctx context.Context, cursors map[string]string, last map[string]audit.Serial) error {
	var readers []*member
	for n, node := range c.cfg.Nodes {
		for _, room := range c.cfg.Rooms {
			m, err := c.enter(room, fmt.Sprint("historian", n), protocol.RoleViewer, []string{node}, cursors[room], true)
			if err != nil {
				return err
			}
			readers = append(readers, m)
		}
	}
	for _, m := range readers {
		for m.account.Last() != last[m.room] {
			select {
			case <-time.After(20 * time.Millisecond):
			case <-ctx.Done():
				return fmt.Errorf("crowd: the history of %s did not come to an end: %s has up to %d of %d: %w",
					m.room, m.name, m.account.Last(), last[m.room], errors.Join(m.lastError(), ctx.Err()))
			}
		}
	}
	return nil
}

// Cursors is a cursor of each room, as somebody has it.
func (c *Crowd) Cursors() map[string]string {
	out := map[string]string{}
	for _, m := range c.viewers {
		if cursor := m.client.Cursor(); cursor != "" && out[m.room] == "" {
			out[m.room] = cursor
		}
	}
	return out
}

// serialOf is the number that a comment carries as its media_ms.
func serialOf(mediaMS *int64) audit.Serial {
	if mediaMS == nil {
		return 0
	}
	return audit.Serial(*mediaMS)
}

func ref(s audit.Serial) string { return "s" + strconv.FormatInt(int64(s), 10) }
