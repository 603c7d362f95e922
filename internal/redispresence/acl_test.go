package redispresence

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/kansei-live/kansei/internal/health"

	"github.com/kansei-live/kansei/hub"
	"github.com/kansei-live/kansei/test/ports"
)

// grants are the rules for a user of Redis that docs/OPERATING.md has: those that a node
// needs, and those of each line behind them, by their first command.
func grants(t *testing.T) (needed []string, more map[string][]string) {
	t.Helper()
	b, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^user kansei on >PASSWORD (~.*)$`).FindSubmatch(b)
	if line == nil {
		t.Fatal("docs/OPERATING.md has no line for an ACL")
	}
	more = map[string][]string{}
	for _, m := range regexp.MustCompile("(?m)^- (`\\+.*)$").FindAllSubmatch(b, -1) {
		for _, x := range regexp.MustCompile("`(\\+[^`]*)`").FindAllSubmatch(m[1], -1) {
			rules := strings.Fields(string(x[1]))
			more[rules[0]] = rules
		}
	}
	return strings.Fields(string(line[1])), more
}

// as returns the same server for nodes that connect as a user with these rules alone.
func (s *server) as(t *testing.T, rules []string) *server {
	t.Helper()
	ctx := context.Background()
	args := []any{"ACL", "SETUSER", "kansei", "reset", "on", ">s3cret"}
	for _, r := range rules {
		args = append(args, r)
	}
	if err := s.raw.Do(ctx, args...).Err(); err != nil {
		t.Fatal(err)
	}
	if err := s.raw.Do(ctx, "ACL", "LOG", "RESET").Err(); err != nil {
		t.Fatal(err)
	}
	return &server{url: strings.Replace(s.url, "://", "://kansei:s3cret@", 1), raw: s.raw}
}

