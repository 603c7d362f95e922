// Package edge is the public face of one node: HTTP and WebSocket entrances,
// admission, who somebody is and what they may do, and the operators' listener.
//
// A newcomer's request is decided by admission.go, from origins.go (whose page), identity.go
// (token, guest) and limits.go (how many, how often), before anything is upgraded. A viewer that
// is let in becomes a session (session.go) and is taken into its room by the hub; refuse.go
// tells the others. What a viewer sends comes to its session; a comment goes through publish.go,
// the one way into the room log, which POST uses too. registry.go holds what belongs to a user
// of a room, or to an address, rather than to a connection. expiry.go ends sessions with their
// tokens, renew.go takes fresh ones before that; drain.go empties a node, and lag.go keeps the counts true meanwhile.
//
// rest.go has the HTTP entrances, comments.go the one that reads comments, members.go those that
// list who is where, and ops.go those of the operators. In front of both listeners door.go bounds their connections, accept.go goes on
// when the machine is short of something, and hosts.go asks for their names.
//
// A browser cannot read why an upgrade was refused. So what concerns the viewer is accepted and
// then closed with a code; see [refusal].
package edge

import (
	"errors"
	"log/slog"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
	"unique"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/access"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/clientaddr"
	"github.com/kansei-live/kansei/internal/descriptors"
	"github.com/kansei-live/kansei/internal/health"
	"github.com/kansei-live/kansei/internal/lasting"
	"github.com/kansei-live/kansei/internal/moderation"
	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/internal/socket"
	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
)

// Rate is a token bucket: so many a second, so many at once.
type Rate struct {
	PerS  float64
	Burst int
}

// Config is what a [Server] is made of. All fields are needed but the last ones.
type Config struct {
	Hub     *hub.Hub
	Log     hub.RoomLog
	Roster  hub.Roster
	Sockets *socket.Server
	Tokens  *auth.Verifier
	Access  *access.Access // revocations and API keys
	// Sign makes a token that holds for a time, at most MaxTokenAge; nil: nobody can.
	Sign        func(c auth.Claims, life time.Duration) (string, error)
	MaxTokenAge time.Duration
	Desk        *moderation.Desk // carries out acts
	Moderation  hub.ModerationLog
	MaxSweep    int // comments that a sweep hides

	// Rooms says which rooms there are, beside those whose state was set: patterns of names, as of
	// path.Match. Empty: all.
	Rooms []string
	// Lasting publishes events that last. ViewerEvents are the names of events that viewers may publish,
	// and MaxLasting is how many names of a room may last.
	Lasting      *lasting.Keeper
	ViewerEvents []string
	MaxLasting   int
	AppealURL    string // where those who were acted on may object; empty: nowhere

	Guests   protocol.Guests
	GuestIDs *auth.Guests // has a secret, if Guests lets any in
	Origins  []string     // allowed beside the node's own host; "*" for any
	Loopback bool         // pages from this machine are allowed too

	Pseudonyms  *auth.Pseudonyms // of users, for the audience of a room; nil: they have their own ids
	Staff       *StaffNames      // told of who has spoken; nil: no name is compared
	AvatarHosts []string         // where pictures of users may be, in lower case; empty: nowhere

	Members bool // the audience may list who is in a room, whatever its state says

	ViewerRate, StaffRate Rate
	ViewerText, StaffText int // code points
	MaxMessage            int // bytes
	MaxViewers            int // on this node
	MaxRefused            int // WebSockets that wait for their end because they were refused; 0 for 1,000
	MaxPerUser            int // connections of a user in a room; 0: no limit
	MaxPerAddress         int // connections from an address; 0: no limit
	// GuestRate is for the comments of all guests of an address; PerS 0: no limit.
	GuestRate Rate
	// AddressRate is the same for the comments of all viewers of an address who are no guests.
	AddressRate Rate
	// RoomLimit is how many comments a second a room takes of its viewers, on all nodes together;
	// 0: no limit.
	RoomLimit int
	Weights   Weights
	Addresses *clientaddr.Resolver // nil: the addresses of the connections
	// MaxEgress is how many bytes a second the node may send before it takes nobody
	// in; 0: no limit. Sent returns how many bytes it has sent so far.
	MaxEgress int64
	Sent      func() uint64
	Beat      time.Duration
	Watch     *watchlog.Tracker // keeps who watches
	WatchLog  WatchReader       // tells of it
	// Reserve knows whether there are descriptors for newcomers; nil: there always are.
	Reserve *descriptors.Reserve

	Metrics *Metrics
	Logger  *slog.Logger
}

// Server is the public face of one node.
type Server struct {
	cfg     Config
	origins []origin // of the settings
	egress  *egress
	quiet   *quiet.Logger // of what clients cause
	tokens  *quiet.Logger // of tokens that are refused
	users   *registry[user]
	addrs   *registry[clientaddr.Group]
	lists   *lister
	shares  *portions
	rooms   *registry[unique.Handle[string]] // how much each is said in, through this node
	viewers atomic.Int64                     // accepted and not closed
	refused atomic.Int64                     // the same of those who are not let in: see refuse.go

	mu       sync.Mutex
	drain    *drain                // nil: the node is not leaving
	sessions map[*session]struct{} // let in and not closed
	expiry   expiry                // of those whose token ends

	looking chan struct{} // full while as many look through logs as may
	changes changes
	sweep   chan struct{} // holds one place: tokens were revoked
	noticed chan struct{} // see Noticed
	quit    chan struct{} // closed by Close
	running sync.WaitGroup
}

