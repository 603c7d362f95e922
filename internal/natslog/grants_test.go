package natslog

import (
	"fmt"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"

	"github.com/kansei-live/kansei/hub"
)

// documentedGrants are the block that OPERATING.md gives for a user of the nodes, and the
// subjects in it.
func documentedGrants(t *testing.T) (block string, subjects []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/OPERATING.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(page), "#### Permissions\n")
	if !ok {
		t.Fatal("OPERATING.md has no section Permissions")
	}
	_, section, _ = strings.Cut(section, "```\n")
	block, _, ok = strings.Cut(section, "```")
	if !ok || !strings.HasPrefix(block, "authorization {") {
		t.Fatalf("the section Permissions does not begin with a block for nats-server, but with\n%s", block)
	}
	for _, m := range regexp.MustCompile(`(?m)^ +"([^"]+)"`).FindAllStringSubmatch(block, -1) {
		subjects = append(subjects, m[1])
	}
	return block, subjects
}

// startGranted starts a server with such a block.
func startGranted(t *testing.T, port int, dir, block string) *server.Server {
	t.Helper()
	return startConfigured(t, fmt.Sprintf("listen: \"127.0.0.1:%d\"\njetstream {store_dir: %q}\n%s", port, dir, block))
}

func grantedURL(s *server.Server) string {
	return strings.Replace(s.ClientURL(), "nats://", "nats://kansei:a%20long%20one@", 1)
}

// With the grants that the document gives, and no others, a log does all that it does: it
// makes its streams, takes comments and states, shows them live, reads back, and notices a
// log that has lost its end. NATS refuses it nothing.
func TestDocumentedGrants(t *testing.T) {
	t.Parallel()
	block, subjects := documentedGrants(t)
	if len(subjects) != 8 {
		t.Errorf("the block grants %q", subjects)
	}
	ctx := testContext(t)
	port, dir := freePorts(t, 1)[0], t.TempDir()
	s := startGranted(t, port, dir, block)
	var out lines
	l := openReady(t, Config{URLs: []string{grantedURL(s)}, Partitions: 2, Logger: out.debug()})
	room, other := roomIn(0, 2), roomIn(1, 2)
	o, _ := followRoom(t, l, room, 10)
	ids := names("a", 300) // more than one batch
	for _, id := range ids {
		mustAppend(t, l, room, id)
	}
	mustAppend(t, l, other, "x")
	waitEvents(t, o, 20*time.Second, ids...)
	rev, err := setState(ctx, l, room, 0, []byte(`{"title":"t"}`))
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, 10*time.Second, "the state is shown", func() error {
		o.mu.Lock()
		defer o.mu.Unlock()
		if st := o.states[len(o.states)-1]; st.Rev != rev {
			return fmt.Errorf("state %v", st)
		}
		return nil
	})
	if st, err := l.State(ctx, room); err != nil || st.Rev != rev {
		t.Errorf("state %v, %v", st, err)
	}
	epoch, first := l.epochOf(room), placed(t, l, room, 1)
	if events, more, err := l.Read(ctx, room, epoch, first, 1000); err != nil || more || len(events) != len(ids)-1 {
		t.Errorf("read %d events, more %t, %v", len(events), more, err)
	}
	if is, err := l.Has(ctx, room, epoch, first); err != nil || is != hub.AnchorRoom {
		t.Errorf("the position of a comment is %v, %v", is, err)
	}
	late, _ := followRoom(t, l, room, 5)
	waitEvents(t, late, 20*time.Second, ids[295:]...)

	// The store loses its end: it is what it was before the last comment.
	stopServer(s)
	backup := t.TempDir()
	if err := os.CopyFS(backup, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	s = startGranted(t, port, dir, block)
	waitReady(t, l)
	mustAppend(t, l, room, "lost")
	waitEvents(t, late, 20*time.Second, append(ids[295:len(ids):len(ids)], "lost")...)
	stopServer(s)
	startGranted(t, port, backup, block)
	waitReady(t, l)
	eventually(t, 20*time.Second, "it is noticed", func() error { return sameEvents(late, ids[295:]) })
	mustAppend(t, l, room, "instead")
	waitEvents(t, late, 20*time.Second, append(ids[295:len(ids):len(ids)], "instead")...)
	if err := l.Ready(); err != nil {
		t.Error(err)
	}
	if refused := append(out.with("refuse"), out.with("iolation")...); len(refused) > 0 {
		t.Errorf("NATS has refused something:\n%s", strings.Join(refused, ""))
	}
}

// Each of the grants is needed: without it a log is not ready and names it. Streams that are
// there need nobody who may make them.
func TestEachGrantIsNeeded(t *testing.T) {
	t.Parallel()
	block, subjects := documentedGrants(t)
	for _, subject := range subjects {
		t.Run(subject, func(t *testing.T) {
			t.Parallel()
			without := regexp.MustCompile(`(?m)^ +"`+regexp.QuoteMeta(subject)+`".*\n`).ReplaceAllString(block, "")
			if without == block {
				t.Fatal("nothing was taken out")
			}
			port, dir := freePorts(t, 1)[0], t.TempDir()
			s := startGranted(t, port, dir, without)
			l := open(t, Config{URLs: []string{grantedURL(s)}})
			// The subjects are named as they are used: of one stream, one partition.
			named := strings.NewReplacer("log.*.*", "log.0.>", "live.>", "live.*.0.>").Replace(subject)
			named = strings.TrimSuffix(named, "*")
			if strings.HasPrefix(subject, "$JS") {
				named += "KANSEI_"
			}
			readySays(t, l, "nats: ", "this account may not ", " to "+named)
			if !strings.Contains(subject, "CREATE") {
				return
			}
			closeLog(t, l)
			stopServer(s)
			s = startGranted(t, port, dir, block)
			closeLog(t, openReady(t, Config{URLs: []string{grantedURL(s)}}))
			stopServer(s)
			s = startGranted(t, port, dir, without)
			l = openReady(t, Config{URLs: []string{grantedURL(s)}})
			mustAppend(t, l, "r", "a")
			o, _ := followRoom(t, l, "r", 1)
			waitEvents(t, o, 10*time.Second, "a")
			if err := l.Ready(); err != nil {
				t.Error(err)
			}
		})
	}
}
