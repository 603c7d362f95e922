// Package config reads the settings of kansei's commands: from flags, environment
// variables and a YAML file, in this order of precedence, before the defaults.
//
// A setting has one name in all three. The flag --max-text is the variable
// KANSEI_MAX_TEXT and the key max-text. Names that nobody knows are refused with the
// nearest known one, and a bad value is refused with its name, where it came from and
// what is allowed: a node that starts with half of its settings is worse than one that
// does not start.
//
// [Serve] holds the settings of a node, [Auth], [File] and [Log] those that several
// commands share, for a command's struct to embed. [NewParser] makes the parser, on
// kong: parser.go is its frame, sources.go the environment and the file, names.go what
// is known and what is near, settings.go the rules between values, markdown.go the page
// for people. kong's own reading of variables is not used: it knows no precedence
// below itself, and quotes values, secrets too, in its errors.
//
// A variable that is set but empty counts as not set, as templates of deployments leave
// them behind.
package config

import (
	"encoding"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kansei-live/kansei/protocol"
)

// Serve is the settings of kansei serve. [Serve.Validate] must have passed. A tag list:","
// is for text that holds several values with commas between them; in the file they may be a
// list.
type Serve struct {
	Listen    string   `group:"network" default:"127.0.0.1:8080" help:"Address of the public listener, host:port."`
	OpsListen string   `group:"network" default:"127.0.0.1:8081" help:"Address of the operators' listener (metrics, health, profiles), host:port."`
	TLSCert   string   `group:"network" name:"tls-cert" placeholder:"FILE" help:"Certificate of the public listener, PEM, read again when it changes; with --tls-key."`
	TLSKey    string   `group:"network" name:"tls-key" placeholder:"FILE" help:"Private key of the public listener, PEM, read again when it changes; with --tls-cert."`
	Origin    []string `group:"network" placeholder:"ORIGIN" help:"Origins of pages that may connect beside the node's own, and this machine's when embedded; * for any."`
	PublicURL []string `group:"network" name:"public-url" placeholder:"URL" help:"Addresses at which viewers reach this node, such as https://live.example.com or https://example.com/live/: pages from there are its own, and links that it prints begin with the first."`
	Host      []string `group:"network" placeholder:"NAME" help:"Names that the public listener answers to beside localhost and addresses, while all is embedded and it listens on loopback; * for any."`
	OpsHost   []string `group:"network" placeholder:"NAME" help:"Names that the operators' listener answers to beside localhost and addresses; * for any."`

	TrustedProxy    []string `group:"network" placeholder:"NET" help:"Addresses or networks of proxies that are believed when they tell the addresses of their clients."`
	ForwardedHeader string   `group:"network" default:"x-forwarded-for" help:"Header in which trusted proxies tell them: x-forwarded-for, forwarded or none."`
	ProxyProtocol   bool     `group:"network" help:"Trusted proxies begin each connection with the PROXY protocol, version 1 or 2."`

	NATS  string `group:"engine" name:"nats" list:"," placeholder:"URL,..." help:"Servers of the NATS cluster; empty for one inside this process."`
	Redis string `group:"engine" name:"redis" list:"," placeholder:"URL,..." help:"Redis, its sentinels or its cluster; empty for one inside this process."`
	File
	NATSAccess
	RedisAccess
	Prefix string `group:"engine" default:"kansei" help:"What all names on NATS and in Redis begin with, in capitals those of streams: [a-z0-9_-], up to 32; the same on all nodes, for good."`
	Auth
	Guests     string `group:"access" placeholder:"MODE" help:"What viewers without a token may do: none, watch or comment (embedded: comment, otherwise none)."`
	NodeSecret Secret `group:"access" list:"," placeholder:"SECRET" help:"Secret that the ids of guests are made with, at least 32 bytes, the same on all nodes, better as a variable; two with a comma between them while one replaces the other (without --nats: made once, in --data-dir)."`
	// NodeSecretFile holds what NodeSecret does, one secret a line.
	NodeSecretFile string   `group:"access" placeholder:"FILE" help:"File with the secret that the ids of guests are made with, in the place of --node-secret, read again when it changes; two, one a line, while one replaces the other."`
	Pseudonyms     bool     `group:"access" help:"Show the audience of a room users under ids that are others in each room, made with --node-secret; the staff and back ends see their own."`
	AvatarHost     []string `group:"access" placeholder:"HOST" help:"Hosts, with a port if it is not 443, that pictures of users may be on, by the claim avatar of their tokens; none are shown without."`
	Rooms          []string `group:"access" default:"any" placeholder:"any|created|PATTERN" help:"Which rooms there are: any that somebody names, those alone whose state was set (created), or names that match a pattern such as lesson-* as well."`
	ViewerEvents   []string `group:"access" placeholder:"NAME" help:"Names of events of the application that viewers may publish; the staff and back ends may publish all."`
	AppealURL      string   `group:"access" placeholder:"URL" help:"Where those who were muted, banned or warned may object; they are told it."`
	Demo           bool     `group:"access" help:"Play a generated crowd in the room of the first page."`

	LogPartitions  int           `group:"log" default:"1" help:"Streams that rooms are spread over, 1 to 256; the same on all nodes, for good."`
	LogReplicas    int           `group:"log" default:"0" help:"Copies of every stream, 1 to 5; 0 for 3 with --nats, 1 without."`
	LogCreate      string        `group:"log" default:"auto" help:"Whether this node creates streams that are not there: auto, or never, to wait for them while they are restored."`
	LogMaxAge      time.Duration `group:"log" default:"168h" help:"How long comments are kept, at least 1m."`
	LogSync        LogSync       `group:"log" default:"1s" help:"How often the embedded log is synced to disk, 10ms to 1h, or always: before each ok."`
	ModerationKeep time.Duration `group:"log" default:"4320h" help:"How long the log of moderation is kept, 1h to 87600h; 0 for good."`
	AppendTimeout  time.Duration `group:"log" default:"12s" help:"How long a comment may wait for the log, 100ms to 1m."`
	LiveBuffer     int           `group:"log" default:"8192" help:"Messages of one stream on their way to their rooms, 16 to 1048576; what is beyond is dropped and read back."`

	MaxText      int     `group:"comments" default:"200" help:"Longest comment of a viewer, in code points, up to 7500."`
	MaxTextStaff int     `group:"comments" default:"1000" help:"Longest comment of the staff, in code points, up to 7500."`
	Rate         float64 `group:"comments" default:"1" help:"Comments a second that a viewer may send, sustained."`
	Burst        int     `group:"comments" default:"5" help:"Comments that a viewer may send at once."`
	RateStaff    float64 `group:"comments" default:"100" help:"Comments a second that the staff and back ends may send, sustained."`
	BurstStaff   int     `group:"comments" default:"200" help:"Comments that the staff and back ends may send at once."`
	RateGuests   float64 `group:"comments" default:"50" help:"Comments a second that all guests of one address may send to this node, sustained; 0 for no limit."`
	BurstGuests  int     `group:"comments" default:"200" help:"Comments that all guests of one address may send at once."`
	RateAddress  float64 `group:"comments" default:"200" help:"Comments a second that all viewers of one address who are no guests may send to this node, sustained; 0 for no limit."`
	BurstAddress int     `group:"comments" default:"1000" help:"Comments that all viewers of one address who are no guests may send at once."`
	MaxSweep     int     `group:"comments" default:"2000" help:"Comments that one sweep hides, 1 to 5000."`
	MaxLasting   int     `group:"comments" default:"64" help:"Names of lasting events that a room may have, 0 to 100."`
	RoomLimit    int     `group:"comments" default:"2000" help:"Comments a second that a room takes of its viewers, on all nodes together; 0 for no limit."`
	MaxMessage   int     `group:"comments" default:"8192" help:"Largest message that a viewer may send, in bytes; more where the longest comment with its data, or an event, has more."`

	MaxViewers   int           `group:"viewers" default:"50000" help:"Viewers that this node takes."`
	MaxHTTP      int           `group:"viewers" name:"max-http" default:"0" help:"Connections of the public listener that are no viewers' (handshakes, requests, idle ones), at most; 0 for a fifth of --max-viewers, 1000 at least."`
	MaxReadRooms int           `group:"viewers" default:"1000" help:"Rooms without viewers that this node keeps open for those who read or post over HTTP."`
	MaxEgress    int64         `group:"viewers" default:"0" help:"Bytes a second that this node may send to viewers; at nine tenths of it no more are taken; 0 for no limit."`
	Recent       int           `group:"viewers" default:"50" help:"Recent comments that a viewer gets on joining, 0 to 1000."`
	RecoverMax   int           `group:"viewers" default:"10000" help:"Missed comments that a viewer gets on coming back, at most."`
	Beat         time.Duration `group:"viewers" default:"30s" help:"How often viewers show that they are there, 1s to 1m."`
	Drain        time.Duration `group:"viewers" default:"20s" help:"Time over which viewers are sent away when the node stops, up to 10m."`

	MaxPerUser    int      `group:"viewers" default:"32" help:"Connections of one user in one room on this node."`
	MaxPerAddress int      `group:"viewers" default:"4000" help:"Connections from one address on this node, an IPv6 /64 being one; 0 for no limit."`
	ExemptNetwork []string `group:"viewers" placeholder:"NET" help:"Addresses or networks that the limits of addresses leave out, such as those of a school."`

	AddressHashes bool          `group:"comments" default:"true" negatable:"" help:"Store with each comment a hash of its sender's address, under a key that is gone after two days, so that the staff can find what comes from the same one."`
	SampleWeights []string      `group:"delivery" placeholder:"WHO=N" help:"How much guests, users and members, those with the claim members, weigh in the sample of a room that has more than --room-rate: guest=N, user=N, member=N, 1 to 100."`
	RoomRate      int           `group:"delivery" default:"500" help:"Comments a second that viewers of one room are shown when it has more, beside the staff's and their own; 0 for all."`
	Coalesce      time.Duration `group:"delivery" default:"90ms" help:"How long comments of a busy room are gathered into one frame, from 1ms to 5s."`
	Ring          int           `group:"delivery" default:"256" help:"Frames that a slow viewer may lag behind, 16 to 65536."`
	Compress      bool          `group:"delivery" default:"true" negatable:"" help:"Deflate for viewers who take it."`

	PresenceBuckets int           `group:"presence" default:"0" help:"Buckets of rooms in Redis, up to 1024; 0 for 64 with --redis, 1 without; the same on all nodes."`
	PresenceLease   time.Duration `group:"presence" default:"6s" help:"Silence after which the viewers of a node no longer count, 3s to 1m."`
	PresenceEvents  bool          `group:"presence" default:"true" negatable:"" help:"Tell back ends on NATS who joins and leaves."`
	PresenceWait    time.Duration `group:"presence" name:"presence-leave-wait" default:"10s" help:"How long a user has been away when back ends are told, up to 10m."`
	PresenceSeen    int           `group:"presence" name:"presence-first-seen" default:"100000" help:"Users of a room of whom it is kept when they were first seen there, up to 10000000; 0 for none."`
	PresenceKeep    time.Duration `group:"presence" name:"presence-keep" default:"720h" help:"How long that, and who was there in a broadcast, is kept of a room that nobody comes to, 1h to 8760h."`
	PresenceExact   int           `group:"presence" name:"presence-exact" default:"10000" help:"Distinct users of a broadcast that are counted one by one, 1 to 1000000; more are estimated."`
	Watch           string        `group:"watch-log" default:"users" help:"What is kept of who watches a room whose state does not say: off, totals or users."`
	WatchKeep       time.Duration `group:"watch-log" default:"720h" help:"How long the rows of the watch log are kept, 1h to 8760h; what is archived stays."`
	Archive
	Members string `group:"access" default:"staff" help:"Who may list the members of a room: staff, or everyone who may watch it."`

	Log

	// Again reads the settings once more, from the same command line, environment and file;
	// nil where they came from none.
	Again func() (Serve, error) `kong:"-" json:"-"`
}

