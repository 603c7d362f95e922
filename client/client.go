package client

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Config says where a Client goes and how it behaves. The zero value of a field
// without a comment of its own is that of [Options].
type Config struct {
	// URLs are the addresses of nodes, as in [Options.URL]. The client begins with the
	// first, and goes on to the next after each loss, after each attempt that failed, and
	// when its node is leaving. Clients that are given the same order are all at one node.
	URLs []string
	Room string
	// Token is asked for the JWT to come with: before the first connection, for a fresh one
	// before that ends, which goes over the open connection, and whenever the server says that
	// the last one is not valid any more; nil: the client comes as a guest. It is called by one
	// goroutine at a time. See [StaticToken].
	Token func(ctx context.Context) (string, error)
	// Since and Session are a cursor and a session that an earlier client left, to
	// go on from there.
	Since, Session string
	Uncounted      bool
	// Watching tells whether the room can be seen, and the position of the programme, for the watch log: when the client
	// comes, with every beat, and when [Client.Beat] is called. nil: nothing is told. It is called by any goroutine.
	Watching   func() protocol.BeatRequest
	Compress   bool
	HTTPClient *http.Client
	Header     http.Header
	ReadLimit  int64
	Buffers    *Buffers

	// ConnectTimeout bounds an attempt, from asking for the token to the welcome; 0: 10 s.
	ConnectTimeout time.Duration
	// BackoffBase and BackoffMax bound the time between attempts: each waits a
	// random time between 0 and BackoffBase (0: 1 s), which is doubled each time that
	// all addresses have failed, up to BackoffMax (0: 30 s). A time that the server told
	// is waited in addition; an HTTP refusal's Retry-After, by the address that told it.
	BackoffBase, BackoffMax time.Duration

	Handler Handler
}

// Handler is told what happens. Run makes the calls, one at a time; they may use
// the Client but must not wait for [Client.Comment], whose answer comes the same
// way, nor take longer than a server waits for a beat. Any of them may be nil; what
// they are given is theirs to keep, besides raw.
type Handler struct {
	// Frame sees every message first, as it came, before it is decoded. raw is valid
	// until Frame returns. A message that no other callback wants is never decoded.
	Frame func(raw []byte)

	// Welcome begins each connection. When a node that is leaving has sent the client to
	// another, the connection before has ended just then, with [ErrMoved]: messages go
	// on where they stopped.
	Welcome func(*protocol.Welcome)
	// NotRecovered follows a Welcome that could not go on from the cursor since:
	// comments after it may be missing, and the recent ones that come next may have
	// been seen already.
	NotRecovered func(since string)
	// Disconnected ends each connection, and each attempt at one, with the reason.
	// The next attempt is made after wait, or sooner if [Client.Wake] is called; when
	// there is none, Run ends with err.
	Disconnected func(err error, wait time.Duration)

	Comments func(*protocol.Comments)
	Viewers  func(*protocol.Viewers)
	State    func(*protocol.State)
	// Gap tells of comments that this client was not sent.
	Gap func(*protocol.Gap)
	// Removed tells of comments to take off the screen and out of lists, Restored of those that are
	// back, for lists.
	Removed  func(*protocol.Removed)
	Restored func(*protocol.Restored)
	// Event tells of an event of the application. One without a cursor was published before this
	// connection came, lasts, and holds now.
	Event func(*protocol.Event)
	// Moderation tells the staff of an act that was done or undone.
	Moderation func(*protocol.Moderation)
	// You is told that what the user is, may do, or is limited to has changed.
	You func(*protocol.YouNow)
	// Error is told of a refusal that answers no comment being waited for.
	Error func(*protocol.Error)
}

// Times of the contract, and bounds for what it leaves open.
const (
	beatAnswer     = 10 * time.Second // for a beat; then the server is given up
	connectTimeout = 10 * time.Second
	sendTimeout    = 10 * time.Second // for a server that does not read
	minBeat        = time.Second      // whatever beat_ms says
	// A connection that lasted this long ends the row of failures.
	steady = 10 * time.Second
)

// Client is a place in a room that outlives connections. Its methods may be
// called from any goroutine.
type Client struct {
	cfg Config

	// Owned by the goroutine of Run, and by a link's mover while it has the turn.
	addresses
	failures  int    // in a row
	token     string // the one to come with
	haveToken bool
	refused   string // the last token that the server did not take
	refusal   error  // and what it said
	refusals  int    // in a row

	running  context.Context // of Run; set before anything is read
	renewing sync.WaitGroup  // of fetches of fresh tokens
	fetching chan struct{}   // holds one place, for who calls Token

	woken chan struct{} // holds one place: Wake was called, and there is no connection

	mu         sync.Mutex
	started    bool
	cursor     [protocol.MaxCursor]byte // of the last message handled
	ncursor    int
	session    string
	link       *link         // the welcomed connection, if there is one
	changed    chan struct{} // closed when link or end changes
	end        error         // why Run ended; nil while it runs
	pending    map[string]chan protocol.Message
	attemptAt  time.Time // when the last attempt to connect began
	abandon    func()    // ends it, while it is under way
	fresh      string    // a token that was fetched while there was a connection
	awakeUntil time.Time // set by Wake: a loss before finds the device just woken
}