// denied is what the user was denied so far.
func (s *server) denied(t *testing.T) []string {
	t.Helper()
	entries, err := s.raw.Do(context.Background(), "ACL", "LOG", 1000).Slice()
	if err != nil {
		t.Fatal(err)
	}
	var all []string
	for _, e := range entries {
		fields, _ := e.([]any)
		for i := 0; i+1 < len(fields); i += 2 {
			if fields[i] == "object" {
				all = append(all, fmt.Sprint(fields[i+1]))
			}
		}
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// TestRedisUserOfTheDocument: a user with what docs/OPERATING.md grants, and nothing else, is
// enough for all that a presence does.
func TestRedisUserOfTheDocument(t *testing.T) {
	t.Parallel()
	needed, more := grants(t)
	for _, c := range []struct {
		name    string
		cluster bool
		with    []string // of what is behind the line
		may     []string // be denied
	}{
		{"alone", false, nil, []string{"client|setname", "config|get", "info"}},
		{"with all", false, []string{"+config|get", "+info", "+client|setname"}, nil},
		{"without config", false, []string{"+info", "+client|setname"}, []string{"config|get"}},
		{"cluster", true, []string{"+cluster|slots"}, []string{"client|setname", "config|get", "info"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			var s *server
			if c.cluster {
				s = startCluster(t)
			} else {
				s = dial(t, startProcess(t, ports.ForTest(t).Number))
			}
			rules := slices.Clone(needed)
			for _, w := range c.with {
				if len(more[w]) == 0 {
					t.Fatalf("the document does not have %s", w)
				}
				rules = append(rules, more[w]...)
			}
			u := s.as(t, rules)
			lifeOfPresences(t, u)
			got := u.denied(t)
			for _, d := range got {
				if !slices.Contains(c.may, d) {
					t.Errorf("denied: %s", d)
				}
			}
			if len(got) != len(c.may) {
				t.Errorf("denied: %q, want %q", got, c.may)
			}
		})
	}
}

// lifeOfPresences has presences do all that they can.
func lifeOfPresences(t *testing.T, s *server) {
	t.Helper()
	ctx := context.Background()
	one := func(c *Config) {
		c.Buckets, c.Pins, c.FirstSeen, c.DistinctExact = 1, []Pin{authPin("same")}, 200, 100
		c.Publish = func(context.Context, string, string, []byte) error { return nil }
		c.LeaveWait = -1
	}
	a, b := s.node(t, one), s.node(t, one)
	here, there := a.open("room"), b.open("room")
	for _, u := range users(600) {
		here.Join(u)
		there.Join(u + "b")
	}
	here.want(t, "both have joined", 1200, 1200)
	there.Leave(users(1)[0] + "b")
	for _, v := range []*view{here, there} {
		v.Broadcast(1)
	}
	brief := b.open("brief")
	brief.Join("ann")
	brief.Join("bob")
	brief.want(t, "two in another room", 2, 2)
	brief.Close()
	here.want(t, "one has left", 1199, 1199)
	eventually(t, "ready", func() error { return errors.Join(a.Ready(), b.Ready()) })

	eventually(t, "the broadcast is counted", func() error {
		d, err := a.Distinct(ctx, "room", 1)
		if err == nil && d.Users < 1100 {
			err = fmt.Errorf("%+v", d)
		}
		return err
	})
	var listed, rooms int
	for cursor := ""; ; {
		page, err := a.Members(ctx, hub.MembersQuery{Room: "room", Cursor: cursor, Limit: 500, Leaving: true})
		if err != nil {
			t.Fatal(err)
		}
		if listed, cursor = listed+len(page.Users), page.Cursor; cursor == "" {
			break
		}
	}
	of, err := b.RoomsOf(ctx, "ann", "", 10)
	if err != nil {
		t.Fatal(err)
	}
	for _, among := range [][]string{nil, {"room", "none"}} {
		hottest, err := b.Rooms(ctx, hub.RoomsQuery{Limit: 10, Among: among})
		if err != nil {
			t.Fatal(err)
		}
		rooms += len(hottest.Rooms)
	}
	if listed < 1199 || len(of.Rooms) > 1 || rooms < 2 {
		t.Errorf("listed are %d users, %v, %d rooms", listed, of.Rooms, rooms)
	}

	// Lost keys, all of them, and an older state.
	k := a.buckets[0].keys
	if err := s.raw.Del(ctx, k.users("room")).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "lost keys are noticed", func() error { return resynced(resyncKeys, a, b) })
	here.want(t, "the room is written anew", 1199, 1199)
	if err := s.raw.FlushAll(ctx).Err(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "an empty Redis is noticed", func() error { return resynced(resyncLost, a, b) })
	here.want(t, "all is written anew", 1199, 1199)
	eventually(t, "an older state is noticed", func() error {
		for inc := range s.raw.HGetAll(ctx, k.base+"tick").Val() {
			if strings.HasPrefix(inc, a.id) {
				if err := s.raw.HSet(ctx, k.base+"tick", inc, "1 1").Err(); err != nil {
					return err
				}
			}
		}
		return resynced(resyncTick, a)
	})
	here.want(t, "it has written itself anew", 1199, 1199)

	// A node that is taken for dead, one that is, and one whose index is lost besides.
	b.line.set(true)
	here.want(t, "a silent node does not count", 600, 600)
	eventually(t, "it was reaped", func() error {
		if a.reaped() == 0 {
			return errors.New("not yet")
		}
		return nil
	})
	b.line.set(false)
	here.want(t, "it is back", 1199, 1199)
	b.kill()
	if err := s.raw.Del(ctx, s.raw.Keys(ctx, k.base+"i:"+b.id+"*").Val()...).Err(); err != nil {
		t.Fatal(err)
	}
	here.want(t, "a dead node does not count", 600, 600)

	c := s.node(t, func(c *Config) { c.Buckets = 2 })
	eventually(t, "another number of buckets", func() error { return says(c, "--presence-buckets") })
	d := s.node(t, func(c *Config) { c.Buckets, c.Pins = 1, []Pin{authPin("other")} })
	eventually(t, "another secret", func() error { return says(d, "--auth-secret") })
	a.shut(t)
	if left := s.raw.Exists(ctx, k.users("room"), k.counts()).Val(); left != 0 {
		t.Errorf("%d keys are left of a node that has handed its presence back", left)
	}
}

func resynced(reason string, nodes ...*node) error {
	for _, n := range nodes {
		if n.resyncs(reason) == 0 {
			return fmt.Errorf("no resync for %s", reason)
		}
	}
	return nil
}

// TestGrantsAreMinimal: what the document grants is what is used.
func TestGrantsAreMinimal(t *testing.T) {
	t.Parallel()
	used := map[string]bool{"~kansei:*": true, "+eval": true, "+evalsha": true, "+get": true, "+set": true,
		"+hmget": true, "+hscan": true, "+pfcount": true, "+scard": true}
	for _, script := range []string{tickLua, sweepLua, reapLua, renewLua, nodesLua, listLua, feedLua} {
		for _, m := range regexp.MustCompile(`redis\.call\('([A-Z]+)'`).FindAllStringSubmatch(script, -1) {
			used["+"+strings.ToLower(m[1])] = true
		}
	}
	needed, _ := grants(t)
	for _, rule := range needed {
		if !used[rule] {
			t.Errorf("nothing uses %s", rule)
		}
		delete(used, rule)
	}
	if len(used) > 0 {
		t.Errorf("the document lacks %v", used)
	}
}

// TestRedisUserLacksSomething: a node that meets it at the start is unready by name, others are
// degraded.
func TestRedisUserLacksSomething(t *testing.T) {
	t.Parallel()
	needed, _ := grants(t)
	s := dial(t, startProcess(t, ports.ForTest(t).Number))
	u := s.as(t, needed)
	was := u.node(t, nil)
	view := was.open("room")
	view.Join("ann")
	view.want(t, "counted", 1, 1)
	eventually(t, "ready", was.Ready)
	was.settle(t)
	without := slices.DeleteFunc(slices.Clone(needed), func(r string) bool { return r == "+zadd" })
	u = s.as(t, without)
	late := u.node(t, nil)
	late.open("room").Join("bob")
	for n, state := range map[*node]health.State{was: health.StateDegraded, late: health.StateUnready} {
		eventually(t, state.String(), func() error {
			if err := says(n, "ACL LOG", "docs/OPERATING.md"); err != nil {
				return err
			}
			if got := health.StateOf(n.Ready()); got != state {
				return fmt.Errorf("it is %v", got)
			}
			return nil
		})
	}
	s.as(t, needed)
	eventually(t, "both are ready", func() error { return errors.Join(was.Ready(), late.Ready()) })
}

// TestSentinelUserOfTheDocument: the same of a user of Sentinel.
func TestSentinelUserOfTheDocument(t *testing.T) {
	t.Parallel()
	b, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^user kansei on >PASSWORD (\+sentinel.*)$`).FindSubmatch(b)
	if line == nil {
		t.Fatal("docs/OPERATING.md has no line for an ACL of Sentinel")
	}
	port := ports.ForTest(t).Number
	startProcess(t, port)
	sentinel := startSentinel(t, port)
	u := sentinel.as(t, strings.Fields(string(line[1])))
	for name, state := range map[string]health.State{"main": health.StateReady, "other": health.StateUnready} {
		client, err := Connect(strings.Replace(u.url, "redis://", "redis+sentinel://", 1) + "/0?master_name=" + name)
		if err != nil {
			t.Fatal(err)
		}
		n := New(Config{Client: client, Buckets: 1, Interval: testInterval, Lease: testLease, Timeout: patience})
		eventually(t, name, func() error {
			err := n.Ready()
			if got := health.StateOf(err); got != state || err != nil && !strings.Contains(err.Error(), "master_name") {
				return fmt.Errorf("%v: %w", got, err)
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		_ = n.Close(ctx) // where there is no primary there is nothing to hand back
		cancel()
		if err := client.Close(); err != nil {
			t.Error(err)
		}
	}
	if got := u.denied(t); !slices.Equal(got, []string{"client|setname"}) {
		t.Errorf("denied: %q", got)
	}
}

// startSentinel starts a sentinel that knows the server at a port as "main".
func startSentinel(t *testing.T, primary int) *server {
	t.Helper()
	path, err := exec.LookPath("redis-server")
	if err != nil {
		t.Fatalf("%v: `make setup` installs it", err)
	}
	port, dir := ports.ForTest(t).Number, t.TempDir()
	conf := filepath.Join(dir, "sentinel.conf")
	text := fmt.Sprintf("bind 127.0.0.1\nport %d\nsentinel monitor main 127.0.0.1 %d 1\ndir %s\n", port, primary, dir)
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(path, conf, "--sentinel")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	s := dial(t, fmt.Sprintf("redis://127.0.0.1:%d", port))
	eventually(t, "the sentinel answers", func() error { return s.raw.Ping(t.Context()).Err() })
	return s
}