// Who may list the members of a room.
const (
	MembersStaff    = "staff"
	MembersEveryone = "everyone"
)

// Which rooms there are, beside patterns.
const (
	RoomsAny     = "any"
	RoomsCreated = "created" // no name matches it alone: see [Serve.RoomNames]
)

// File is the setting that names the file of settings.
type File struct {
	Config string `group:"engine" placeholder:"FILE" help:"File of settings, YAML: the names of the flags without the dashes."`
}

// Auth is the settings of commands that make or check tokens.
type Auth struct {
	DataDir    string `group:"engine" default:"${data_dir}" placeholder:"DIR" help:"Directory of the embedded log and of generated secrets (the user's state directory)."`
	AuthSecret Secret `group:"access" list:"," placeholder:"SECRET" help:"Secret that signs tokens, at least 32 bytes, better as a variable or in --auth-secret-file; several with commas between them while one replaces another, the first signs (embedded: made once, in --data-dir)."`
	// AuthSecretFile holds what AuthSecret does, one secret a line.
	AuthSecretFile string `group:"access" placeholder:"FILE" help:"File with the secret that signs tokens, in the place of --auth-secret, read again when it changes; several, one a line, while one replaces another."`

	JWKS        string        `group:"access" name:"jwks" placeholder:"FILE|URL" help:"Public keys of whoever signs tokens: a JWK Set or PEM, in a file, read again when it changes, or at an https address, fetched every few minutes."`
	Issuer      string        `group:"access" placeholder:"ISS" help:"What tokens say of who has signed them, their claim iss; empty for whatever they say."`
	Audience    []string      `group:"access" placeholder:"AUD" help:"For whom tokens are, their claim aud: one of these; empty for whomever."`
	DefaultRole string        `group:"access" default:"viewer" help:"Role of tokens that name none: viewer, monitor, moderator or broadcaster."`
	MaxTokenAge time.Duration `group:"access" default:"744h" help:"How long a token may hold, and a revocation is kept, 1m to 8784h."`
	Issuers     Issuers       `group:"access" placeholder:"YAML" help:"More issuers of tokens, a list; best in the file of settings."`
}

