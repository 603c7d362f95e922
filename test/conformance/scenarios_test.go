package conformance

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/kansei-live/kansei/internal/socket"
	"github.com/kansei-live/kansei/protocol"
)

// ability is what not every client can do.
type ability uint8

const (
	fragments ability = 1 << iota // sends messages in fragments, of any bytes
	pings                         // sends pings and shows pings and pongs
	codes                         // closes with any code
	newCodes                      // knows close code 1014
)

// scenario is what happens on one connection.
type scenario struct {
	name  string
	needs ability
	// once: played only where permessage-deflate is agreed on, because it is about
	// something else.
	once bool

	// The server's side. It sends greeting, and then back what comes, each message
	// twice: plain, and as the connection takes it.
	limit    int           // socket.Config.MaxMessage
	ping     time.Duration // socket.Config.PingAfter
	silence  time.Duration // socket.Config.SilenceLimit
	greeting []string
	pings    []string // of the server, before each message of the greeting
	pump     int      // as many messages are sent while others come
	mute     bool     // nothing is sent back
	hangUp   *ending  // how the server closes: when it has greeted, or
	onFirst  bool     // when the first message has come
	shutdown bool     // the server as a whole is closed when the first message has come

	// The client's side.
	steps []step

	// What else is to be seen.
	end     ending // how the connection ends, as the client sees it
	kind    socket.Kind
	anyEcho bool // the client may see only the first of what is sent back
	pinged  bool // the client must have seen a ping
	refused bool // the last step is
	// ragged: the client may call the end unclean. Either the server has failed the
	// connection, after which it hears nobody out (RFC 6455, section 7.1.7), or the
	// client had more to send, which Chromium counts.
	ragged bool
}

// ending is a close frame.
type ending struct {
	code   int
	reason string
}

// step is one thing that a client does. The scripts read it as JSON.
type step struct {
	// Op is send, binary, fragments, cork, uncork, ping, await, hold or close.
	// From cork to uncork nothing leaves if the client can keep it back.
	Op       string   `json:"op"`
	Text     string   `json:"text,omitempty"`     // send, binary; the payload of ping, and of the pings between fragments
	Parts    [][]byte `json:"parts,omitempty"`    // fragments
	Between  bool     `json:"between,omitempty"`  // fragments: with a ping after each but the last
	Messages int      `json:"messages,omitempty"` // await: as many in all
	Millis   int      `json:"millis,omitempty"`   // hold
	Code     int      `json:"code,omitempty"`     // close; 0: none
	Reason   string   `json:"reason,omitempty"`
}

func send(texts ...string) []step {
	var out []step
	for _, s := range texts {
		out = append(out, step{Op: "send", Text: s})
	}
	return out
}

// corked has steps leave in as few segments as the client can.
func corked(steps []step) []step {
	return slices.Concat([]step{{Op: "cork"}}, steps, []step{{Op: "uncork"}})
}

func await(messages int) []step { return []step{{Op: "await", Messages: messages}} }

func hangUp(code int, reason string) []step {
	return []step{{Op: "close", Code: code, Reason: reason}}
}

func inParts(parts ...string) []step {
	s := step{Op: "fragments"}
	for _, p := range parts {
		s.Parts = append(s.Parts, []byte(p))
	}
	return []step{s}
}

// sent is what the server should receive.
func (s *scenario) sent() []string {
	steps := s.steps
	if s.refused {
		steps = steps[:len(steps)-1]
	}
	var out []string
	for _, st := range steps {
		switch st.Op {
		case "send":
			out = append(out, st.Text)
		case "fragments":
			out = append(out, string(bytes.Join(st.Parts, nil)))
		}
	}
	if s.onFirst || s.shutdown {
		out = out[:1] // what comes once the server has closed is discarded
	}
	return out
}

// shown is what the client should receive, without what is pumped.
func (s *scenario) shown() []string {
	all := s.greeting
	if !s.mute {
		all = slices.Concat(all, s.sent())
	}
	var out []string
	for _, m := range all {
		out = append(out, m, m)
	}
	return out
}

const (
	defaultLimit = 8192
	highLimit    = 200_000
	// longest reason: 123 bytes.
	japanese = "ただいま回線が混み合っております。恐れ入りますが、しばらく待ってから再接続願います"
)

