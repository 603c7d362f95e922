package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/redis/go-redis/v9"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/clientaddr"
	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/credentials"
	"github.com/kansei-live/kansei/internal/demo"
	"github.com/kansei-live/kansei/internal/descriptors"
	"github.com/kansei-live/kansei/internal/edge"
	"github.com/kansei-live/kansei/internal/embedded"
	"github.com/kansei-live/kansei/internal/health"
	"github.com/kansei-live/kansei/internal/lasting"
	"github.com/kansei-live/kansei/internal/moderation"
	"github.com/kansei-live/kansei/internal/natslog"
	"github.com/kansei-live/kansei/internal/private"
	"github.com/kansei-live/kansei/internal/quiet"
	"github.com/kansei-live/kansei/internal/redispresence"
	"github.com/kansei-live/kansei/internal/reload"
	"github.com/kansei-live/kansei/internal/socket"
	"github.com/kansei-live/kansei/internal/watchlog"
	"github.com/kansei-live/kansei/protocol"
	"github.com/kansei-live/kansei/web"
)

const (
	lobby         = web.DefaultRoom // the room of the first page
	demoSize      = 24              // viewers of the demo crowd
	demoStop      = "/demo/stop"
	headerTimeout = 5 * time.Second // of a request, and of the PROXY protocol before it
	tokenLife     = 12 * time.Hour  // of the tokens that an embedded node prints
)

// forwardedHeader is the header that each value of --forwarded-header means.
var forwardedHeader = map[string]clientaddr.Header{
	"x-forwarded-for": clientaddr.XForwardedFor, "forwarded": clientaddr.Forwarded, "none": clientaddr.NoHeader,
}

// node is one running node: the graph of its parts. It stops them in the reverse
// order of their start.
type node struct {
	cfg    config.Serve
	log    *slog.Logger
	quiet  *quiet.Logger        // of what clients cause
	url    string               // of the public listener
	public string               // where viewers reach it: that, or the first of --public-url
	ops    string               // of the operators'
	uses   descriptors.Uses     // what each part may have open
	spare  *descriptors.Reserve // for when nothing else can be opened
	nats   *credentials.NATS
	redis  *credentials.Redis
	edge   *edge.Server
	stops  []func(context.Context) error
	failed chan error    // a listener that ended by itself
	leave  chan struct{} // has something when an operator has asked the node to leave

	files       *reload.Set
	certificate *reload.Certificate // of the public listener; nil without
	secrets     *secrets

	mu    sync.Mutex
	crowd *demo.Crowd
}

// onStop adds what to do at the end; what was added last is done first.
func (n *node) onStop(what string, f func(context.Context) error) {
	n.stops = append(n.stops, func(ctx context.Context) error {
		if err := f(ctx); err != nil {
			return fmt.Errorf("stopping %s: %w", what, err)
		}
		return nil
	})
}

// stop stops everything that was started, within ctx as far as that goes.
func (n *node) stop(ctx context.Context) error {
	var errs []error
	for i := len(n.stops) - 1; i >= 0; i-- {
		errs = append(errs, n.stops[i](ctx))
	}
	n.stops = nil
	return errors.Join(errs...)
}

// start builds a node and starts it. It does not wait for NATS or Redis. When it
// fails nothing is left running.
func start(ctx context.Context, cfg config.Serve, log *slog.Logger) (*node, error) {
	n := &node{cfg: cfg, log: log, quiet: quiet.New(log), failed: make(chan error, 2), leave: make(chan struct{}, 1)}
	if err := n.start(ctx); err != nil {
		return nil, errors.Join(err, n.stop(context.WithoutCancel(ctx)))
	}
	return n, nil
}

