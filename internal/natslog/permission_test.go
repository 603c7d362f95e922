package natslog

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kansei-live/kansei/hub"
)

// guarded is a server with a user kansei of some permissions, which can be changed.
type guarded struct {
	*server.Server
	path, conf string
}

// startGuarded starts a server for a user kansei, password secret, with these permissions.
func startGuarded(t *testing.T, permissions string) *guarded {
	t.Helper()
	g := &guarded{
		path: filepath.Join(t.TempDir(), "nats.conf"),
		conf: fmt.Sprintf(`listen: "127.0.0.1:%d", server_name: one, jetstream {store_dir: %q}
authorization { users = [{user: admin, password: admin}, {user: kansei, password: secret, permissions: {%%s}}] }`,
			freePorts(t, 1)[0], t.TempDir()),
	}
	g.write(t, permissions)
	o, err := server.ProcessConfigFile(g.path)
	if err != nil {
		t.Fatal(err)
	}
	o.NoLog, o.NoSigs = true, true
	if g.Server, err = server.NewServer(o); err != nil {
		t.Fatal(err)
	}
	g.Start()
	t.Cleanup(func() { stopServer(g.Server) })
	if !g.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	return g
}

func (g *guarded) write(t *testing.T, permissions string) {
	t.Helper()
	if err := os.WriteFile(g.path, fmt.Appendf(nil, g.conf, permissions), 0o600); err != nil {
		t.Fatal(err)
	}
}

// permit changes what the user may do; its connections stay.
func (g *guarded) permit(t *testing.T, permissions string) {
	t.Helper()
	g.write(t, permissions)
	if err := g.Reload(); err != nil {
		t.Fatal(err)
	}
}

func (g *guarded) url() string {
	return strings.Replace(g.ClientURL(), "nats://", "nats://kansei:secret@", 1)
}

// stored is how many records a stream has.
func (g *guarded) stored(t *testing.T, stream string) uint64 {
	t.Helper()
	st, err := jetStream(t, strings.Replace(g.ClientURL(), "nats://", "nats://admin:admin@", 1)).Stream(testContext(t), stream)
	if err != nil {
		t.Fatal(err)
	}
	return st.CachedInfo().State.LastSeq
}

// A permission that is missing when a node starts is named, by its subject, before anybody
// has said anything; it is logged once; what cannot be done is refused at once, and nothing
// of it is stored; and all is well when the permission comes.
func TestMissingPermissions(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		permissions string
		want        []string // of Ready
		appends     bool     // comments are taken all the same
	}{
		"publish to the log": {`publish: {deny: ["kansei.log.>"]}`, []string{"nats: this account may not publish to kansei.log.0.>: grant it"}, false},
		"publish to one room's partition": {`publish: {deny: ["kansei.log.1.*"]}`,
			[]string{"this account may not publish to kansei.log.1.>"}, true},
		"publish to the states":     {`publish: {deny: ["kansei.state.>"]}`, []string{"this account may not publish to kansei.state.>"}, true},
		"subscribe to live records": {`subscribe: {deny: ["kansei.live.>"]}`, []string{"this account may not subscribe to kansei.live.*.0.>"}, true},
		"direct gets":               {`publish: {deny: ["$JS.API.DIRECT.GET.>"]}`, []string{"may not publish to $JS.API.DIRECT.GET.KANSEI_LOG_0"}, true},
		"gets":                      {`publish: {deny: ["$JS.API.STREAM.MSG.GET.>"]}`, []string{"may not publish to $JS.API.STREAM.MSG.GET.KANSEI_LOG_0"}, true},
		"infos":                     {`publish: {deny: ["$JS.API.STREAM.INFO.>"]}`, []string{"may not publish to $JS.API.STREAM.INFO.KANSEI_LOG_0"}, false},
		"making streams":            {`publish: {deny: ["$JS.API.STREAM.CREATE.>"]}`, []string{"may not publish to $JS.API.STREAM.CREATE.KANSEI_LOG_0"}, false},
		"answers":                   {`subscribe: {deny: ["_INBOX.>"]}`, []string{"this account may not subscribe to _INBOX.kansei.>"}, false},
		"two things": {`publish: {deny: ["kansei.log.>"]}, subscribe: {deny: ["kansei.live.>"]}`,
			[]string{"may not publish to kansei.log.0.>", "may not subscribe to kansei.live.*.0.>"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			g := startGuarded(t, c.permissions)
			var out lines
			l := open(t, Config{URLs: []string{g.url()}, Partitions: 2, Logger: out.debug()})
			readySays(t, l, c.want...)
			room := roomIn(0, 2)
			o := new(observer)
			f := l.Follow(room, 10, o)
			t.Cleanup(f.Stop)
			for i := range 5 {
				began := time.Now()
				a := appendAll(t, l, room, draft1(fmt.Sprint("a", i)))[0]
				if c.appends != (a.err == nil) || !c.appends && !errors.Is(a.err, hub.ErrUnavailable) {
					t.Errorf("append: %v", a.err)
				}
				if took := time.Since(began); took > 5*time.Second {
					t.Errorf("the answer took %v", took)
				}
			}
			readySays(t, l, c.want...)
			g.permit(t, "")
			waitReady(t, l)
			eventually(t, 20*time.Second, "a state is set", func() error {
				_, err := setState(testContext(t), l, "s", 0, []byte(`{"title":"t"}`))
				return err
			})
			mustAppend(t, l, room, "last")
			want := []string{"last"}
			if c.appends {
				want = append(names("a", 5), want...)
			}
			waitEvents(t, o, 20*time.Second, want...)
			if n := g.stored(t, "KANSEI_LOG_0"); n != uint64(len(want)) {
				t.Errorf("the log has %d records, wanted %d", n, len(want))
			}
			// One line for each subject and stream, whatever was tried how often.
			if said := out.with("NATS refuses"); len(said) < 1 || len(said) > 6 {
				t.Errorf("%d lines say so:\n%s", len(said), strings.Join(said, ""))
			}
			if strings.Contains(out.String(), "secret") {
				t.Errorf("the log has the password:\n%s", &out)
			}
		})
	}
}