// scenarios is the table.
func scenarios(t *testing.T) []scenario {
	t.Helper()
	table := slices.Concat(control(), messages(t), together(), refusals(), endings())
	for i := range table {
		s := &table[i]
		if s.limit == 0 {
			s.limit = defaultLimit
		}
		if s.kind == "" {
			s.kind = socket.ClosedByPeer
		}
	}
	return table
}

// well ends a scenario: the client awaits all that is sent and closes.
func well(s scenario) scenario {
	s.steps = slices.Concat(s.steps, await(len(s.shown())+s.pump), hangUp(1000, "bye"))
	s.end = ending{1000, ""} // a close frame is answered by its code
	return s
}

// messages are of every size around the limits of the header, and of any text.
func messages(t *testing.T) []scenario {
	var around []string
	for _, n := range []int{0, 1, 125, 126, 127, 128, 65535, 65536} {
		around = append(around, plain(n), noise(n))
	}
	around = append(around, comments(150_000))
	exactly := func(limit int) scenario {
		return well(scenario{name: fmt.Sprintf("largest of %d bytes", limit), limit: limit,
			steps: send(plain(limit), noise(limit))})
	}
	again := comments(1000)
	return []scenario{
		well(scenario{name: "sizes from the server", greeting: around}),
		well(scenario{name: "deflated sizes from the server",
			greeting: []string{deflatedTo(t, 125), deflatedTo(t, 126), deflatedTo(t, 127), deflatedTo(t, 65535), deflatedTo(t, 65536)}}),
		well(scenario{name: "sizes to the server", limit: highLimit, steps: send(around...)}),
		exactly(defaultLimit),
		exactly(65535),
		exactly(65536),
		well(scenario{name: "text", greeting: texts(), steps: send(texts()...)}),
		well(scenario{name: "the same again", steps: send(slices.Repeat([]string{again}, 8)...)}),
		well(scenario{name: "fragments", needs: fragments, limit: highLimit, steps: slices.Concat(
			inParts("", ""),
			inParts("", "歓声", ""),
			inParts("a", "b", "c"),
			inParts("\xe6", "\xad", "\x93\xe5\xa3\xb0 \xf0", "\x9f", "\x8e", "\x89"), // 歓声 🎉
			inParts(plain(125), noise(126), comments(127)),
			inParts(plain(65535), noise(65536)),
			send("whole"),
		)}),
	}
}

func control() []scenario {
	between := func(parts []step, text string) []step {
		parts[0].Between, parts[0].Text = true, text
		return parts
	}
	return []scenario{
		// The first of all: the others are played meanwhile.
		well(scenario{name: "silence", once: true, ping: time.Second, silence: 7 * time.Second, pinged: true,
			steps: []step{{Op: "hold", Millis: 8500}}}),
		well(scenario{name: "pings", needs: pings, steps: slices.Concat(
			ping(""), send("a"), ping("1"), ping(plain(124)), send(comments(500)), ping("歓声 🎉"), ping(noise(125)),
		)}),
		well(scenario{name: "pings between fragments", needs: pings | fragments, steps: slices.Concat(
			between(inParts(noise(300), noise(200), noise(300)), "between"),
			between(inParts("\xe6", "\xad", "\x93"), plain(125)),
			between(inParts("a", "", "b", ""), ""),
		)}),
		well(scenario{name: "pings of the server",
			greeting: []string{"a", plain(125), noise(65536), comments(700)},
			pings:    []string{"", "p", noise(125), "歓声 🎉"},
			steps:    send("b")}),
	}
}

func ping(data string) []step { return []step{{Op: "ping", Text: data}} }