func (n *node) start(ctx context.Context) error {
	reg := prometheus.NewRegistry()
	reg.MustRegister(goCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), buildInfo())

	if err := n.divideDescriptors(); err != nil {
		return err
	}
	if err := n.loadFiles(reg); err != nil {
		return err
	}
	keys := n.fetchKeys(reg) // before anybody shows a token
	// The listeners next: a port in use is the commonest mistake.
	public, err := listen("listen", n.cfg.Listen)
	if err != nil {
		return err
	}
	n.onStop("the public listener", func(context.Context) error { return ignoreClosed(public.Close()) })
	ops, err := listen("ops-listen", n.cfg.OpsListen)
	if err != nil {
		return err
	}
	n.onStop("the operators' listener", func(context.Context) error { return ignoreClosed(ops.Close()) })
	scheme := "http"
	var certificate *tls.Config
	if n.certificate != nil {
		scheme, certificate = "https", n.certificate.Config()
	}
	n.url, n.ops = scheme+"://"+reachable(public), "http://"+reachable(ops)
	n.public = n.url
	if all := n.cfg.PublicURLs(); len(all) > 0 {
		n.public = all[0]
	}

	roomLog, err := n.startLog(reg)
	if err != nil {
		return err
	}
	judge := health.NewLog(roomLog.Ready, roomLog.Well)
	presence, err := n.startPresence(reg, roomLog, judge.Tell)
	if err != nil {
		return err
	}
	staff := &edge.StaffNames{}
	desk := moderation.New(moderation.Config{
		Log: roomLog, Entries: roomLog, Keep: n.cfg.ModerationKeep, Put: func(ctx context.Context, name string, body []byte, life time.Duration) error {
			return roomLog.Table().PutFor(ctx, natslog.Entry{Name: name, Body: body}, life)
		},
		Changed: func(acts []hub.Act) { n.edge.ActedEverywhere(acts) }, Logger: n.log,
	})
	n.onStop("the acts", func(context.Context) error { desk.Close(); return nil })
	last := lasting.New(roomLog, n.log)
	n.onStop("lasting events", func(context.Context) error { last.Close(); return nil })
	rooms := hub.New(hub.Config{
		StaffSpoke: staff.Spoke, Alias: n.alias(),
		Finish: func(room string, s hub.Standing) {
			if hub.IsLasting(s.ID) {
				last.Finish(room, s)
			} else {
				desk.Finish(room, s)
			}
		},
		// The edge is there before the first room is opened.
		Acted:  func(room string, a *hub.Act) { n.edge.Acted(room, a) },
		Stated: func(room string, before, now protocol.State) { n.edge.Stated(room, before, now) },
		Opened: func(room string) { n.edge.Opened(room) }, Deleted: func(room string) { n.edge.Deleted(room) },
		Log: roomLog, Presence: presence,
		Window: n.cfg.Coalesce, RoomRate: n.cfg.RoomRate, Ring: n.cfg.Ring, Recent: orNone(n.cfg.Recent), RecoverMax: orNone(n.cfg.RecoverMax), ReadRooms: n.cfg.MaxReadRooms,
		Metrics: hub.NewMetrics(reg), Logger: n.log,
	})
	n.onStop("the rooms", func(context.Context) error { rooms.Close(); return nil })
	watch := watchlog.New(watchlog.Config{
		Now: roomLog.Now, Store: roomLog.TellWatch, Alias: func(room, user string) string { return roomLog.Origin(room, "user "+user) }, Mode: n.cfg.Watch, Beat: n.cfg.Beat,
		Metrics: watchlog.NewMetrics(reg), Logger: n.log,
	})
	n.onStop("the watch log", watch.Close) // behind the sockets, whose ends it is told
	sockets := socket.NewServer(socket.Config{
		Deflate: n.cfg.Compress, MaxMessage: n.cfg.LargestMessage(), MaxLong: protocol.MaxActBody, Metrics: socket.NewMetrics(reg), Logger: n.log,
	})
	n.onStop("the sockets", sockets.Close)

	for _, net := range n.cfg.Proxies() {
		if net.Bits() == 0 {
			n.log.Warn("everybody is a trusted proxy, and can say to be anybody: no address is limited", "flag", "--trusted-proxy="+net.String())
		}
	}
	addresses := clientaddr.New(clientaddr.Config{Trusted: n.cfg.Proxies(), Header: forwardedHeader[n.cfg.ForwardedHeader], Exempt: n.cfg.Exempt()})
	metrics := edge.NewMetrics(reg)
	kept, err := n.startArchive(ctx, reg, roomLog)
	if err != nil {
		return err
	}
	known := newAccess(roomLog.Table(), n.cfg.MaxTokenAge, n.log, func() { n.edge.Revoked() })
	weights := n.cfg.Weights()
	n.edge = edge.New(edge.Config{
		Pseudonyms: n.pseudonyms(), Staff: staff, AvatarHosts: lower(n.cfg.AvatarHost),
		Lasting: last, ViewerEvents: n.cfg.ViewerEvents, MaxLasting: n.cfg.MaxLasting,
		Desk: desk, Moderation: roomLog, MaxSweep: n.cfg.MaxSweep, Rooms: n.cfg.RoomNames(), AppealURL: n.cfg.AppealURL,
		Access: known, Sign: n.signs(), MaxTokenAge: n.cfg.MaxTokenAge,
		Hub: rooms, Log: roomLog, Roster: presence, Members: n.cfg.Members == config.MembersEveryone, Sockets: sockets, Tokens: n.secrets.tokens,
		Guests: n.cfg.GuestMode(), GuestIDs: n.secrets.guests, Origins: n.cfg.Origins(), Loopback: n.cfg.Embedded(),
		ViewerRate: edge.Rate{PerS: n.cfg.Rate, Burst: n.cfg.Burst},
		StaffRate:  edge.Rate{PerS: n.cfg.RateStaff, Burst: n.cfg.BurstStaff},
		ViewerText: n.cfg.MaxText, StaffText: n.cfg.MaxTextStaff, MaxMessage: n.cfg.LargestMessage(),
		MaxViewers: n.uses.Viewers, MaxRefused: n.uses.Refused, MaxPerUser: n.cfg.MaxPerUser, MaxPerAddress: n.cfg.MaxPerAddress,
		GuestRate:   edge.Rate{PerS: n.cfg.RateGuests, Burst: n.cfg.BurstGuests},
		AddressRate: edge.Rate{PerS: n.cfg.RateAddress, Burst: n.cfg.BurstAddress}, RoomLimit: n.cfg.RoomLimit,
		Weights:   edge.Weights{Guest: weights["guest"], User: weights["user"], Member: weights["member"]},
		Addresses: addresses,
		MaxEgress: n.cfg.MaxEgress, Sent: sockets.SentBytes, Beat: n.cfg.Beat, Watch: watch, WatchLog: watchReader{kept.Reader}, Reserve: n.spare,
		Metrics: metrics, Logger: n.log,
	})
	n.onStop("the edge", func(context.Context) error { n.edge.Close(); return nil })
	follow(roomLog.Table(), known, desk)
	n.keepRooms(roomLog)
	mux := http.NewServeMux()
	n.edge.Register(mux)
	if err := n.addPages(mux); err != nil {
		return err
	}
	if n.cfg.ProxyProtocol {
		public = clientaddr.Listen(public, n.cfg.Proxies(), headerTimeout, n.edge.ProxyRefused)
	}
	var pages http.Handler = mux
	if n.cfg.Embedded() && onLoopback(public) { // where every page in a browser here could reach it by a name of its own
		pages = edge.Hosts{Names: hostNames(n.cfg.Hosts(), n.cfg.Listen), Flag: "host", Log: n.quiet, Refused: metrics.RefusedHosts()}.Handler(mux)
	}
	shut := n.edge.Noticed()
	if n.cfg.Embedded() { // there is no other node: 503 with Retry-After tells more than silence
		shut = nil
	}
	n.serve("the public listener", public, n.door(edge.ListenerPublic, n.uses.HTTP, addresses, metrics), certificate, pages, shut)
	judge.Serves(n.edge.Ready)
	parts := []health.Part{
		{Name: "edge", Ready: n.edge.Ready},
		{Name: "nats", Ready: func() error {
			if err := judge.Ready(presence.Others()); err != nil {
				return err
			}
			return roomLog.Table().Ready() // a revoked token must not get in meanwhile
		}},
		{Name: "redis", Ready: presence.Ready},
	}
	parts = append(parts, keys...)
	names := make([]string, len(parts))
	for i, p := range parts {
		names[i] = p.Name
	}
	checker := health.Start(parts, health.NewMetrics(reg, names...), n.log)
	n.onStop("the checks", func(context.Context) error { checker.Close(); return nil })
	operators := n.edge.Ops(reg, parts, n.drain, kept.archiveOps())
	n.serve("the operators' listener", ops, n.door(edge.ListenerOps, n.uses.Operator, nil, metrics), nil,
		edge.Hosts{Names: hostNames(n.cfg.OpsHost, n.cfg.OpsListen), Flag: "ops-host", Log: n.quiet}.Handler(operators), nil)
	// Viewers are told to reconnect elsewhere before anything is stopped.
	n.onStop("the viewers", func(ctx context.Context) error {
		ctx, cancel := sparing(ctx, viewersReserve)
		defer cancel()
		return n.edge.Leave(ctx, n.cfg.Drain)
	})
	if n.cfg.Demo {
		n.crowd = demo.Start(ctx, demo.Config{URL: n.url, Room: lobby, Size: demoSize, Token: n.viewerToken, Logger: n.log})
		n.onStop("the demo", func(context.Context) error { n.stopDemo(); return nil })
	}
	return nil
}