// New makes a Server.
func New(cfg Config) *Server {
	if cfg.Addresses == nil {
		cfg.Addresses = clientaddr.New(clientaddr.Config{})
	}
	if cfg.MaxRefused == 0 {
		cfg.MaxRefused = MaxRefused
	}
	cfg.Metrics.maxViewers.Set(float64(cfg.MaxViewers))
	cfg.Metrics.maxEgress.Set(float64(cfg.MaxEgress))
	s := &Server{
		cfg: cfg, origins: parseOrigins(cfg.Origins), egress: newEgress(cfg.MaxEgress, cfg.Sent), users: newUsers(), addrs: newAddresses(), lists: newLister(), rooms: newRegistry[unique.Handle[string]](maxIdle), shares: &portions{roster: cfg.Roster},
		quiet: quiet.New(cfg.Logger), tokens: quiet.Every(tokenLines, cfg.Logger), sessions: map[*session]struct{}{},
		looking: make(chan struct{}, looksAtOnce),
		changes: changes{wake: make(chan struct{}, 1)}, sweep: make(chan struct{}, 1), noticed: make(chan struct{}), quit: make(chan struct{}),
	}
	s.running.Go(func() { s.expiry.run(&s.mu, s.quit, (*session).ask, (*session).expire) }) // ends with quit; Close waits for it
	s.running.Go(s.sweepRevoked)
	s.running.Go(s.notify)
	s.running.Go(func() { s.shares.run(s.quit) })
	return s
}

// Register adds the public entrances to mux.
func (s *Server) Register(mux *http.ServeMux) {
	mux.HandleFunc("GET /v1/rooms/{room}/ws", s.serveWS)
	mux.HandleFunc("GET /v1/rooms/{room}", s.open(s.getRoom))
	mux.HandleFunc("PUT /v1/rooms/{room}", s.cors(s.putRoom))
	mux.HandleFunc("PATCH /v1/rooms/{room}", s.cors(s.patchRoom))
	mux.HandleFunc("DELETE /v1/rooms/{room}", s.cors(s.deleteRoom))
	mux.HandleFunc("POST /v1/rooms/{room}/acts", s.cors(s.postAct))
	mux.HandleFunc("GET /v1/rooms/{room}/moderation", s.cors(s.getModeration))
	mux.HandleFunc("GET /v1/rooms/{room}/watchlog", s.cors(s.getWatchLog))
	mux.HandleFunc("GET /v1/rooms/{room}/broadcasts", s.cors(s.getBroadcasts))
	mux.HandleFunc("POST /v1/rooms/{room}/sweeps", s.cors(s.postSweep))
	mux.HandleFunc("GET /v1/rooms/{room}/users/{user}", s.cors(s.getPerson))
	mux.HandleFunc("GET /v1/rooms/{room}/viewers", s.cors(s.getViewers))
	mux.HandleFunc("GET /v1/rooms", s.cors(s.getRooms))
	mux.HandleFunc("GET /v1/users/{user}/rooms", s.cors(s.getRoomsOf))
	mux.HandleFunc("GET /v1/rooms/{room}/comments", s.open(s.getComments))
	mux.HandleFunc("POST /v1/rooms/{room}/comments", s.cors(s.postComment))
	mux.HandleFunc("POST /v1/rooms/{room}/events", s.cors(s.postEvent))
	mux.HandleFunc("POST /v1/rooms/{room}/links", s.cors(s.postLink))
	mux.HandleFunc("GET /v1/revocations", s.cors(s.getRevocations))
	mux.HandleFunc("POST /v1/revocations", s.cors(s.postRevocation))
	mux.HandleFunc("OPTIONS /v1/", s.cors(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNoContent) }))
	mux.HandleFunc("/v1/", s.cors(func(w http.ResponseWriter, r *http.Request) {
		writeProblem(w, http.StatusNotFound, &protocol.Error{Code: protocol.CodeNoRoom, Message: "there is no " + quiet.Cut(r.Method, maxMethod) + " at this path"}, 0)
	}))
}

// maxMethod is how many bytes of a method are shown: more than any has.
const maxMethod = 20

// SameOrigins has h, which is no entrance of the API, take requests of the same pages as
// the API.
func (s *Server) SameOrigins(h http.HandlerFunc) http.Handler { return s.cors(h) }

// Ready says why this node should get no more viewers; nil when it should.
func (s *Server) Ready() error {
	if s.leaving() != nil {
		return health.Planned(errors.New("edge: this node is leaving"))
	}
	if n := s.viewers.Load(); n >= int64(s.cfg.MaxViewers) {
		return errors.New("edge: this node is full (--max-viewers)")
	}
	if s.cfg.Reserve.Empty() {
		return errStarved
	}
	if s.egress.full() {
		return errors.New("edge: this node sends as much as it may (--max-egress)")
	}
	return nil
}

// Close ends what New began.
func (s *Server) Close() {
	s.egress.close()
	close(s.quit)
	s.running.Wait()
	if d := s.leaving(); d != nil {
		d.end()
	}
}

// enroll lets a session in, unless the node is leaving.
func (s *Server) enroll(v *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.drain != nil {
		return false
	}
	s.sessions[v] = struct{}{}
	v.due = scheduleOf(&v.token, time.Now())
	s.expiry.add(v)
	s.cfg.Metrics.connections.Inc()
	return true
}

// dismiss undoes enroll and reports whether there was anything to undo.
func (s *Server) dismiss(v *session) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, in := s.sessions[v]; !in {
		return false
	}
	delete(s.sessions, v)
	s.expiry.remove(v)
	s.cfg.Metrics.connections.Dec()
	if s.drain != nil && len(s.sessions) == 0 {
		close(s.drain.gone) // once: a node that is leaving lets nobody in
	}
	return true
}
