//go:build unix

package chaos

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
)

// What a link is to lose does not arrive, and everything else does, whole and in its
// order, with headers and without.
func TestLinkLosesMessages(t *testing.T) {
	t.Parallel()
	s, err := server.NewServer(&server.Options{Host: "127.0.0.1", Port: -1, NoLog: true, NoSigs: true})
	must(t, err)
	s.Start()
	defer func() { s.Shutdown(); s.WaitForShutdown() }()
	if !s.ReadyForConnections(20 * time.Second) {
		t.Fatal("the server does not start")
	}
	m, err := newLink("a>b", s.Addr().String(), true)
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

// echo is a server that says again what it is told, behind a link.
func echo(t *testing.T) *link {
	t.Helper()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { _ = server.Close() })
	go func() { // ends with the server
		for {
			c, err := server.Accept()
			if err != nil {
				return
			}
			go func() { // ends with the connection
				_, _ = io.Copy(c, c)
				_ = c.Close()
			}()
		}
	}()
	l, err := newLink("a>b", server.Addr().String(), false)
	must(t, err)
	t.Cleanup(l.close)
	return l
}

// While a link is cut nothing passes, on old connections and on new ones; then everything
// does. A reset ends connections; new ones work.
func TestWeather(t *testing.T) {
	t.Parallel()
	l := echo(t)
	dial := func() (net.Conn, *bufio.Reader) {
		c, err := net.Dial("tcp", l.listener.Addr().String())
		must(t, err)
		t.Cleanup(func() { _ = c.Close() })
		return c, bufio.NewReader(c)
	}
	says := func(c net.Conn, r *bufio.Reader, text string, within time.Duration) error {
		if text != "" {
			if _, err := io.WriteString(c, text+"\n"); err != nil {
				return err
			}
		}
		must(t, c.SetReadDeadline(time.Now().Add(within)))
		_, err := r.ReadString('\n')
		return err
	}
	old, fromOld := dial()
	must(t, says(old, fromOld, "hello", 20*time.Second))
	mend := spoil([]*link{l}, weather{cut: true})
	fresh, fromFresh := dial()
	for name, err := range map[string]error{
		"an old connection": says(old, fromOld, "are you there", 200*time.Millisecond),
		"a new connection":  says(fresh, fromFresh, "are you there", 200*time.Millisecond),
	} {
		if err == nil {
			t.Errorf("%s is not cut", name)
		}
	}
	mend()
	must(t, says(old, fromOld, "", 20*time.Second))
	must(t, says(fresh, fromFresh, "", 20*time.Second))

	mend = spoil([]*link{l}, weather{delay: 100 * time.Millisecond, jitter: 50 * time.Millisecond})
	began := time.Now()
	must(t, says(old, fromOld, "slowly", 20*time.Second))
	if took := time.Since(began); took < 100*time.Millisecond { // there and back
		t.Errorf("a slow link answers after %v", took)
	}
	mend()

	l.reset()
	if says(old, fromOld, "x", 20*time.Second) == nil {
		t.Error("a connection that was reset answers")
	}
	again, fromAgain := dial()
	must(t, says(again, fromAgain, "hello again", 20*time.Second))
}

// A link that is cut can be closed.
func TestCloseWhileCut(t *testing.T) {
	t.Parallel()
	l := echo(t)
	c, err := net.Dial("tcp", l.listener.Addr().String())
	must(t, err)
	defer func() { _ = c.Close() }()
	spoil([]*link{l}, weather{cut: true})
	_, err = io.WriteString(c, "hello\n")
	must(t, err)
	time.Sleep(20 * time.Millisecond)
}

// A link that is led elsewhere ends its connections and leads new ones there.
func TestLinkIsLedElsewhere(t *testing.T) {
	t.Parallel()
	var ends []net.Listener
	for i := range 2 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		defer func() { _ = l.Close() }()
		go func() { // ends with the listener
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				_, _ = fmt.Fprintf(c, "%d\n", i) // who reads it says what is wrong
			}
		}()
		ends = append(ends, l)
	}
	one, err := newLink("a>b", ends[0].Addr().String(), false)
	must(t, err)
	defer one.close()
	read := func() (net.Conn, string) {
		t.Helper()
		c, err := net.Dial("tcp", one.listener.Addr().String())
		must(t, err)
		must(t, c.SetDeadline(time.Now().Add(20*time.Second)))
		line, err := bufio.NewReader(c).ReadString('\n')
		must(t, err)
		return c, line
	}
	before, at := read()
	defer func() { _ = before.Close() }()
	if at != "0\n" {
		t.Errorf("it led to %q", at)
	}
	one.lead(ends[1].Addr().String())
	if _, err := before.Read(make([]byte, 1)); err == nil {
		t.Error("the connection of before goes on")
	}
	after, at := read()
	defer func() { _ = after.Close() }()
	if at != "1\n" {
		t.Errorf("it leads to %q", at)
	}
}