// StaticToken is a token source that knows one token.
func StaticToken(token string) func(context.Context) (string, error) {
	return func(context.Context) (string, error) { return token, nil }
}

// New makes a client, which does nothing until Run.
func New(cfg Config) (*Client, error) {
	if len(cfg.URLs) == 0 {
		return nil, errors.New("client: no address to connect to")
	}
	for _, u := range cfg.URLs {
		if _, err := (&Options{URL: u, Room: cfg.Room}).target(); err != nil {
			return nil, err
		}
	}
	if cfg.Since != "" && !protocol.ValidCursor(cfg.Since) {
		return nil, fmt.Errorf("client: %q is not a cursor", cfg.Since)
	}
	if cfg.Session != "" && !protocol.ValidSession(cfg.Session) {
		return nil, fmt.Errorf("client: %q is not a session", cfg.Session)
	}
	if cfg.ConnectTimeout <= 0 {
		cfg.ConnectTimeout = connectTimeout
	}
	if cfg.BackoffBase <= 0 {
		cfg.BackoffBase = time.Second
	}
	if cfg.BackoffMax <= 0 {
		cfg.BackoffMax = 30 * time.Second
	}
	if cfg.Buffers == nil {
		cfg.Buffers = new(Buffers)
	}
	c := &Client{
		cfg:       cfg,
		addresses: newAddresses(len(cfg.URLs)),
		woken:     make(chan struct{}, 1),
		fetching:  make(chan struct{}, 1),
		session:   cfg.Session,
		changed:   make(chan struct{}),
		pending:   make(map[string]chan protocol.Message),
	}
	c.ncursor = copy(c.cursor[:], cfg.Since)
	return c, nil
}

// Cursor is where to go on after the messages that the callbacks have returned
// from; empty when no message carried one yet.
func (c *Client) Cursor() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return string(c.cursor[:c.ncursor])
}

// Session is the session of the last welcome.
func (c *Client) Session() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.session
}

// Run keeps the client in its room until ctx ends, whose error it then returns,
// or until there is no use in coming back: the error is then the *[CloseError],
// the *[RefusedError], [ErrSubprotocol] or [ErrStaleToken] that ended it. What an address
// refuses for good ends it when all addresses have. It may be called once.
func (c *Client) Run(ctx context.Context) error {
	c.mu.Lock()
	again := c.started
	c.started = true
	c.mu.Unlock()
	if again {
		return errors.New("client: Run was called twice")
	}
	err := c.run(ctx)
	c.mu.Lock()
	c.end = err
	close(c.changed)
	c.mu.Unlock()
	return err
}

func (c *Client) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer c.renewing.Wait()
	defer cancel()
	c.running = ctx
	for {
		l, end := c.connect(ctx)
		for l != nil {
			end = c.serve(ctx, l)
			// Found while that one was there, or just when it ended.
			if l = l.next; l != nil && c.cfg.Handler.Disconnected != nil {
				c.cfg.Handler.Disconnected(ErrMoved, 0)
			}
		}
		if ctx.Err() != nil {
			if c.cfg.Handler.Disconnected != nil {
				c.cfg.Handler.Disconnected(ctx.Err(), 0)
			}
			return ctx.Err()
		}
		p, again := c.next(end)
		if c.cfg.Handler.Disconnected != nil {
			c.cfg.Handler.Disconnected(end.err, p.wait)
		}
		if !again {
			return end.err
		}
		if err := c.rest(ctx, p); err != nil {
			return err
		}
	}
}

// ending is how a connection, or an attempt at one, ended.
type ending struct {
	err  error
	told time.Duration // what the server asked to wait
}

// connect makes a connection, or says why there is none.
func (c *Client) connect(ctx context.Context) (*link, ending) {
	c.addresses.next() // next has waited until there is an address to ask
	began := time.Now()
	attempt, abandon := context.WithCancelCause(ctx)
	defer abandon(nil)
	attempt, cancel := context.WithTimeout(attempt, c.cfg.ConnectTimeout)
	defer cancel()
	c.attempting(began, func() { abandon(errWoken) })
	since := c.Cursor()
	conn, err := c.dial(attempt, since)
	if err != nil {
		c.attempting(began, nil)
		if errors.Is(context.Cause(attempt), errWoken) {
			err = errWoken
		}
		return nil, ending{err: err}
	}
	l := newLink(ctx, conn, c.cfg.ConnectTimeout-time.Since(began), since, c.watching)
	c.attempting(began, func() { l.giveUp(errWoken) })
	return l, ending{}
}

