package config

import (
	"cmp"
	"fmt"
	"net"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/kansei-live/kansei/internal/private"
	"github.com/kansei-live/kansei/protocol"
)

// Problem is what is wrong with the value of one setting.
type Problem struct {
	Name string // of the setting
	What string // what is allowed, and what was found, but for secrets
}

// Problems is the error of values that are not allowed. Parser.Parse puts where each
// came from in the place of its name.
type Problems []Problem

// Error has one line for each problem.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, q := range p {
		lines[i] = "--" + q.Name + ": " + q.What
	}
	return strings.Join(lines, "\n")
}

// err is nil without problems.
func (p Problems) err() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

func (p *Problems) add(name, format string, args ...any) {
	*p = append(*p, Problem{name, fmt.Sprintf(format, args...)})
}

// Validate says everything that is wrong with the settings: [Problems].
func (s *Serve) Validate() error {
	var p Problems
	s.validateNetwork(&p)
	s.Auth.validate(&p)
	s.Log.validate(&p)
	if !s.Embedded() && !s.givesKeys() {
		p.add("auth-secret", "is needed with --nats or --redis, the same on all nodes; or --auth-secret-file, --jwks or --issuers")
	}
	s.validateNodeSecret(&p)
	s.NATSAccess.validate(&p, s.NATS)
	s.RedisAccess.validate(&p, s.Redis)
	if !isPrefix.MatchString(s.Prefix) {
		p.add("prefix", "must be 1 to 32 of a-z, 0-9, _ and -, not %q", s.Prefix)
	}
	if s.DataDir == "" && (s.NATS == "" || !s.givesKeys()) {
		p.add("data-dir", "is needed: there is no home directory to take for it")
	}
	oneOf(&p, "guests", s.Guests, "", string(protocol.GuestsNone), string(protocol.GuestsWatch), string(protocol.GuestsComment))

	within(&p, "log-partitions", s.LogPartitions, 1, 256)
	within(&p, "log-replicas", s.LogReplicas, 0, 5)
	if s.NATS == "" && s.LogReplicas > 1 {
		p.add("log-replicas", "must be 0 or 1 without --nats, not %d: an embedded log has one copy", s.LogReplicas)
	}
	oneOf(&p, "log-create", s.LogCreate, "auto", "never")
	within(&p, "log-max-age", s.LogMaxAge, time.Minute, 100*365*24*time.Hour)
	within(&p, "append-timeout", s.AppendTimeout, 100*time.Millisecond, time.Minute)
	within(&p, "live-buffer", s.LiveBuffer, 16, 1<<20)

	within(&p, "max-text", s.MaxText, 1, protocol.MaxText)
	within(&p, "max-text-staff", s.MaxTextStaff, 1, protocol.MaxText)
	within(&p, "rate", s.Rate, 0.001, 10_000)
	within(&p, "burst", s.Burst, 1, 10_000)
	within(&p, "rate-staff", s.RateStaff, 0.001, 100_000)
	within(&p, "burst-staff", s.BurstStaff, 1, 100_000)
	within(&p, "rate-guests", s.RateGuests, 0, 100_000)
	within(&p, "burst-guests", s.BurstGuests, 1, 100_000)
	within(&p, "rate-address", s.RateAddress, 0, 100_000)
	within(&p, "burst-address", s.BurstAddress, 1, 100_000)
	within(&p, "room-limit", s.RoomLimit, 0, 1_000_000)
	within(&p, "max-sweep", s.MaxSweep, 1, 5000)
	within(&p, "max-lasting", s.MaxLasting, 0, 100)
	for _, name := range s.ViewerEvents {
		if !protocol.ValidEventName(name) {
			p.add("viewer-events", "a name is 1 to %d of A-Z a-z 0-9 _ -, not %q", protocol.MaxEventName, name)
		}
	}
	within(&p, "max-message", s.MaxMessage, 512, 1<<20)
	// A code point has up to four bytes; what surrounds the text needs the rest.
	if least := 4*max(s.MaxText, s.MaxTextStaff) + besideText; s.MaxMessage >= 512 && s.MaxMessage < least {
		p.add("max-message", "must be at least %d to hold the longest comment (--max-text, --max-text-staff), not %d", least, s.MaxMessage)
	}

	within(&p, "max-viewers", s.MaxViewers, 1, 10_000_000)
	within(&p, "max-read-rooms", s.MaxReadRooms, 1, 1_000_000)
	within(&p, "max-http", s.MaxHTTP, 0, 10_000_000)
	within(&p, "max-per-user", s.MaxPerUser, 1, 100_000)
	within(&p, "max-per-address", s.MaxPerAddress, 0, 10_000_000)
	areNetworks(&p, "exempt-network", s.ExemptNetwork)
	within(&p, "max-egress", s.MaxEgress, 0, 1<<50)
	within(&p, "recent", s.Recent, 0, 1000)
	within(&p, "recover-max", s.RecoverMax, 0, 100_000)
	within(&p, "beat", s.Beat, time.Second, time.Minute)
	within(&p, "drain", s.Drain, 0, 10*time.Minute)
	within(&p, "room-rate", s.RoomRate, 0, 1_000_000)
	for _, one := range s.SampleWeights {
		who, n, _ := strings.Cut(one, "=")
		if w, err := strconv.Atoi(n); err != nil || w < 1 || w > 100 || !slices.Contains([]string{"guest", "user", "member"}, who) {
			p.add("sample-weights", "must be guest=, user= or member= and a number from 1 to 100, not %q", one)
		}
	}
	within(&p, "coalesce", s.Coalesce, time.Millisecond, 5*time.Second)
	within(&p, "ring", s.Ring, 16, 65_536)
	within(&p, "presence-buckets", s.PresenceBuckets, 0, 1024)
	within(&p, "presence-lease", s.PresenceLease, 3*time.Second, time.Minute)
	within(&p, "presence-leave-wait", s.PresenceWait, 0, 10*time.Minute)
	within(&p, "presence-first-seen", s.PresenceSeen, 0, 10_000_000)
	if s.ModerationKeep != 0 {
		within(&p, "moderation-keep", s.ModerationKeep, time.Hour, 10*365*24*time.Hour)
	}
	within(&p, "presence-keep", s.PresenceKeep, time.Hour, 365*24*time.Hour)
	within(&p, "presence-exact", s.PresenceExact, 1, 1_000_000)
	for _, h := range s.AvatarHost {
		if name, _, found := strings.Cut(h, ":"); !isHost(name) || name == "*" || found && !isOrigin("https://"+h) {
			p.add("avatar-host", "must be the name of a host such as img.example.com, with a port if it is not 443, not %q", h)
		}
	}
	for _, r := range s.Rooms {
		if _, err := path.Match(r, ""); err != nil || strings.Trim(r, roomPattern) != "" || r == "" {
			p.add("rooms", "must be any, created, or a pattern of names such as lesson-*, not %q", r)
		}
	}
	if s.AppealURL != "" {
		if u, err := url.Parse(s.AppealURL); err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" {
			p.add("appeal-url", "must be an address that begins with https:// or http://, not %q", s.AppealURL)
		}
	}
	s.Archive.validate(&p)
	oneOf(&p, "watch", s.Watch, protocol.WatchOff, protocol.WatchTotals, protocol.WatchUsers)
	within(&p, "watch-keep", s.WatchKeep, time.Hour, 365*24*time.Hour)
	oneOf(&p, "members", s.Members, MembersStaff, MembersEveryone)
	return p.err()
}

