package config

import "time"

// Reach is how a command reaches what all nodes share: by NATS, or by one node.
type Reach struct {
	Ops  string `default:"127.0.0.1:8081" placeholder:"HOST:PORT" help:"Operators' listener of a node, which does it for all nodes; without --nats."`
	NATS string `group:"engine" name:"nats" list:"," placeholder:"URL,..." help:"Servers of the NATS cluster, in the place of --ops."`
	NATSAccess
	Prefix      string        `group:"engine" default:"kansei" help:"That of the nodes."`
	LogReplicas int           `group:"log" default:"0" help:"That of the nodes."`
	MaxTokenAge time.Duration `group:"access" default:"744h" help:"That of the nodes."`
}

// Validate says what is wrong with the settings: [Problems].
func (r *Reach) Validate() error {
	var p Problems
	address(&p, "ops", r.Ops)
	if r.NATS != "" && !areNATSServers(r.NATSServers()) {
		p.add("nats", "must be addresses such as nats://10.0.0.1:4222, with commas between them")
	}
	if r.NATS != "" {
		r.validate(&p, r.NATS)
	}
	if !isPrefix.MatchString(r.Prefix) {
		p.add("prefix", "must be 1 to 32 of a-z, 0-9, _ and -, not %q", r.Prefix)
	}
	within(&p, "log-replicas", r.LogReplicas, 0, 5)
	within(&p, "max-token-age", r.MaxTokenAge, time.Minute, 366*24*time.Hour)
	return p.err()
}

// NATSServers are the single addresses of --nats; nil without.
func (r *Reach) NATSServers() []string { return split(r.NATS) }

// Replicas is how many copies of a stream there are.
func (r *Reach) Replicas() int {
	if r.LogReplicas != 0 {
		return r.LogReplicas
	}
	return 3
}