// dial opens a connection to the address whose turn it is, with a token if there is a
// source of them.
func (c *Client) dial(ctx context.Context, since string) (*Conn, error) {
	if fresh := c.takeFresh(); fresh != "" {
		c.token, c.haveToken = fresh, true
	}
	if c.cfg.Token != nil && !c.haveToken {
		token, err := c.fetch(ctx)
		if err != nil {
			return nil, err
		}
		if token == c.refused && c.refusal != nil {
			return nil, fmt.Errorf("%w: %w", ErrStaleToken, c.refusal)
		}
		c.token, c.haveToken = token, true
	}
	return Dial(ctx, Options{
		URL: c.cfg.URLs[c.current], Room: c.cfg.Room, Token: c.token, Since: since, Session: c.Session(),
		Uncounted: c.cfg.Uncounted, Watching: c.watching(), Compress: c.cfg.Compress, HTTPClient: c.cfg.HTTPClient, Header: c.cfg.Header,
		ReadLimit: c.cfg.ReadLimit, Buffers: c.cfg.Buffers,
	})
}

// serve reads a connection to its end. If there is another to go on with then, that is
// its next.
func (c *Client) serve(ctx context.Context, l *link) ending {
	l.mover = func() { c.move(ctx, l) }
	stop := context.AfterFunc(ctx, func() { l.leave(ctx.Err()) })
	defer func() { // after close: nobody else looks at it then
		if l.lasted() >= steady {
			c.failures = 0
		}
	}()
	defer l.close() // after stop: it waits for a leave that has begun
	defer stop()
	defer c.setLink(nil)
	if l.first != nil {
		if err := c.handle(l, l.first); err != nil {
			return l.ended(err)
		}
	}
	for {
		// The link ends the read by closing the connection: a context that can end
		// would cost a registration for every message.
		raw, err := l.conn.ReadRaw(context.WithoutCancel(ctx))
		l.turn <- struct{}{}
		if err == nil && l.next == nil { // what comes when there is another comes there too
			err = c.handle(l, raw)
		}
		<-l.turn
		if err != nil {
			return l.ended(err)
		}
	}
}

// handle takes one message in.
func (c *Client) handle(l *link, raw []byte) error {
	if c.cfg.Handler.Frame != nil {
		c.cfg.Handler.Frame(raw)
	}
	typ, cursor, err := readHead(raw)
	if err != nil {
		return err
	}
	h := &c.cfg.Handler
	switch string(typ) {
	case protocol.TypeWelcome:
		err = c.welcome(l, raw)
	case protocol.TypeBeat:
		l.beatAnswered()
	case protocol.TypeOK:
		err = tell(raw, func(m *protocol.OK) { c.answer(m.Ref, m) })
	case protocol.TypeError:
		err = tell(raw, func(m *protocol.Error) {
			if !c.answer(m.Ref, m) && h.Error != nil {
				h.Error(m)
			}
		})
	case protocol.TypeRenew:
		c.renewal(l)
	case protocol.TypeYou:
		err = tell(raw, func(m *protocol.YouNow) {
			l.limit(m.Limits)
			if h.You != nil {
				h.You(m)
			}
		})
	case protocol.TypeReconnect:
		err = tell(raw, func(m *protocol.Reconnect) { c.leave(l.moveAfter(m.AfterMS)) })
	case protocol.TypeComments:
		err = tell(raw, h.Comments)
	case protocol.TypeViewers:
		err = tell(raw, h.Viewers)
	case protocol.TypeState:
		err = tell(raw, h.State)
	case protocol.TypeGap:
		err = tell(raw, h.Gap)
	case protocol.TypeRemoved:
		err = tell(raw, h.Removed)
	case protocol.TypeRestored:
		err = tell(raw, h.Restored)
	case protocol.TypeEvent:
		err = tell(raw, h.Event)
	case protocol.TypeModeration:
		err = tell(raw, h.Moderation)
	}
	if err == nil && cursor != nil {
		c.mu.Lock()
		c.ncursor = copy(c.cursor[:], cursor)
		c.mu.Unlock()
	}
	return err
}

// tell decodes a message for f, if there is one.
func tell[M protocol.Message](raw []byte, f func(M)) error {
	if f == nil {
		return nil
	}
	m, err := decode[M](raw)
	if err != nil {
		return err
	}
	f(m)
	return nil
}

func (c *Client) welcome(l *link, raw []byte) error {
	w, err := decode[*protocol.Welcome](raw)
	if err != nil {
		return err
	}
	if !l.welcome(w) {
		return fmt.Errorf("%w: a second welcome", ErrMessage)
	}
	c.arrive()
	c.refusals = 0
	if c.cfg.Handler.Welcome != nil {
		c.cfg.Handler.Welcome(w)
	}
	if l.since != "" && !w.Recovered && c.cfg.Handler.NotRecovered != nil {
		c.cfg.Handler.NotRecovered(l.since)
	}
	c.setLink(l)
	return nil
}

// setLink tells waiting senders that there is a connection, or none.
func (c *Client) setLink(l *link) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.abandon = nil
	if l == nil && c.link == nil {
		return
	}
	c.link = l
	if l != nil && protocol.ValidSession(l.session) {
		c.session = l.session
	}
	close(c.changed)
	c.changed = make(chan struct{})
}
