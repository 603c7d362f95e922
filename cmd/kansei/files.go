package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/credentials"
	"github.com/kansei-live/kansei/internal/reload"
)

// loadFiles reads whatever a node has in files, before anything else is begun: what is
// missing or broken is found first.
func (n *node) loadFiles(reg prometheus.Registerer) error {
	n.files = reload.New(reload.Config{Metrics: reload.NewMetrics(reg), Logger: n.log})
	if n.cfg.TLSCert != "" {
		n.certificate = reload.NewCertificate(n.cfg.TLSCert, n.cfg.TLSKey, reg, n.log)
		n.files.Add("--tls-cert, --tls-key", n.certificate)
	}
	n.secrets = &secrets{cfg: n.cfg, log: n.log, guests: &auth.Guests{}}
	n.files.Add(n.secrets.names(), n.secrets)
	var err error
	if n.nats, err = credentials.NewNATS(n.cfg.NATSAccess); err != nil {
		return err
	}
	if n.redis, err = credentials.NewRedis(n.cfg.RedisAccess); err != nil {
		return err
	}
	n.files.Add("credentials for NATS", n.nats)
	n.files.Add("credentials for Redis", n.redis)
	return n.files.Load()
}

// filesGrace is how long the end of a process waits for a look at its files: a disk that
// does not answer must not hold it up.
const filesGrace = time.Second

// watchFiles has files read again when they change, and when something comes from hup. The
// function that it returns ends that.
func (n *node) watchFiles(hup <-chan os.Signal) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	// Ends with cancel.
	go func() {
		defer close(done)
		n.files.Run(ctx, hup)
	}()
	return func() {
		cancel()
		t := time.NewTimer(filesGrace)
		defer t.Stop()
		select {
		case <-done:
		case <-t.C:
			n.log.Warn("a file is still being read, its disk does not answer: the node ends all the same")
		}
	}
}

// secrets is a [reload.Source]: what tokens are signed with, and what the ids of guests are
// made with. They come from files of their own, from settings, which may stand in the file of
// --config, or from the data directory, where they are made once.
type secrets struct {
	log     *slog.Logger
	tokens  *auth.Verifier // nil before the first load
	guests  *auth.Guests
	aliases auth.Pseudonyms
	signs   atomic.Pointer[auth.Signer] // of the tokens that this node makes

	// onChange is told the secrets that were given to this node whenever they were loaded
	// again; nil for nobody. Those that the node has made for itself are not among them.
	onChange func(tokens, guests [][]byte)

	// Of whoever loads.
	cfg         config.Serve // as the node was started, but for the secrets in it
	given, made pair
}

// pair is the secrets of tokens and those of guests; the first of each is in use.
type pair struct{ tokens, guests [][]byte }

var _ reload.Source = (*secrets)(nil)

// names are the settings that have files.
func (s *secrets) names() string {
	var names []string
	for _, f := range []struct {
		name string
		is   bool
	}{
		{"--auth-secret-file", s.cfg.AuthSecretFile != ""}, {"--jwks, --issuers", len(issuerFiles(s.cfg.Auth)) > 0},
		{"--node-secret-file", s.cfg.NodeSecretFile != ""}, {"--config", s.cfg.Config != ""},
	} {
		if f.is {
			names = append(names, f.name)
		}
	}
	return strings.Join(names, ", ")
}

// Files returns the files of secrets and keys, and that of the settings.
func (s *secrets) Files() []string {
	return append(issuerFiles(s.cfg.Auth), s.cfg.AuthSecretFile, s.cfg.NodeSecretFile, s.cfg.Config)
}

// Load reads the secrets.
func (s *secrets) Load() (apply func(), err error) {
	cfg, others, err := s.settings()
	if err != nil {
		return nil, err
	}
	var given pair
	if given.tokens, err = authSecrets(cfg.Auth); err != nil {
		return nil, err
	}
	if given.guests, err = nodeSecrets(cfg); err != nil {
		return nil, err
	}
	if err := s.make(given); err != nil {
		return nil, err
	}
	now := pair{given.tokens, given.guests}
	if now.tokens == nil {
		now.tokens = s.made.tokens
	}
	if now.guests == nil {
		now.guests = s.made.guests
	}
	applyGuests, err := s.guests.Prepare(now.guests...)
	if err != nil {
		return nil, err
	}
	issuers, err := issuersOf(cfg.Auth, now.tokens, now.guests)
	if err != nil {
		return nil, err
	}
	applyAliases, err := s.aliases.Prepare(now.guests...)
	if err != nil {
		return nil, err
	}
	first := s.tokens == nil
	if first {
		s.tokens = &auth.Verifier{MaxAge: cfg.MaxTokenAge}
	}
	applyTokens, err := s.tokens.PrepareIssuers(issuers...)
	if err != nil {
		return nil, err
	}
	return func() {
		applyTokens()
		applyGuests()
		applyAliases()
		s.signs.Store(signerOf(cfg.Auth, now.tokens, now.guests))
		s.cfg, s.given = cfg, given
		if len(others) > 0 {
			s.log.Warn("settings have changed that count from the next start on", "settings", strings.Join(others, ", "), "file", cfg.Config)
		}
		if !first && s.onChange != nil {
			s.onChange(given.tokens, given.guests)
		}
	}, nil
}