// The subjects that a permission is tried on are no events: nothing is stored by it, and
// nothing is shown.
func TestProbesAreNotStored(t *testing.T) {
	t.Parallel()
	s := startServer(t, t.TempDir(), 0)
	all := dial(t, s.ClientURL())
	probes, err := all.SubscribeSync("kansei.*.>")
	if err != nil {
		t.Fatal(err)
	}
	if err := all.Flush(); err != nil {
		t.Fatal(err)
	}
	l := openReady(t, Config{URLs: urls(s)})
	for _, stream := range []string{"KANSEI_LOG_0", "KANSEI_STATE"} {
		st, err := jetStream(t, s.ClientURL()).Stream(testContext(t), stream)
		if err != nil {
			t.Fatal(err)
		}
		if n := st.CachedInfo().State.LastSeq; n != 0 {
			t.Errorf("stream %s has %d records", stream, n)
		}
	}
	var seen []string
	for range 2 {
		m, err := probes.NextMsg(10 * time.Second)
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, m.Subject)
	}
	slices.Sort(seen)
	if want := []string{"kansei.log.0._probe", "kansei.state._probe"}; !slices.Equal(seen, want) {
		t.Errorf("tried are %q, wanted %q", seen, want)
	}
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
}

// A permission that is taken away while the node is connected is noticed by what is refused
// then: who has said it is told so at once, and it is not there when permission is back.
func TestPermissionTakenAway(t *testing.T) {
	t.Parallel()
	g := startGuarded(t, "")
	var out lines
	l := openReady(t, Config{URLs: []string{g.url()}, Logger: out.debug()})
	o, _ := followRoom(t, l, "r", 10)
	mustAppend(t, l, "r", "a")
	waitEvents(t, o, 10*time.Second, "a")
	for round := range 2 {
		g.permit(t, `publish: {deny: ["kansei.log.>"]}`)
		began := time.Now()
		var all []hub.Draft
		for _, id := range names(fmt.Sprint("refused", round, "-"), 20) {
			all = append(all, draft1(id))
		}
		for i, a := range appendAll(t, l, "r", all...) {
			if !errors.Is(a.err, hub.ErrUnavailable) {
				t.Errorf("append %d: %v", i, a.err)
			}
		}
		if took := time.Since(began); took > 8*time.Second {
			t.Errorf("to refuse them took %v", took)
		}
		readySays(t, l, "this account may not publish to kansei.log.0.>")
		g.permit(t, "")
		waitReady(t, l)
		mustAppend(t, l, "r", fmt.Sprint("b", round))
	}
	waitEvents(t, o, 10*time.Second, "a", "b0", "b1")
	if n := g.stored(t, "KANSEI_LOG_0"); n != 3 {
		t.Errorf("the log has %d records", n)
	}
	if failed := out.with("was not stored"); len(failed) == 0 || len(failed) > 4 || !strings.Contains(failed[0], "may not publish to kansei.log.0.>") {
		t.Errorf("of appends that failed the log says:\n%s", strings.Join(failed, ""))
	}
}

// The answers to requests, and what is published live, can be taken away too.
func TestSubscriptionTakenAway(t *testing.T) {
	t.Parallel()
	for subject, want := range map[string]string{
		"kansei.live.>": "this account may not subscribe to kansei.live.*.0.>",
		"_INBOX.>":      "this account may not subscribe to _INBOX.kansei.>",
	} {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			g := startGuarded(t, "")
			l := openReady(t, Config{URLs: []string{g.url()}})
			o, _ := followRoom(t, l, "r", 10)
			mustAppend(t, l, "r", "a")
			waitEvents(t, o, 10*time.Second, "a")
			g.permit(t, fmt.Sprintf(`subscribe: {deny: [%q]}`, subject))
			readySays(t, l, want)
			g.permit(t, "")
			waitReady(t, l)
			// The connection may be made anew once more, and nothing is taken meanwhile.
			eventually(t, 10*time.Second, "an append", func() error { return appendAll(t, l, "r", draft1("b"))[0].err })
			waitEvents(t, o, 10*time.Second, "a", "b")
		})
	}
}
