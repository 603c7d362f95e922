package loadtest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/golang-jwt/jwt/v5"
	"go.uber.org/goleak"

	"github.com/kansei-live/kansei/protocol"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	testSecret = "a-secret-for-tests"
	round      = 20 * time.Millisecond // between two comments messages
	recentMax  = 50
)

// faults is how a cluster misbehaves; the zero value does not.
type faults struct {
	// batch may change what one connection is sent next; it is called under the
	// cluster's lock.
	batch func(p *fakePeer, items []protocol.Comment) []protocol.Comment
	// swallow acknowledges the n-th comment without keeping it.
	swallow func(n int) bool
	// store may change what is kept of the n-th comment.
	store func(n int, c protocol.Comment) []protocol.Comment
	// answer may answer the n-th comment request itself.
	answer func(p *fakePeer, n int, ref string) bool
	// upgrade may answer the n-th upgrade request.
	upgrade func(n int, w http.ResponseWriter) bool
	// welcomed is called on each viewer's connection behind the welcome; true ends it.
	welcomed   func(p *fakePeer) bool
	deaf       bool // beats are not answered
	amnesia    bool // cursors are never recovered
	limits     protocol.Limits
	lastWords  func(p *fakePeer, m *protocol.Comments) string // another message in its place
	noComments bool
}

// cluster is a room behind one or more nodes.
type cluster struct {
	t      *testing.T
	faults faults
	nodes  map[string]*fakeNode

	mu       sync.Mutex
	log      []protocol.Comment // the cursor "e-7" stands behind the seventh
	refs     map[string]string
	changed  chan struct{}
	upgrades int
	requests int
	sessions int
	viewers  map[string]int // connections so far by session
}

type fakeNode struct {
	c       *cluster
	conns   chan net.Conn
	dead    chan struct{}
	http    *http.Server
	serving sync.WaitGroup

	mu   sync.Mutex
	open map[net.Conn]bool
}

func newCluster(t *testing.T, f faults, hosts ...string) *cluster {
	c := &cluster{
		t: t, faults: f, nodes: make(map[string]*fakeNode), refs: make(map[string]string),
		changed: make(chan struct{}), viewers: make(map[string]int),
	}
	for _, h := range hosts {
		n := &fakeNode{c: c, conns: make(chan net.Conn), dead: make(chan struct{}), open: make(map[net.Conn]bool)}
		n.http = &http.Server{Handler: n}
		n.serving.Go(func() { _ = n.http.Serve(n) }) // ends with kill
		c.nodes[h+":80"] = n
	}
	return c
}

// dial is the network.
func (c *cluster) dial(ctx context.Context, _, address string) (net.Conn, error) {
	n := c.nodes[address]
	if n == nil {
		return nil, fmt.Errorf("no such host: %s", address)
	}
	near, far := net.Pipe()
	select {
	case n.conns <- far:
		return near, nil
	case <-n.dead:
		return nil, &net.OpError{Op: "dial", Net: "pipe", Err: errors.New("connection refused")}
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (n *fakeNode) Accept() (net.Conn, error) {
	select {
	case conn := <-n.conns:
		n.mu.Lock()
		defer n.mu.Unlock()
		n.open[conn] = true
		return conn, nil
	case <-n.dead:
		return nil, net.ErrClosed
	}
}
func (n *fakeNode) Close() error   { return nil }
func (n *fakeNode) Addr() net.Addr { return &net.TCPAddr{} }

// kill ends a node as SIGKILL does.
func (n *fakeNode) kill() {
	n.mu.Lock()
	select {
	case <-n.dead:
	default:
		close(n.dead)
	}
	for conn := range n.open {
		_ = conn.Close()
	}
	n.mu.Unlock()
	_ = n.http.Close()
	n.serving.Wait()
}

func (c *cluster) close() {
	for _, n := range c.nodes {
		n.kill()
	}
}

// fakePeer is one connection of a node.
type fakePeer struct {
	c      *cluster
	ws     *websocket.Conn
	ctx    context.Context
	viewer bool // and not a publisher
	user   string
	// Connections of this session before, and comments messages sent so far.
	earlier, batches int
	pos              int
	swapped          bool
}

func (n *fakeNode) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	c := n.c
	c.mu.Lock()
	c.upgrades++
	attempt := c.upgrades
	c.mu.Unlock()
	if c.faults.upgrade != nil && c.faults.upgrade(attempt, w) {
		return
	}
	n.serving.Add(1)
	defer n.serving.Done()
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{
		Subprotocols: []string{protocol.Subprotocol}, CompressionMode: websocket.CompressionNoContextTakeover,
		CompressionThreshold: 1,
	})
	if err != nil {
		return
	}
	defer func() { _ = ws.CloseNow() }()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	p := &fakePeer{c: c, ws: ws, ctx: ctx}
	you, ok := p.identify(r)
	if !ok {
		_ = ws.Close(websocket.StatusCode(protocol.CloseUnauthorized), "bad token")
		return
	}
	var writing sync.WaitGroup
	writing.Go(func() { // ends with ctx or the connection
		defer func() { _ = ws.CloseNow() }()
		p.write(you, r.URL.Query().Get("session"), r.URL.Query().Get("since"))
	})
	p.read(you)
	cancel()
	writing.Wait()
}