// together are messages in numbers, and both sides at once.
func together() []scenario {
	var many, long []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("%d %s", i, comments(20+i%150)))
	}
	for i := range 50 {
		long = append(long, fmt.Sprintf("%d %s", i, noise(8000)))
	}
	tooSlow := ending{int(protocol.CloseTooSlow), "retry_ms=4200"}
	return []scenario{
		well(scenario{name: "many at once", steps: corked(send(many...))}),
		well(scenario{name: "both send at once", pump: 60, steps: send(many...)}),
		{name: "close after many", anyEcho: true,
			steps: corked(slices.Concat(send(many...), hangUp(4000, "bye"))), end: ending{4000, ""}},
		{name: "close after many of the server", greeting: many, hangUp: &tooSlow, end: tooSlow, kind: socket.ClosedByServer},
		// What the client has on its way must not cost it the close frame.
		{name: "close amid many", mute: true, ragged: true, steps: send(long...),
			hangUp: &tooSlow, onFirst: true, end: tooSlow, kind: socket.ClosedByServer},
		// The server is the first: the message came before the close frame.
		{name: "both close at once", mute: true, steps: corked(slices.Concat(send("go"), hangUp(1000, "bye"))),
			hangUp: &tooSlow, onFirst: true, end: tooSlow, kind: socket.ClosedByServer},
		{name: "shutdown", once: true, shutdown: true, steps: send("go"), mute: true,
			end: ending{1001, "the server is shutting down"}, kind: socket.ClosedByServer},
	}
}

// refusals are of what a client may not send.
func refusals() []scenario {
	refused := func(name string, kind socket.Kind, code int, reason string, needs ability, steps ...step) scenario {
		return scenario{name: name, kind: kind, end: ending{code, reason}, needs: needs, refused: true, ragged: true,
			steps: slices.Concat(send("fine"), await(2), steps)}
	}
	tooBig := func(name string, limit int, text string) scenario {
		s := refused(name, socket.TooBig, 1009, fmt.Sprintf("a message has more than %d bytes", limit), 0, step{Op: "send", Text: text})
		s.limit = limit
		return s
	}
	parts := func(p ...string) step { return inParts(p...)[0] }
	pieces := refused("too big in fragments", socket.TooBig, 1009, fmt.Sprintf("a message has more than %d bytes", defaultLimit), fragments,
		parts(noise(5000), noise(3192), "x"))
	return []scenario{
		tooBig("a byte too big", defaultLimit, plain(defaultLimit+1)),
		tooBig("a byte of noise too big", defaultLimit, noise(defaultLimit+1)),
		tooBig("a byte beyond 65535", 65535, noise(65536)),
		tooBig("a byte beyond 65536", 65536, noise(65537)),
		tooBig("much too big", defaultLimit, noise(150_000)),
		pieces,
		refused("binary", socket.Binary, 1003, "binary messages are not taken", 0, step{Op: "binary", Text: "x"}),
		refused("not UTF-8", socket.BadData, 1007, "a text message is not UTF-8", fragments, parts(strings.Repeat("a", 200)+"\xff")),
		refused("not UTF-8 over fragments", socket.BadData, 1007, "a text message is not UTF-8", fragments, parts("\xe6", "\xad")),
	}
}

// endings are the codes and reasons of both sides.
func endings() []scenario {
	reasons := []string{"", "retry_ms=4200", japanese}
	var out []scenario
	byClient := func(code int, reason string, needs ability) {
		s := scenario{name: fmt.Sprintf("client closes with %d and %d bytes", code, len(reason)), needs: needs, once: true,
			steps: slices.Concat(send("a"), await(2), hangUp(code, reason)), end: ending{code, ""}}
		if code == 0 {
			s.end.code = 1005
		}
		out = append(out, s)
	}
	byClient(0, "", 0)
	for _, code := range []int{1000, 3000, 4000, 4999} {
		for _, reason := range reasons {
			byClient(code, reason, 0)
		}
	}
	for _, code := range []int{1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013} {
		byClient(code, "why", codes)
	}
	byClient(1014, "why", codes|newCodes)

	byServer := func(code protocol.CloseCode, reason string, needs ability) {
		end := ending{int(code), reason}
		out = append(out, scenario{name: fmt.Sprintf("server closes with %d and %d bytes", code, len(reason)), needs: needs, once: true,
			greeting: []string{"a"}, hangUp: &end, end: end, kind: socket.ClosedByServer})
	}
	for _, code := range []protocol.CloseCode{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1011, 1012, 1013, 3000, 4999,
		protocol.CloseMalformed, protocol.CloseUnauthorized, protocol.CloseBanned, protocol.CloseNoRoom,
		protocol.CloseTooSlow, protocol.CloseTooMany} {
		byServer(code, reasons[len(out)%len(reasons)], 0)
	}
	byServer(1014, "", newCodes)
	return out
}