// roomPattern is what the name of a room, or a pattern of names, may have in it.
const roomPattern = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-*?[]^"

func (s *Serve) validateNetwork(p *Problems) {
	public, ok1 := address(p, "listen", s.Listen)
	ops, ok2 := address(p, "ops-listen", s.OpsListen)
	if ok1 && ok2 && public == ops && !strings.HasSuffix(public, ":0") {
		p.add("ops-listen", "must not be --listen (%s): operators' pages are not for the public", s.Listen)
	}
	switch {
	case s.TLSCert != "" && s.TLSKey == "":
		p.add("tls-key", "is needed with --tls-cert")
	case s.TLSKey != "" && s.TLSCert == "":
		p.add("tls-cert", "is needed with --tls-key")
	}
	areNetworks(p, "trusted-proxy", s.TrustedProxy)
	oneOf(p, "forwarded-header", s.ForwardedHeader, "x-forwarded-for", "forwarded", "none")
	if s.ProxyProtocol && len(s.TrustedProxy) == 0 {
		p.add("trusted-proxy", "is needed with --proxy-protocol: nobody else may say whose connection it is")
	}
	for _, o := range s.Origin {
		if !isOrigin(o) {
			p.add("origin", "must be an origin such as https://example.com, a host such as example.com:8080, null, or * for any, not %q", o)
		}
	}
	for _, u := range s.PublicURL {
		if !isPublicURL(u) { // it may hold a password and is not quoted
			p.add("public-url", "must be an address such as https://live.example.com or https://example.com/live/, without a user, ? and #")
		}
	}
	hosts(p, "host", s.Host)
	hosts(p, "ops-host", s.OpsHost)
	// Addresses may hold passwords and are not quoted.
	if s.NATS != "" && !areNATSServers(s.NATSServers()) {
		p.add("nats", "must be addresses such as nats://10.0.0.1:4222, with commas between them; schemes are nats, tls, ws and wss, and special characters in user and password are percent-encoded")
	}
	if s.Redis != "" && !isRedisURL.MatchString(s.Redis) {
		p.add("redis", "must be a URL such as redis://10.0.0.1:6379, with more hosts behind commas; schemes are redis, rediss, unix, redis+sentinel and redis+cluster")
	}
}