// orNone is a number for a part that takes 0 for its default.
func orNone[T int | time.Duration](n T) T {
	if n == 0 {
		return -1
	}
	return n
}

// startLog connects to the room log, after starting the embedded NATS if there is
// to be one.
func (n *node) startLog(reg *prometheus.Registry) (*natslog.Log, error) {
	cfg := natslog.Config{
		Name: "kansei " + n.url, Prefix: n.cfg.Prefix, Domain: n.cfg.NATSDomain, Partitions: n.cfg.LogPartitions, Replicas: n.cfg.Replicas(),
		NeverCreate: n.cfg.LogCreate == "never", MaxAge: n.cfg.LogMaxAge, WatchAge: n.cfg.WatchKeep, AppendTimeout: n.cfg.AppendTimeout, LiveBuffer: n.cfg.LiveBuffer, DayKeys: n.cfg.AddressHashes,
		Metrics: natslog.NewMetrics(reg), Logger: n.log,
	}
	if n.cfg.NATS == "" {
		if err := private.Dir(n.cfg.DataDir); err != nil {
			return nil, fmt.Errorf("--data-dir: %w", err)
		}
		server, err := embedded.StartNATS(embedded.NATSConfig{
			StoreDir: filepath.Join(n.cfg.DataDir, "nats"), Logger: n.log,
			SyncInterval: time.Duration(n.cfg.LogSync), SyncAlways: n.cfg.LogSync.Always(),
		})
		if err != nil {
			return nil, fmt.Errorf("--data-dir: %w", err)
		}
		n.onStop("the embedded NATS", func(context.Context) error { return server.Close() })
		cfg.URLs = []string{"nats://embedded"} // a name for the log; nothing resolves it
		cfg.Options = []nats.Option{server.Option()}
	} else {
		cfg.URLs, cfg.Options, cfg.NKey = n.cfg.NATSServers(), n.nats.Options(), n.nats.NKey()
	}
	l, err := natslog.Open(cfg)
	if err != nil {
		return nil, err
	}
	n.onStop("the room log", l.Close)
	return l, nil
}