// Log is the settings of a command's own log.
type Log struct {
	LogLevel  string `group:"own-log" default:"info" help:"What is logged: debug, info, warn or error."`
	LogFormat string `group:"own-log" default:"text" help:"How it is logged: text or json."`
}

// Logger makes the logger that the settings describe.
func (l *Log) Logger(w io.Writer) *slog.Logger {
	var level slog.Level // info, also if the settings have not been validated
	_ = level.UnmarshalText([]byte(l.LogLevel))
	opts := &slog.HandlerOptions{Level: level}
	if l.LogFormat == "json" {
		return slog.New(slog.NewJSONHandler(w, opts))
	}
	return slog.New(slog.NewTextHandler(w, opts))
}

// Embedded reports whether the node stands alone, with all it needs inside.
func (s *Serve) Embedded() bool { return s.NATS == "" && s.Redis == "" }

// GuestMode is what guests may do.
func (s *Serve) GuestMode() protocol.Guests {
	switch {
	case s.Guests != "":
		return protocol.Guests(s.Guests)
	case s.Embedded():
		return protocol.GuestsComment
	}
	return protocol.GuestsNone
}

// RoomNames are the patterns of the names of the rooms that there are beside those whose state was set;
// nil: all names.
func (s *Serve) RoomNames() []string {
	if slices.Contains(s.Rooms, RoomsAny) {
		return nil
	}
	return s.Rooms
}