// settings reads the file of settings again, once the node runs. It returns the settings of
// the node with the secrets that the file has now, and the names of other settings that have
// changed.
func (s *secrets) settings() (cfg config.Serve, others []string, err error) {
	cfg = s.cfg
	if s.tokens == nil || cfg.Config == "" || cfg.Again == nil {
		return cfg, nil, nil
	}
	fresh, err := cfg.Again()
	if err != nil {
		return cfg, nil, err
	}
	changed, err := config.Changed(cfg, fresh)
	if err != nil {
		return cfg, nil, err
	}
	for _, name := range changed {
		switch {
		// A secret in the place of none, or none in the place of one, is another way to run.
		case name == "auth-secret" && cfg.AuthSecret != "" && fresh.AuthSecret != "":
			cfg.AuthSecret = fresh.AuthSecret
		case name == "node-secret" && cfg.NodeSecret != "" && fresh.NodeSecret != "":
			cfg.NodeSecret = fresh.NodeSecret
		default:
			others = append(others, "--"+name)
		}
	}
	return cfg, others, nil
}

// make loads the secrets of the data directory that are used because none are given, or makes
// them, once. A node of a cluster has none of its own for guests, and needs none where guests
// are not let in.
func (s *secrets) make(given pair) error {
	load := func(file string) ([][]byte, error) {
		secret, err := auth.LoadOrMakeSecret(s.cfg.DataDir, file)
		if err != nil {
			return nil, fmt.Errorf("--data-dir: %w", err)
		}
		return [][]byte{secret}, nil
	}
	var err error
	if given.tokens == nil && s.made.tokens == nil && s.cfg.Embedded() {
		if s.made.tokens, err = load(auth.SecretFile); err != nil {
			return err
		}
	}
	if given.guests == nil && s.made.guests == nil && s.cfg.NATS == "" {
		s.made.guests, err = load(auth.NodeSecretFile)
	}
	return err
}

// sign makes a token with the secret that is in use.
func (s *secrets) sign(c auth.Claims, ttl time.Duration) (string, error) {
	return s.signs.Load().Mint(c, ttl)
}

// authSecrets returns the secrets of tokens that the settings give, or their file; nil without.
func authSecrets(c config.Auth) ([][]byte, error) {
	if c.AuthSecretFile == "" {
		return c.AuthSecrets(), nil
	}
	secrets, err := auth.ReadSecrets(c.AuthSecretFile)
	if err != nil {
		return nil, fmt.Errorf("--auth-secret-file: %w", err)
	}
	return secrets, nil
}

// nodeSecrets is the same for the secrets of guests.
func nodeSecrets(c config.Serve) ([][]byte, error) {
	if c.NodeSecretFile == "" {
		return c.NodeSecrets(), nil
	}
	secrets, err := auth.ReadSecrets(c.NodeSecretFile)
	if err != nil {
		return nil, fmt.Errorf("--node-secret-file: %w", err)
	}
	return secrets, nil
}

// tokenCommandLine is the command that makes a token for the staff of a room, as somebody in
// a shell would write it. It holds no secret.
func tokenCommandLine(c config.Serve, room string) string {
	args := []string{"kansei", "token", "--room", room, "--role", "broadcaster", "--user", "broadcaster"}
	switch {
	case c.AuthSecretFile != "":
		args = append(args, "--auth-secret-file", c.AuthSecretFile)
	case c.AuthSecret == "":
		args = append(args, "--data-dir", c.DataDir)
	case c.Config != "": // which may hold it
		args = append(args, "--config", c.Config)
	}
	if c.Issuer != "" {
		args = append(args, "--issuer", c.Issuer)
	}
	if len(c.Audience) > 0 {
		args = append(args, "--audience", c.Audience[0])
	}
	for i, a := range args {
		if strings.ContainsFunc(a, needsQuotes) {
			args[i] = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
	}
	return strings.Join(args, " ")
}

// needsQuotes reports whether a shell might make something else of r.
func needsQuotes(r rune) bool {
	return !slices.Contains([]rune("-_./:=,+@%"), r) && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
}