// startPresence does the same for Redis.
func (n *node) startPresence(reg *prometheus.Registry, roomLog *natslog.Log, tell func() (string, bool)) (*redispresence.Presence, error) {
	var client redis.UniversalClient
	if n.cfg.Redis == "" {
		server := embedded.StartRedis()
		n.onStop("the embedded Redis", func(context.Context) error { server.Close(); return nil })
		client = redispresence.Inside(server.Dial)
	} else {
		var err error
		if client, err = n.access().Connect(n.cfg.Redis); err != nil {
			return nil, err
		}
	}
	reads, err := n.replicas()
	if err != nil {
		return nil, err
	}
	n.onStop("the connection to Redis", func(context.Context) error { return client.Close() })
	var events func(ctx context.Context, room, id string, body []byte) error
	if n.cfg.PresenceEvents {
		events = roomLog.TellPresence
	}
	r := redispresence.New(redispresence.Config{
		Publish: events, LeaveWait: orNone(n.cfg.PresenceWait), LogBegan: roomLog.Began,
		FirstSeen: orNone(n.cfg.PresenceSeen), KeepSeen: n.cfg.PresenceKeep, DistinctExact: n.cfg.PresenceExact,
		Client: client, Reads: reads, Buckets: n.cfg.Buckets(), Lease: n.cfg.PresenceLease, Prefix: n.cfg.Prefix, Tell: tell,
		Pins:    pins(n.secrets.given.tokens, n.secrets.given.guests),
		Metrics: redispresence.NewMetrics(reg), Logger: n.log,
	})
	n.onStop("the presence", r.Close)
	n.secrets.onChange = func(tokens, guests [][]byte) { r.SetPins(pins(tokens, guests)...) }
	return r, nil
}