// Weights returns --sample-weights: of guest, user and member, 1 where it does not say.
func (s *Serve) Weights() map[string]int {
	w := map[string]int{"guest": 1, "user": 1, "member": 1}
	for _, one := range s.SampleWeights {
		who, n, _ := strings.Cut(one, "=")
		if _, known := w[who]; known {
			w[who], _ = strconv.Atoi(n) // Validate has read it
		}
	}
	return w
}

// LargestMessage is how many bytes a viewer's message may have: as many as the longest comment with its data
// needs, or an event, at least.
func (s *Serve) LargestMessage() int {
	return max(s.MaxMessage, 4*max(s.MaxText, s.MaxTextStaff)+besideText+protocol.MaxCommentData, protocol.MaxEventData+besideText)
}

// besideText is how many bytes of a message surround its text or data.
const besideText = 512

// HTTPConnections is how many connections the public listener may have beside those of
// viewers.
func (s *Serve) HTTPConnections() int {
	if s.MaxHTTP != 0 {
		return s.MaxHTTP
	}
	return max(1000, s.MaxViewers/5)
}

// Replicas is how many copies of every stream there are.
func (s *Serve) Replicas() int {
	switch {
	case s.LogReplicas != 0:
		return s.LogReplicas
	case s.NATS == "":
		return 1
	}
	return 3
}

