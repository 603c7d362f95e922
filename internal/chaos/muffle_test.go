//go:build unix

package chaos

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// What a muffler is to lose does not arrive, and everything else does, whole and in its
// order, with headers and without.
func TestMuffler(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true})
	must(t, err)
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	m, err := newMuffler(s.Addr().String())
	must(t, err)
	defer m.close()
	lose := func(subject string) bool { return strings.HasSuffix(subject, ".3") || strings.HasSuffix(subject, ".4") }
	m.lose.Store(&lose)
	nc, err := nats.Connect("nats://" + m.listener.Addr().String())
	must(t, err)
	defer nc.Close()
	sub, err := nc.SubscribeSync("m.>")
	must(t, err)
	must(t, nc.Flush())
	for i := range 8 {
		msg := &nats.Msg{Subject: fmt.Sprint("m.", i), Data: []byte(strings.Repeat("MSG m.3 1 0\r\n", i*100))}
		if i%2 == 0 {
			msg.Header = nats.Header{"Number": {fmt.Sprint(i)}}
		}
		must(t, nc.PublishMsg(msg))
	}
	for _, want := range []int{0, 1, 2, 5, 6, 7} {
		got, err := sub.NextMsg(20 * time.Second)
		must(t, err)
		if got.Subject != fmt.Sprint("m.", want) || len(got.Data) != want*100*13 || (got.Header != nil) != (want%2 == 0) {
			t.Errorf("%s with %d bytes and %v came, want m.%d", got.Subject, len(got.Data), got.Header, want)
		}
	}
	if n := m.lost.Load(); n != 2 {
		t.Errorf("%d were lost", n)
	}
}

func TestMessageHeads(t *testing.T) {
	t.Parallel()
	for line, want := range map[string]string{
		"MSG a.b 9 11\r\n":         "a.b 13 true",
		"MSG a.b 9 reply 0\r\n":    "a.b 2 true",
		"HMSG a 1 12 20\r\n":       "a 22 true",
		"HMSG a 1 reply 12 20\r\n": "a 22 true",
		"PING\r\n":                 " 0 false",
		"INFO {\"MSG a b 1\":1}\r": " 0 false",
		"MSG a\r\n":                " 0 false",
		"MSG a 1 x\r\n":            " 0 false",
		"MSG a 1 -5\r\n":           " 0 false",
	} {
		subject, size, is := message([]byte(line))
		if got := fmt.Sprint(subject, " ", size, " ", is); got != want {
			t.Errorf("%q is %q, want %q", line, got, want)
		}
	}
}