// replicas connects to those of Redis, if lists are to be read there; nil: they are not.
func (n *node) replicas() (redis.UniversalClient, error) {
	if !n.cfg.RedisReplicaReads || n.cfg.Redis == "" {
		return nil, nil
	}
	access := n.access()
	access.Replicas = true
	c, err := access.Connect(n.cfg.Redis)
	if err != nil {
		return nil, fmt.Errorf("--redis-replica-reads: %w", err)
	}
	n.onStop("the connection to replicas of Redis", func(context.Context) error { return c.Close() })
	return c, nil
}

// pins are the secrets that all nodes must have. Those that this node has made for itself are
// its own.
func pins(tokens, guests [][]byte) []redispresence.Pin {
	return []redispresence.Pin{redispresence.PinOf("--auth-secret", tokens...), redispresence.PinOf("--node-secret", guests...)}
}

// access is as whom the node connects to Redis.
func (n *node) access() redispresence.Access {
	return redispresence.Access{User: n.redis.User(), Sentinel: n.redis.Sentinel(), TLS: n.redis.TLS}
}

// addPages adds the pages to mux, and the button that stops the demo.
func (n *node) addPages(mux *http.ServeMux) error {
	pages := web.Config{AvatarHosts: lower(n.cfg.AvatarHost), Room: lobby, Guests: n.cfg.GuestMode(), Version: version()}
	if n.cfg.Demo {
		pages.Demo, pages.DemoStopPath = n.demoRunning, demoStop
		mux.Handle("POST "+demoStop, n.edge.SameOrigins(func(w http.ResponseWriter, _ *http.Request) {
			n.stopDemo()
			w.WriteHeader(http.StatusNoContent)
		}))
	}
	h, err := web.New(pages)
	if err != nil {
		return err
	}
	mux.Handle("/", h)
	return nil
}

// drain begins to send the viewers away, and then has the node stopped.
func (n *node) drain() (viewers int, left time.Duration) {
	viewers, left = n.edge.Drain(n.cfg.Drain)
	select {
	case n.leave <- struct{}{}:
	default: // it knows already
	}
	return viewers, left
}

// pseudonyms makes the ids that audiences see; nil: they see users' own.
func (n *node) pseudonyms() *auth.Pseudonyms {
	if !n.cfg.Pseudonyms {
		return nil
	}
	return &n.secrets.aliases
}

// alias is the same for the rooms.
func (n *node) alias() func(room, user string) string {
	if p := n.pseudonyms(); p != nil {
		return p.Of
	}
	return nil
}

// signs is how the node makes tokens; nil if it has no secret for that.
func (n *node) signs() func(auth.Claims, time.Duration) (string, error) {
	if n.secrets.signs.Load().Secret == nil {
		return nil
	}
	return n.secrets.sign
}

func (n *node) viewerToken(user, name string) (string, error) {
	return n.secrets.sign(auth.Claims{Subject: user, Name: name, Role: protocol.RoleViewer, Rooms: []string{lobby}}, tokenLife)
}

func (n *node) demoRunning() bool {
	n.mu.Lock()
	defer n.mu.Unlock()
	return n.crowd != nil && n.crowd.Running()
}

func (n *node) stopDemo() {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.crowd != nil {
		n.crowd.Stop()
	}
}

// lower returns names in lower case.
func lower(names []string) []string {
	out := make([]string, len(names))
	for i, n := range names {
		out[i] = strings.ToLower(n)
	}
	return out
}

// listen opens a listener and names the flag when it cannot.
func listen(flag, address string) (net.Listener, error) {
	l, err := net.Listen("tcp", address)
	if err != nil {
		return nil, fmt.Errorf("--%s %s: %w", flag, address, err)
	}
	return l, nil
}

// onLoopback reports whether this machine alone reaches a listener, whatever name it was
// given.
func onLoopback(l net.Listener) bool {
	addr, ok := l.Addr().(*net.TCPAddr)
	return ok && addr.IP.IsLoopback()
}

// hostNames are the host names that a listener answers to: the host that it was told to listen on is
// one of them.
func hostNames(configured []string, listen string) []string {
	return append(slices.Clone(configured), listen)
}

// reachable is where the machine itself reaches a listener.
func reachable(l net.Listener) string {
	addr := l.Addr().(*net.TCPAddr)
	if addr.IP.IsUnspecified() {
		return fmt.Sprintf("127.0.0.1:%d", addr.Port)
	}
	return addr.String()
}

func ignoreClosed(err error) error {
	if errors.Is(err, net.ErrClosed) {
		return nil
	}
	return err
}