// Buckets is how many buckets of rooms there are in Redis.
func (s *Serve) Buckets() int {
	switch {
	case s.PresenceBuckets != 0:
		return s.PresenceBuckets
	case s.Redis == "":
		return 1
	}
	return 64
}

// AuthSecrets returns the secrets of --auth-secret; tokens are made with the
// first. What has no comma in it is the secret as it is.
func (a *Auth) AuthSecrets() [][]byte {
	if a.AuthSecret != "" && !strings.Contains(string(a.AuthSecret), ",") {
		return [][]byte{[]byte(a.AuthSecret)}
	}
	return secrets(a.AuthSecret)
}

// NodeSecrets returns the one or two secrets of --node-secret; sessions are made under the
// first.
func (s *Serve) NodeSecrets() [][]byte { return secrets(s.NodeSecret) }

// secrets returns what commas separate in s.
func secrets(s Secret) [][]byte {
	var out [][]byte
	for _, one := range split(string(s)) {
		out = append(out, []byte(one))
	}
	return out
}

// PublicURLs returns the addresses of --public-url without slashes at their ends.
func (s *Serve) PublicURLs() []string {
	var out []string
	for _, u := range s.PublicURL {
		out = append(out, strings.TrimRight(u, "/"))
	}
	return out
}

// Origins returns those of --origin and --public-url.
func (s *Serve) Origins() []string {
	out := slices.Clone(s.Origin)
	for _, p := range s.PublicURL {
		if u, err := url.Parse(p); err == nil {
			out = append(out, u.Scheme+"://"+u.Host)
		}
	}
	return out
}

// Hosts returns the names of --host and --public-url.
func (s *Serve) Hosts() []string {
	out := slices.Clone(s.Host)
	for _, p := range s.PublicURL {
		if u, err := url.Parse(p); err == nil {
			out = append(out, u.Hostname())
		}
	}
	return out
}

// Proxies returns the networks of --trusted-proxy.
func (s *Serve) Proxies() []netip.Prefix { return networks(s.TrustedProxy) }

// Exempt returns the networks of --exempt-network.
func (s *Serve) Exempt() []netip.Prefix { return networks(s.ExemptNetwork) }

// NATSServers are the single addresses of --nats; nil when it is embedded.
func (s *Serve) NATSServers() []string { return split(s.NATS) }

// Secret is a setting that shows itself to nobody who prints it: what it holds takes
// a conversion to []byte or string.
type Secret string

const hidden = "(secret)"

// String tells no more than whether there is a secret.
func (s Secret) String() string {
	if s == "" {
		return ""
	}
	return hidden
}

// GoString is String.
func (s Secret) GoString() string { return fmt.Sprintf("%q", s.String()) }

// MarshalText is String.
func (s Secret) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// LogValue is String.
func (s Secret) LogValue() slog.Value { return slog.StringValue(s.String()) }

// LogSync is how often a log is synced to disk; 0 for always.
type LogSync time.Duration

var _ encoding.TextUnmarshaler = (*LogSync)(nil)

// Always reports whether every write is synced.
func (s LogSync) Always() bool { return s == 0 }

// String is "always" or the duration.
func (s LogSync) String() string {
	if s.Always() {
		return always
	}
	return time.Duration(s).String()
}

const (
	always  = "always"
	minSync = 10 * time.Millisecond
	maxSync = time.Hour
)

// UnmarshalText reads "always" or a duration of 10 ms to 1 h.
func (s *LogSync) UnmarshalText(text []byte) error {
	if string(text) == always {
		*s = 0
		return nil
	}
	d, err := time.ParseDuration(string(text))
	if err != nil || d < minSync || d > maxSync {
		return fmt.Errorf("must be always or a duration of %v to %v, not %q", minSync, maxSync, text)
	}
	*s = LogSync(d)
	return nil
}