func (s *Serve) validateNodeSecret(p *Problems) {
	if s.NodeSecret == "" && s.NodeSecretFile == "" && s.NATS != "" && s.GuestMode() != protocol.GuestsNone {
		p.add("node-secret", "is needed with --nats and --guests %s, the same on all nodes: it is behind the ids of guests; openssl rand -hex 32 makes one", s.GuestMode())
	}
	if s.NodeSecret == "" && s.NodeSecretFile == "" && s.NATS != "" && s.Pseudonyms {
		p.add("node-secret", "is needed with --nats and --pseudonyms, the same on all nodes: they are made with it; openssl rand -hex 32 makes one")
	}
	validateSecrets(p, "node-secret", s.NodeSecret, s.NodeSecrets(), s.NodeSecretFile, maxNodeSecrets)
}

// validateSecrets checks a setting that holds secrets, or the file that does.
func validateSecrets(p *Problems, name string, value Secret, secrets [][]byte, file string, most int) {
	if value == "" {
		return
	}
	if file != "" {
		p.add(name+"-file", "must not be given together with --%s: they may differ", name)
	}
	if n := len(secrets); n < 1 || n > most {
		p.add(name, "must be one secret, or up to %d with commas between them, not %d", most, n)
	}
	for _, one := range secrets {
		if n := len(one); n < private.MinSecret {
			p.add(name, "must have at least %d bytes each, not %d; openssl rand -hex 32 makes one", private.MinSecret, n)
		}
	}
}

// Validate says what is wrong with the settings: [Problems].
func (a *Auth) Validate() error {
	var p Problems
	a.validate(&p)
	return p.err()
}

func (a *Auth) validate(p *Problems) {
	validateSecrets(p, "auth-secret", a.AuthSecret, a.AuthSecrets(), a.AuthSecretFile, maxAuthSecrets)
	a.validateIssuers(p)
}

// maxAuthSecrets and maxNodeSecrets are how many secrets of a kind count at a time.
const (
	maxAuthSecrets = 8
	maxNodeSecrets = 2
)

// givesKeys reports whether the settings hold or name anything that tokens are checked with.
func (a *Auth) givesKeys() bool {
	return a.givesAuthSecret() || a.JWKS != "" || len(a.Issuers.List) > 0
}

// givesAuthSecret reports whether the settings hold the secret of tokens, or name its file.
func (a *Auth) givesAuthSecret() bool { return a.AuthSecret != "" || a.AuthSecretFile != "" }

