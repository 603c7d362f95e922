package main

import (
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/internal/auth"
	"github.com/kansei-live/kansei/internal/config"
)

// guest joins as a guest and returns its id and session.
func (n *testNode) guest(session string) (id, got string) {
	n.t.Helper()
	w := n.mustDial("r", "?session="+session).next("welcome")
	return w["you"].(map[string]any)["id"].(string), w["session"].(string)
}

// A guest is the same on every node with the same secret, and while secrets change, and
// somebody else where there is another secret.
func TestGuestsAreTheSameOnAllNodes(t *testing.T) {
	t.Parallel()
	before, after := strings.Repeat("o", 32), strings.Repeat("n", 32)
	one := runNode(t, "--node-secret="+before)
	two := runNode(t, "--node-secret="+before)
	changing := runNode(t, "--node-secret="+after+","+before)
	alone := runNode(t)
	id, session := one.guest("")
	if !regexp.MustCompile(`^guest-[0-9a-f]{24}$`).MatchString(id) {
		t.Errorf("a guest is %q", id)
	}
	for name, n := range map[string]*testNode{"the same node": one, "another node": two, "a node with a newer secret": changing} {
		if got, s := n.guest(session); got != id || s != session {
			t.Errorf("%s: %q with %q, want %q with %q", name, got, s, id, session)
		}
	}
	if got, _ := alone.guest(session); got == id {
		t.Errorf("a node with another secret has the same guest, %q", got)
	}
	// A session of the guest's own is taken.
	const own = "0123456789abcdef"
	a, s := one.guest(own)
	if b, _ := two.guest(own); a != b || a == id || s != own {
		t.Errorf("a session of one's own became %q: %q and %q", s, a, b)
	}
	for _, n := range []*testNode{one, two, changing, alone} {
		if logs := n.logs.String(); strings.Contains(logs, before) || strings.Contains(logs, after) {
			t.Errorf("a secret is logged: %s", logs)
		}
	}
}

// A node that stands alone makes its secret once: guests are who they were when it has
// been started again.
func TestNodeSecretOfADataDirectory(t *testing.T) {
	t.Parallel()
	loadGuests := func(cfg config.Serve) (*auth.Guests, error) {
		s := &secrets{cfg: cfg, log: slog.New(slog.DiscardHandler), guests: &auth.Guests{}}
		apply, err := s.Load()
		if err == nil {
			apply()
		}
		return s.guests, err
	}
	cfg := parse(t)
	g, err := loadGuests(cfg)
	if err != nil {
		t.Fatal(err)
	}
	session := g.Session()
	id, _ := g.Guest(session)
	if g, err = loadGuests(cfg); err != nil {
		t.Fatal(err)
	}
	if again, _ := g.Guest(session); again != id {
		t.Errorf("%q became %q", id, again)
	}
	info, err := os.Stat(filepath.Join(cfg.DataDir, auth.NodeSecretFile))
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	if _, err := os.Stat(filepath.Join(cfg.DataDir, auth.SecretFile)); err == nil {
		t.Error("it is the secret of tokens")
	}
	// A node of a cluster makes none of its own.
	cfg.NATS, cfg.DataDir = "nats://a:4222", filepath.Join(t.TempDir(), "none")
	if _, err := loadGuests(cfg); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(cfg.DataDir); err == nil {
		t.Error("a node of a cluster has made a secret of its own")
	}
}