// identify reads the token.
func (p *fakePeer) identify(r *http.Request) (protocol.You, bool) {
	you := protocol.You{Role: protocol.RoleViewer, Can: []string{protocol.CanComment}}
	if p.c.faults.noComments {
		you.Can = nil
	}
	raw, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	if !ok {
		p.c.mu.Lock()
		defer p.c.mu.Unlock()
		you.ID = fmt.Sprintf("guest-%d", p.c.upgrades)
		p.viewer, p.user = true, you.ID
		return you, true
	}
	var claims struct {
		Name  string        `json:"name"`
		Role  protocol.Role `json:"role"`
		Rooms []string      `json:"rooms"`
		jwt.RegisteredClaims
	}
	_, err := jwt.ParseWithClaims(raw, &claims, func(*jwt.Token) (any, error) { return []byte(testSecret), nil },
		jwt.WithValidMethods([]string{"HS256"}), jwt.WithExpirationRequired())
	if err != nil || len(claims.Rooms) != 1 || !strings.HasSuffix(r.URL.Path, "/rooms/"+claims.Rooms[0]+"/ws") {
		return you, false
	}
	you.ID, you.Name, you.Role = claims.Subject, claims.Name, claims.Role
	p.viewer, p.user = claims.Role == protocol.RoleViewer, claims.Subject
	return you, true
}

func (p *fakePeer) send(m protocol.Message) bool { return p.raw(protocol.Encode(m)) }
func (p *fakePeer) raw(b []byte) bool {
	return p.ws.Write(p.ctx, websocket.MessageText, b) == nil
}
func (p *fakePeer) close(code protocol.CloseCode, reason string) {
	_ = p.ws.Close(websocket.StatusCode(code), reason) // as far as it gets
}

func cursor(pos int) string { return "e-" + strconv.Itoa(pos) }