// Validate says what is wrong with the settings: [Problems].
func (l *Log) Validate() error {
	var p Problems
	l.validate(&p)
	return p.err()
}

func (l *Log) validate(p *Problems) {
	oneOf(p, "log-level", l.LogLevel, "debug", "info", "warn", "error")
	oneOf(p, "log-format", l.LogFormat, "text", "json")
}

func within[T cmp.Ordered](p *Problems, name string, v, low, high T) {
	if v < low || v > high || v != v { // as NaN is
		p.add(name, "must be %v to %v, not %v", low, high, v)
	}
}

// oneOf checks that v is allowed; the empty string among what is stays unsaid.
func oneOf(p *Problems, name, v string, allowed ...string) {
	if !slices.Contains(allowed, v) {
		p.add(name, "must be %s, not %q", alternatives(slices.DeleteFunc(allowed, func(s string) bool { return s == "" })), v)
	}
}

// alternatives is "a, b or c".
func alternatives(s []string) string {
	if len(s) < 2 {
		return strings.Join(s, "")
	}
	return strings.Join(s[:len(s)-1], ", ") + " or " + s[len(s)-1]
}

// address returns host:port in one form for comparison, and whether it is one.
func address(p *Problems, name, s string) (string, bool) {
	host, port, err := net.SplitHostPort(s)
	if err == nil {
		n, e := strconv.ParseUint(port, 10, 16)
		if err = e; err == nil {
			return net.JoinHostPort(host, strconv.FormatUint(n, 10)), true
		}
	}
	p.add(name, "must be host:port such as 127.0.0.1:8080, or :8080 for every interface, not %q", s)
	return "", false
}

// isOrigin reports whether s is what a browser may send as Origin, or its host alone.
func isOrigin(s string) bool {
	if s == "*" || s == "null" {
		return true
	}
	if !strings.Contains(s, "://") {
		s = "//" + s
	}
	u, err := url.Parse(strings.TrimSuffix(s, "/"))
	return err == nil && u.Host != "" && u.Hostname() != "" && u.User == nil && u.Path == "" && u.RawQuery == "" &&
		!u.ForceQuery && u.Fragment == "" && u.Opaque == "" && !strings.ContainsAny(u.Host, "*, ")
}

// isPublicURL reports whether s is an address that pages can lie under.
func isPublicURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Hostname() != "" && u.User == nil && u.RawQuery == "" &&
		!u.ForceQuery && u.Fragment == "" && !strings.HasSuffix(s, "#") && !strings.ContainsAny(u.Host, "*, ")
}

// hosts checks that all are names of hosts.
func hosts(p *Problems, name string, all []string) {
	for _, h := range all {
		if !isHost(h) {
			p.add(name, "must be the name of a host without a port, such as kansei.example.com, or * for any, not %q", h)
		}
	}
}

// isHost reports whether s is the name of a host, or stands for any.
func isHost(s string) bool {
	if s == "*" {
		return true
	}
	u, err := url.Parse("//" + s)
	return err == nil && s != "" && u.Host == s && u.Hostname() == s && !strings.ContainsAny(s, "*, ")
}

// isRedisURL matches the beginning of what redispresence.Connect takes, which knows the
// rest.
var isRedisURL = regexp.MustCompile(`^((redis|rediss)(\+sentinel|\+cluster)?://[^/]|unix://[^/]*/)`)

// areNATSServers reports whether each address is host:port or a URL that NATS knows.
func areNATSServers(addresses []string) bool {
	for _, a := range addresses {
		if !strings.Contains(a, "://") {
			a = "nats://" + a
		}
		u, err := url.Parse(a)
		if err != nil || u.Host == "" || !slices.Contains([]string{"nats", "tls", "ws", "wss"}, u.Scheme) {
			return false
		}
	}
	return len(addresses) > 0
}

// split returns what commas separate, without blanks and empty parts.
func split(s string) []string {
	var out []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			out = append(out, part)
		}
	}
	return out
}
