package main

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/alicebob/miniredis/v2"
	"github.com/nats-io/nats-server/v2/server"

	"github.com/kansei-live/kansei/internal/config"
	"github.com/kansei-live/kansei/internal/redispresence"
)

// TestConnectionExamples: every command line of docs/CONNECTIONS.md is one, and there is one
// for each setting.
func TestConnectionExamples(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/CONNECTIONS.md")
	if err != nil {
		t.Fatal(err)
	}
	examples, used := 0, ""
	for _, block := range regexp.MustCompile("(?s)```sh\n(.*?)```").FindAllSubmatch(page, -1) {
		text := regexp.MustCompile(`\\\n\s*`).ReplaceAllString(string(block[1]), "")
		for line := range strings.Lines(text) {
			examples++
			before, args, ok := strings.Cut(strings.ReplaceAll(strings.TrimSpace(line), "'", ""), "kansei serve")
			if !ok {
				t.Errorf("no command: %s", line)
				continue
			}
			env := append(config.Environ{"KANSEI_AUTH_SECRET=" + testSecret, "HOME=/home/u"}, strings.Fields(before)...)
			var all commands
			p, err := config.NewParser(&all, env)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := p.Parse(append([]string{"serve"}, strings.Fields(args)...)); err != nil {
				t.Errorf("%s%v", line, err)
				continue
			}
			client, err := redispresence.Connect(all.Serve.Redis)
			if err != nil {
				t.Errorf("%s%v", line, err)
				continue
			}
			if err := client.Close(); err != nil {
				t.Error(err)
			}
			used += line
		}
	}
	if examples < 15 {
		t.Errorf("only %d examples", examples)
	}
	var all struct {
		Serve struct {
			config.NATSAccess
			config.RedisAccess
		} `cmd:""`
	}
	p, err := config.NewParser(&all, config.Environ{})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range p.Model.Children[0].Flags {
		variable := "KANSEI_" + strings.ToUpper(strings.ReplaceAll(f.Name, "-", "_")) + "="
		if f.Name != "help" && !strings.Contains(used, "--"+f.Name+" ") && !strings.Contains(used, variable) {
			t.Errorf("no example has --%s", f.Name)
		}
	}
}

// TestMissingFileFailsFirst: of a file that is not there a node says so before it opens a
// listener or asks NATS for anything.
func TestMissingFileFailsFirst(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	nowhere := filepath.Join(t.TempDir(), "nowhere")
	for _, flags := range [][]string{
		{"--nats-creds"}, {"--nats-nkey"}, {"--nats-password-file", "--nats-user=u"}, {"--nats-token-file"}, {"--nats-ca"},
		{"--nats-cert", "--nats-key=" + nowhere}, {"--redis-password-file"}, {"--redis-sentinel-password-file"}, {"--redis-ca"},
		{"--redis-cert", "--redis-key=" + nowhere},
	} {
		args := append([]string{"--listen=" + taken.Addr().String(), "--nats=" + taken.Addr().String(),
			"--redis=rediss+sentinel://" + taken.Addr().String() + "?master_name=m", flags[0] + "=" + nowhere}, flags[1:]...)
		_, err := start(t.Context(), parse(t, args...), slog.New(slog.DiscardHandler))
		if err == nil || !strings.HasPrefix(err.Error(), flags[0]+": ") || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), nowhere) {
			t.Errorf("%s: %v", flags[0], err)
		}
	}
}

// TestLockedServers: a node comes into NATS and Redis that demand a password, keeps its names
// under its prefix, and tells no secret.
func TestLockedServers(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("of-nats\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: server.RANDOM_PORT, JetStream: true, StoreDir: dir,
		Username: "ann", Password: "of-nats", NoLog: true, NoSigs: true})
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(); s.WaitForShutdown() })
	if !s.ReadyForConnections(time.Minute) {
		t.Fatal("the server does not start")
	}
	m := miniredis.RunT(t)
	m.RequireUserAuth("bob", "of-redis")
	n := runNode(t, "--nats="+s.ClientURL(), "--log-replicas=1", "--nats-user=ann", "--nats-password-file="+secret, "--prefix=staging",
		"--redis=redis://"+m.Addr(), "--redis-user=bob", "--redis-password=of-redis", "--guests=comment", "--node-secret="+testSecret)
	w := n.mustDial("r", "")
	w.next("comments")
	w.say(`{"type":"comment","text":"hello"}`)
	w.next("comments")
	for _, key := range m.Keys() {
		if !strings.HasPrefix(key, "staging:") {
			t.Errorf("there is a key %s", key)
		}
	}
	info, err := s.Jsz(&server.JSzOptions{Accounts: true, Streams: true})
	if err != nil || len(info.AccountDetails) != 1 || len(info.AccountDetails[0].Streams) < 2 { // and the feed, when somebody was told of
		t.Fatalf("JetStream has %+v, %v", info, err)
	}
	for _, stream := range info.AccountDetails[0].Streams {
		if !strings.HasPrefix(stream.Name, "STAGING_") {
			t.Errorf("there is a stream %s", stream.Name)
		}
	}
	_, ready := n.get(n.ops + "/readyz")
	_, metrics := n.get(n.ops + "/metrics")
	for _, shown := range []string{n.logs.String(), ready, metrics, fmt.Sprintf("%+v", n.cfg)} {
		if strings.Contains(shown, "of-nats") || strings.Contains(shown, "of-redis") {
			t.Errorf("a secret is shown: %s", shown)
		}
	}
}
