package config

import (
	"net/url"
	"strings"
	"time"
)

// Archive is the settings of what shapes and keeps the watch logs of broadcasts that have ended.
type Archive struct {
	ArchiveURL     string        `group:"watch-log" name:"archive-url" placeholder:"URL" help:"Where archived broadcasts are, file:///directory or s3://bucket?region=name (embedded: in --data-dir)."`
	SQL            Secret        `group:"watch-log" name:"sql" placeholder:"URL" help:"Database that they are written to as well, postgres://user@host/database or mysql://user@host/database, better as a variable."`
	WebhookURL     string        `group:"watch-log" name:"webhook-url" placeholder:"URL" help:"Address that is told of each revision of an archived broadcast, by POST."`
	WebhookSecret  Secret        `group:"watch-log" name:"webhook-secret" placeholder:"SECRET" help:"Secret that what it is told is signed with, at least 16 bytes, better as a variable."`
	ArchiveKeep    time.Duration `group:"watch-log" default:"0" help:"How long archived broadcasts are kept, 24h to 87600h; 0 for good."`
	ArchiveSilence time.Duration `group:"watch-log" default:"10m" help:"How long nobody may be in a room that is never set to live before that ends a broadcast, 1m to 24h."`
	ArchiveSettle  time.Duration `group:"watch-log" default:"2m" help:"How long behind the end of a broadcast its first revision comes at the latest, 0 to 1h."`
	ArchiveLate    time.Duration `group:"watch-log" default:"1h" help:"How long behind the end of a broadcast rows of its watch log may come, 1s to 48h."`
}

// leastWebhookSecret is how many bytes a secret of web hooks has at least.
const leastWebhookSecret = 16

func (a *Archive) validate(p *Problems) {
	if a.ArchiveURL != "" {
		u, err := url.Parse(a.ArchiveURL)
		ok := err == nil && (u.Scheme == "file" && u.Host == "" && strings.HasPrefix(u.Path, "/") || u.Scheme == "s3" && u.Host != "")
		if !ok {
			p.add("archive-url", "must be file:/// and a directory, or s3:// and a bucket")
		}
	}
	if a.SQL != "" { // it may hold a password and is not quoted
		u, err := url.Parse(string(a.SQL))
		if err != nil || !oneOfSchemes(u.Scheme, "postgres", "postgresql", "mysql", "mariadb") {
			p.add("sql", "must be the address of a database that begins with postgres:// or mysql://")
		}
	}
	if a.WebhookURL != "" {
		if u, err := url.Parse(a.WebhookURL); err != nil || !oneOfSchemes(u.Scheme, "https", "http") || u.Host == "" {
			p.add("webhook-url", "must be an address that begins with https:// or http://")
		}
	}
	if a.WebhookSecret != "" && len(a.WebhookSecret) < leastWebhookSecret {
		p.add("webhook-secret", "must have %d bytes at least; openssl rand -hex 32 makes one", leastWebhookSecret)
	}
	if a.ArchiveKeep != 0 {
		within(p, "archive-keep", a.ArchiveKeep, 24*time.Hour, 10*365*24*time.Hour)
	}
	within(p, "archive-silence", a.ArchiveSilence, time.Minute, 24*time.Hour)
	within(p, "archive-settle", a.ArchiveSettle, 0, time.Hour)
	within(p, "archive-late", a.ArchiveLate, time.Second, 48*time.Hour)
}

func oneOfSchemes(scheme string, all ...string) bool {
	for _, s := range all {
		if scheme == s {
			return true
		}
	}
	return false
}

// Archiver is the settings of kansei archive. Those that nodes have too are named and told as theirs, so that one file does for both.
type Archiver struct {
	NATS string `group:"engine" name:"nats" list:"," placeholder:"URL,..." help:"Servers of the NATS cluster; empty for one inside this process."`
	File
	NATSAccess
	Prefix        string        `group:"engine" default:"kansei" help:"What all names on NATS and in Redis begin with, in capitals those of streams: [a-z0-9_-], up to 32; the same on all nodes, for good."`
	LogPartitions int           `group:"log" default:"1" help:"Streams that rooms are spread over, 1 to 256; the same on all nodes, for good."`
	LogReplicas   int           `group:"log" default:"0" help:"Copies of every stream, 1 to 5; 0 for 3 with --nats, 1 without."`
	WatchKeep     time.Duration `group:"watch-log" default:"720h" help:"How long the rows of the watch log are kept, 1h to 8760h; what is archived stays."`
	Archive
	Log
}

// Validate says what is wrong with the settings: [Problems].
func (a *Archiver) Validate() error {
	var p Problems
	if a.NATS != "" {
		if !areNATSServers(a.NATSServers()) {
			p.add("nats", "must be addresses such as nats://10.0.0.1:4222, with commas between them")
		}
		a.NATSAccess.validate(&p, a.NATS)
	}
	if !isPrefix.MatchString(a.Prefix) {
		p.add("prefix", "must be 1 to 32 of a-z, 0-9, _ and -, not %q", a.Prefix)
	}
	a.Archive.validate(&p)
	within(&p, "log-partitions", a.LogPartitions, 1, 256)
	within(&p, "log-replicas", a.LogReplicas, 0, 5)
	within(&p, "watch-keep", a.WatchKeep, time.Hour, 365*24*time.Hour)
	return p.err()
}

// NATSServers are the single addresses of --nats; nil without.
func (a *Archiver) NATSServers() []string { return split(a.NATS) }

// Replicas is how many copies of a stream there are.
func (a *Archiver) Replicas() int {
	if a.LogReplicas != 0 {
		return a.LogReplicas
	}
	return 3
}