// write sends the welcome and then what the log holds, in rounds.
func (p *fakePeer) write(you protocol.You, session, since string) {
	c := p.c
	c.mu.Lock()
	if session == "" {
		c.sessions++
		session = fmt.Sprintf("session-%010d", c.sessions)
	}
	p.earlier = c.viewers[session]
	c.viewers[session]++
	w := &protocol.Welcome{V: 1, Room: "r", Session: session, You: you, BeatMS: 5000, Limits: c.faults.limits}
	if w.Limits == (protocol.Limits{}) {
		w.Limits = protocol.Limits{Text: 200, PerS: 100, Burst: 200}
	}
	recent := max(len(c.log)-recentMax, 0)
	p.pos = recent
	if s, ok := strings.CutPrefix(since, "e-"); ok && !c.faults.amnesia {
		p.pos, _ = strconv.Atoi(s)
		w.Recovered = true
	}
	c.mu.Unlock()
	if !p.send(w) {
		return
	}
	if p.viewer && c.faults.welcomed != nil && c.faults.welcomed(p) {
		return
	}
	history := !w.Recovered
	for {
		c.mu.Lock()
		changed := c.changed
		items := c.log[p.pos:]
		p.pos = len(c.log)
		m := &protocol.Comments{Cursor: cursor(p.pos), History: history, Items: items}
		if p.viewer && len(items) > 0 {
			p.batches++
			if c.faults.batch != nil {
				m.Items = c.faults.batch(p, append([]protocol.Comment(nil), items...))
			}
		}
		c.mu.Unlock()
		raw := protocol.Encode(m)
		if c.faults.lastWords != nil && p.viewer && len(items) > 0 {
			if s := c.faults.lastWords(p, m); s != "" {
				raw = []byte(s)
			}
		}
		// An empty one gives viewers of an empty room a cursor.
		if (len(m.Items) > 0 || history) && !p.raw(raw) {
			return
		}
		history = false
		select {
		case <-changed:
			select {
			case <-time.After(round):
			case <-p.ctx.Done():
				return
			}
		case <-p.ctx.Done():
			return
		}
	}
}

// read takes requests to the end of the connection.
func (p *fakePeer) read(you protocol.You) {
	for {
		_, b, err := p.ws.Read(p.ctx)
		if err != nil {
			return
		}
		req, err := protocol.DecodeRequest(b)
		if err != nil {
			p.c.t.Errorf("request %s: %v", b, err)
			return
		}
		switch req := req.(type) {
		case *protocol.BeatRequest:
			if !p.c.faults.deaf {
				p.send(&protocol.Beat{Now: time.Now().UnixMilli()})
			}
		case *protocol.CommentRequest:
			p.comment(you, req)
		}
	}
}

func (p *fakePeer) comment(you protocol.You, req *protocol.CommentRequest) {
	c := p.c
	c.mu.Lock()
	key := you.ID + "/" + req.Ref
	id, known := c.refs[key]
	n := 0
	if !known {
		c.requests++
		n = c.requests
	}
	c.mu.Unlock()
	if !known && c.faults.answer != nil && c.faults.answer(p, n, req.Ref) {
		return
	}
	if limit := 200; len([]rune(req.Text)) > limit {
		p.send(&protocol.Error{Ref: req.Ref, Code: protocol.CodeTooLong, Message: "too long"})
		return
	}
	if !known {
		id = c.append(n, key, protocol.Comment{
			User: protocol.User{ID: you.ID, Name: you.Name, Role: you.Role}, Text: req.Text, MediaMS: req.MediaMS, Style: req.Style,
		})
	}
	p.send(&protocol.OK{Ref: req.Ref, ID: id})
}

// append keeps a comment and returns its id.
func (c *cluster) append(n int, key string, m protocol.Comment) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	m.ID, m.At = "c"+strconv.Itoa(n), time.Now().UnixMilli()
	c.refs[key] = m.ID
	if c.faults.swallow != nil && c.faults.swallow(n) {
		return m.ID
	}
	kept := []protocol.Comment{m}
	if c.faults.store != nil {
		kept = c.faults.store(n, m)
	}
	c.log = append(c.log, kept...)
	close(c.changed)
	c.changed = make(chan struct{})
	return m.ID
}

// stored is how many comments the log holds.
func (c *cluster) stored() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.log)
}

// decodeReport reads what --json printed.
func decodeReport(t *testing.T, s string) *Report {
	t.Helper()
	var r Report
	d := json.NewDecoder(strings.NewReader(s))
	d.DisallowUnknownFields()
	if err := d.Decode(&r); err != nil {
		t.Fatalf("not one JSON document: %v\n%s", err, s)
	}
	if d.More() {
		t.Fatalf("more than one JSON document:\n%s", s)
	}
	return &r
}
