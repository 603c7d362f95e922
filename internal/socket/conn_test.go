package socket

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"
	"unicode/utf8"
)

// TestBreaches has a client commit every breach of RFC 6455 there is.
func TestBreaches(t *testing.T) { onBoth(t, testBreaches) }

func testBreaches(t *testing.T, via path) {
	long := func(n uint64) []byte {
		return append(binary.BigEndian.AppendUint64([]byte{finBit | opText, maskBit | 127}, n), 1, 2, 3, 4)
	}
	medium := func(n uint16) []byte {
		return append(binary.BigEndian.AppendUint16([]byte{finBit | opText, maskBit | 126}, n), 1, 2, 3, 4)
	}
	join := func(b ...[]byte) (all []byte) {
		for _, x := range b {
			all = append(all, x...)
		}
		return all
	}
	zip := func(s string) string { return deflated(t, s) }
	type breachCase struct {
		name   string
		send   []byte
		code   int
		kind   Kind
		reason string
	}
	cases := []breachCase{
		{"unmasked", []byte{finBit | opText, 1, 'x'}, 1002, ProtocolError, "not masked"},
		{"unmasked ping", []byte{finBit | opPing, 0}, 1002, ProtocolError, "not masked"},
		{"rsv1 without extension", frame(0xc1, "x"), 1002, ProtocolError, "reserved bit"},
		{"rsv1 on a binary message", frame(0xc2, "x"), 1002, ProtocolError, "reserved bit"},
		{"rsv2", frame(0xa1, "x"), 1002, ProtocolError, "reserved bit"},
		{"rsv3", frame(0x91, "x"), 1002, ProtocolError, "reserved bit"},
		{"rsv2 on a ping", frame(0xa9, "x"), 1002, ProtocolError, "reserved bit"},
		{"continuation without message", frame(0x80, "x"), 1002, ProtocolError, "continuation"},
		{"unfinished continuation without message", frame(0x00, "x"), 1002, ProtocolError, "continuation"},
		{"continuation after a message", join(text("a"), frame(0x80, "x")), 1002, ProtocolError, "continuation"},
		{"message within a message", join(frame(opText, "a"), text("b")), 1002, ProtocolError, "within"},
		{"binary within a message", join(frame(opText, "a"), frame(0x82, "b")), 1002, ProtocolError, "within"},
		{"fragmented ping", frame(opPing, "x"), 1002, ProtocolError, "fragmented"},
		{"fragmented close", frame(opClose, "x"), 1002, ProtocolError, "fragmented"},
		{"fragmented pong", frame(opPong, ""), 1002, ProtocolError, "fragmented"},
		{"long ping", frame(finBit|opPing, strings.Repeat("x", 126)), 1002, ProtocolError, "125"},
		{"ping of 64 KiB", frame(finBit|opPing, strings.Repeat("x", 65536)), 1002, ProtocolError, "125"},
		{"long close", closing(1000, strings.Repeat("x", 124)), 1002, ProtocolError, "125"},
		{"length 2^63", long(1 << 63), 1002, ProtocolError, "highest bit"},
		{"length 2^64-1", long(1<<64 - 1), 1002, ProtocolError, "highest bit"},
		{"length 2^63-1", long(1<<63 - 1), 1009, TooBig, "8192"},
		{"length 2^32", long(1 << 32), 1009, TooBig, "8192"},
		{"length beyond the limit", medium(8193), 1009, TooBig, "8192"},
		{"short length in 8 bytes", long(5), 1002, ProtocolError, "fewest"},
		{"65535 in 8 bytes", long(65535), 1002, ProtocolError, "fewest"},
		{"short length in 2 bytes", medium(5), 1002, ProtocolError, "fewest"},
		{"125 in 2 bytes", medium(125), 1002, ProtocolError, "fewest"},
		{"close with 1 byte", frame(finBit|opClose, "x"), 1002, ProtocolError, "1 byte"},
		{"close reason not UTF-8", closing(1000, "\xff"), 1007, BadData, "reason"},
		{"close reason cut within a rune", closing(1000, "\xe6\xad"), 1007, BadData, "reason"},
		{"binary", frame(0x82, "x"), 1003, Binary, "binary"},
		{"fragmented binary", frame(0x02, "x"), 1003, Binary, "binary"},
		{"1 MiB", text(strings.Repeat("x", 1<<20)), 1009, TooBig, "8192"},
		{"fragments beyond the limit", join(frame(opText, strings.Repeat("x", 8000)), frame(0, strings.Repeat("x", 192)), frame(0x80, "x")), 1009, TooBig, "8192"},
		{"not UTF-8", text("a\xffb"), 1007, BadData, "UTF-8"},
		{"a surrogate", text("\xed\xa0\x80"), 1007, BadData, "UTF-8"},
		{"overlong", text("\xc0\xaf"), 1007, BadData, "UTF-8"},
		{"cut rune", text("\xe6\xad"), 1007, BadData, "UTF-8"},
		{"not UTF-8 in the second fragment", join(frame(opText, "\xe6\xad"), frame(0x80, "\xff")), 1007, BadData, "UTF-8"},
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		cases = append(cases, breachCase{fmt.Sprintf("opcode %d", op), frame(finBit|op, "x"), 1002, ProtocolError, fmt.Sprintf("opcode %d", op)})
	}
	for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535} {
		cases = append(cases, breachCase{fmt.Sprintf("close code %d", code), closing(code, ""), 1002, ProtocolError, fmt.Sprint(code)})
	}
	withDeflate := []breachCase{
		{"deflated: rsv1 on a ping", frame(0xc9, "x"), 1002, ProtocolError, "reserved bit"},
		{"deflated: rsv1 on a continuation", join(frame(0x41, zip("x")), frame(0xc0, "x")), 1002, ProtocolError, "reserved bit"},
		{"deflated: rsv2 too", frame(0xe1, zip("x")), 1002, ProtocolError, "reserved bit"},
		{"deflated: binary", frame(0xc2, zip("x")), 1003, Binary, "binary"},
		{"deflated: garbage", frame(0xc1, "\xff\xff\xff\xff"), 1007, BadData, "deflated"},
		{"deflated: nothing", frame(0xc1, ""), 1007, BadData, "deflated"},
		{"deflated: cut short", frame(0xc1, zip(strings.Repeat("comment", 20))[:6]), 1007, BadData, "deflated"},
		{"deflated: not UTF-8", frame(0xc1, zip("a\xffb")), 1007, BadData, "UTF-8"},
		{"deflated: one byte too many", frame(0xc1, zip(strings.Repeat("x", 8193))), 1009, TooBig, "8192"},
		{"deflated: a bomb", frame(0xc1, zip(strings.Repeat("x", 5<<20))), 1009, TooBig, "8192"},
		{"deflated: a bomb in fragments", join(frame(0x41, zip(strings.Repeat("x", 5<<20))[:3000]), frame(0x80, zip(strings.Repeat("x", 5<<20))[3000:])), 1009, TooBig, "8192"},
		{"deflated: too many final blocks", frame(0xc1, strings.Repeat("\x03\x00", 20)), 1007, BadData, "final"},
		{"deflated: nothing, at length", frame(0xc1, strings.Repeat("\x00\x00\x00\xff\xff", 3000)), 1009, TooBig, "8192"},
	}
	s := newTestServer(t, via.config(Config{Deflate: true}))
	st := withTCP(newSite(t, s))
	run := func(extra string, c breachCase) {
		t.Run(c.name, func(t *testing.T) {
			p, v := st.dial(extra)
			v.t, p.t = t, t
			// The server may close before it has read all of it.
			if _, err := p.Write(c.send); err != nil && len(c.send) < 1<<16 {
				t.Fatal(err)
			}
			p.expectClose(c.code, c.reason)
			_ = p.Close()
			if got := v.cause(); got.Kind != c.kind || got.Code != c.code || !strings.Contains(got.Reason, c.reason) {
				t.Errorf("cause %v, want %s %d %q", got, c.kind, c.code, c.reason)
			}
		})
	}
	for _, c := range cases {
		run("", c)
	}
	for _, c := range withDeflate {
		run(offerDeflate, c)
	}
}

// TestMessages has a client send what is right, in all its forms.
func TestMessages(t *testing.T) { onBoth(t, testMessages) }

func testMessages(t *testing.T, via path) {
	big := strings.Repeat("歓", 2730) + "ab" // 8192 bytes
	s := newTestServer(t, via.config(Config{Deflate: true}))
	st := withTCP(newSite(t, s))
	zip := func(s string) string { return deflated(t, s) }
	for _, c := range []struct {
		name string
		send [][]byte
		want []string
	}{
		{"one", [][]byte{text("hello")}, []string{"hello"}},
		{"empty", [][]byte{text("")}, []string{""}},
		{"two in one segment", [][]byte{text("a"), text("b")}, []string{"a", "b"}},
		{"125", [][]byte{text(strings.Repeat("x", 125))}, []string{strings.Repeat("x", 125)}},
		{"126", [][]byte{text(strings.Repeat("x", 126))}, []string{strings.Repeat("x", 126)}},
		{"the limit", [][]byte{text(big)}, []string{big}},
		{"fragments", [][]byte{frame(opText, "a"), frame(0, "b"), frame(0x80, "c")}, []string{"abc"}},
		{"empty fragments", [][]byte{frame(opText, ""), frame(0, ""), frame(0x80, "")}, []string{""}},
		{"fragments within a rune", [][]byte{frame(opText, "\xe6"), frame(0, "\xad"), frame(0x80, "\x93")}, []string{"歓"}},
		{"ping and pong between fragments", [][]byte{frame(opText, "a"), frame(finBit|opPong, "x"), frame(finBit|opPong, ""), frame(0x80, "c")}, []string{"ac"}},
		{"the limit in fragments", [][]byte{frame(opText, big[:5000]), frame(0, big[5000:]), frame(0x80, "")}, []string{big}},
		{"deflated", [][]byte{frame(0xc1, zip("hello hello hello"))}, []string{"hello hello hello"}},
		{"deflated, the limit", [][]byte{frame(0xc1, zip(big))}, []string{big}},
		{"deflated in fragments", [][]byte{frame(0x41, zip("hello hello")[:4]), frame(0x80, zip("hello hello")[4:])}, []string{"hello hello"}},
		{"deflated and not", [][]byte{frame(0xc1, zip("a")), text("b"), frame(0xc1, zip("c"))}, []string{"a", "b", "c"}},
		{"deflated, nothing", [][]byte{frame(0xc1, "\x00")}, []string{""}},
		// The examples of RFC 7692, section 7.2.3.
		{"RFC: one block", [][]byte{frame(0xc1, "\xf2\x48\xcd\xc9\xc9\x07\x00")}, []string{"Hello"}},
		{"RFC: no compression", [][]byte{frame(0xc1, "\x00\x05\x00\xfa\xff\x48\x65\x6c\x6c\x6f\x00")}, []string{"Hello"}},
		{"RFC: final block", [][]byte{frame(0xc1, "\xf3\x48\xcd\xc9\xc9\x07\x00\x00")}, []string{"Hello"}},
		{"RFC: two blocks", [][]byte{frame(0xc1, "\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00")}, []string{"Hello"}},
		{"final block, nothing cut off", [][]byte{frame(0xc1, "\xf3\x48\xcd\xc9\xc9\x07\x00")}, []string{"Hello"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, v := st.dial(offerDeflate)
			v.t, p.t = t, t
			if v.conn.Form() != Deflated {
				t.Fatal("deflating was not agreed on")
			}
			p.write(c.send...)
			for _, want := range c.want {
				if got := v.message(); got != want {
					t.Fatalf("received %.50q, want %.50q", got, want)
				}
			}
			p.write(closing(1000, ""))
			p.expectClose(1000, "")
			_ = p.Close()
			if got := v.cause(); got.Kind != ClosedByPeer || got.Code != 1000 {
				t.Errorf("cause %v", got)
			}
		})
	}
}

// TestCloseByPeer checks that a close frame is answered with its code.
func TestCloseByPeer(t *testing.T) { onBoth(t, testCloseByPeer) }

func testCloseByPeer(t *testing.T, via path) {
	st := withTCP(newSite(t, newTestServer(t, via.config(Config{}))))
	for _, c := range []struct {
		name    string
		payload string
		answer  string
		code    int
		reason  string
	}{
		{"no code", "", "", 1005, ""},
		{"going away", "\x03\xe9", "\x03\xe9", 1001, ""},
		{"with reason", "\x03\xe8bye 歓", "\x03\xe8", 1000, "bye 歓"},
		{"registered since", "\x03\xf6", "\x03\xf6", 1014, ""},
		{"private", "\x0f\xa0why", "\x0f\xa0", 4000, "why"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, v := st.dial("")
			v.t, p.t = t, t
			// What follows a close frame is nothing to anybody.
			p.write(frame(finBit|opClose, c.payload), text("too late"), []byte{0xff, 0xff})
			p.expect(finBit|opClose, c.answer)
			if rest, err := io.ReadAll(p.br); err != nil || len(rest) > 0 {
				t.Fatalf("behind the close frame: %q, %v", rest, err)
			}
			_ = p.Close()
			if got := v.cause(); got.Kind != ClosedByPeer || got.Code != c.code || got.Reason != c.reason {
				t.Errorf("cause %v", got)
			}
			if len(v.got) > 0 {
				t.Errorf("message %q after the close frame", <-v.got)
			}
		})
	}
}

func TestCloseByServer(t *testing.T) { onBoth(t, testCloseByServer) }

func testCloseByServer(t *testing.T, via path) {
	st := withTCP(newSite(t, newTestServer(t, via.config(Config{}))))
	long := strings.Repeat("歓", 50)
	for _, c := range []struct {
		name   string
		code   int
		reason string
		want   int
		sent   string
	}{
		{"draining", 1012, "retry_ms=4200", 1012, "retry_ms=4200"},
		{"banned", 4403, "", 4403, ""},
		{"long reason", 4400, long, 4400, long[:123]},
		{"reason not UTF-8", 4400, "\xff", 4400, ""},
		{"impossible code", 1006, "x", 1011, "x"},
	} {
		t.Run(c.name, func(t *testing.T) {
			p, v := st.dial("")
			v.t, p.t = t, t
			v.conn.Close(c.code, c.reason)
			v.conn.Close(4000, "too late")
			v.conn.Flush()
			_, payload, err := p.read()
			if err != nil || len(payload) < 2 {
				t.Fatal(payload, err)
			}
			code, reason := int(binary.BigEndian.Uint16(payload)), string(payload[2:])
			if code != c.want || reason != c.sent || !utf8.ValidString(reason) {
				t.Errorf("closed with %d %q, want %d %q", code, reason, c.want, c.sent)
			}
			// The stream does not end before the peer has closed too.
			_ = p.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
			if b, err := p.br.ReadByte(); !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("behind the close frame, before its answer: %#x, %v", b, err)
			}
			_ = p.SetReadDeadline(time.Now().Add(patience))
			p.write(text("on its way already"), closing(code, ""))
			if rest, err := io.ReadAll(p.br); err != nil || len(rest) > 0 {
				t.Fatalf("behind the close frame: %q, %v", rest, err)
			}
			_ = p.Close()
			if got := v.cause(); got.Kind != ClosedByServer || got.Code != c.want || got.Reason != c.sent {
				t.Errorf("cause %v", got)
			}
			if len(v.got) > 0 {
				t.Errorf("message %q after Close", <-v.got)
			}
		})
	}
}

// TestCloseWithinMessage closes from within Message while further messages are in
// the same segment.
func TestCloseWithinMessage(t *testing.T) { onBoth(t, testCloseWithinMessage) }

func testCloseWithinMessage(t *testing.T, via path) {
	st := withTCP(newSite(t, newTestServer(t, via.config(Config{})), func(st *site) {
		st.prepare = func(v *viewer) {
			v.onMessage = func(p []byte) {
				v.got <- string(p)
				v.conn.Close(4400, "enough")
			}
		}
	}))
	p, v := st.dial("")
	p.write(text("a"), text("b"), frame(opText, "c"))
	p.expectClose(4400, "enough")
	_ = p.Close()
	v.cause()
	if n := len(v.got); n != 1 {
		t.Errorf("%d messages, want 1", n)
	}
}

func TestPing(t *testing.T) { onBoth(t, testPing) }

func testPing(t *testing.T, via path) {
	st := withTCP(newSite(t, newTestServer(t, via.config(Config{}))))
	p, _ := st.dial("")
	for _, payload := range []string{"", "a", strings.Repeat("x", 125)} {
		p.write(frame(finBit|opPing, payload))
		p.expect(finBit|opPong, payload)
	}
	// Of many that come together only the latest is answered.
	const many = 50
	var all []byte
	for i := range many {
		all = append(all, frame(finBit|opPing, fmt.Sprint(i))...)
	}
	p.write(all)
	for n := 1; ; n++ {
		first, payload, err := p.read()
		if err != nil || first != finBit|opPong {
			t.Fatalf("received %#x, %v", first, err)
		}
		if string(payload) == fmt.Sprint(many-1) {
			if n > many/2 {
				t.Errorf("%d pings that came together got %d pongs", many, n)
			}
			break
		}
	}
}

// TestLost ends connections without a close frame.
func TestLost(t *testing.T) { onBoth(t, testLost) }

func testLost(t *testing.T, via path) {
	st := withTCP(newSite(t, newTestServer(t, via.config(Config{}))))
	for name, end := range map[string]func(*peer){
		"end of stream":         func(p *peer) { _ = p.Close() },
		"half-closed":           func(p *peer) { _ = p.Conn.(*net.TCPConn).CloseWrite() },
		"reset":                 func(p *peer) { _ = p.Conn.(*net.TCPConn).SetLinger(0); _ = p.Close() },
		"end within a message":  func(p *peer) { p.write(text("hello")[:8]); _ = p.Close() },
		"end between fragments": func(p *peer) { p.write(frame(opText, "hello")); _ = p.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			p, v := st.dial("")
			v.t, p.t = t, t
			end(p)
			if got := v.cause(); got.Kind != Lost || got.Code != 1006 || got.Err == nil {
				t.Errorf("cause %v", got)
			}
		})
	}
}

// TestCloseFrameBeforeReset checks that what a peer said last is known even when
// writing to it has failed first.
func TestCloseFrameBeforeReset(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Config{})
	c, p := pipe(t, s)
	v := newViewer(t)
	v.conn = c
	c.cannotWrite(new(batch), errors.New("taken no more"))
	c.Start(v)
	v.send(plain("to nobody"))
	p.write(closing(1001, ""))
	if got := v.cause(); got.Kind != ClosedByPeer || got.Code != 1001 {
		t.Errorf("cause %v", got)
	}
}

// TestTrickle sends a message a byte at a time: over TCP, so that the decoder gets
// it in pieces.
func TestTrickle(t *testing.T) { onBoth(t, testTrickle) }

func testTrickle(t *testing.T, via path) {
	s := newTestServer(t, via.config(Config{Deflate: true}))
	st := withTCP(newSite(t, s))
	p, v := st.dial(offerDeflate)
	stream := append(text("first"), frame(finBit|opPing, "now")...)
	stream = append(stream, frame(0xc1, deflated(t, strings.Repeat("second ", 30)))...)
	for _, b := range stream {
		p.write([]byte{b})
		time.Sleep(100 * time.Microsecond)
	}
	if got := v.message(); got != "first" {
		t.Errorf("received %q", got)
	}
	if got := v.message(); got != strings.Repeat("second ", 30) {
		t.Errorf("received %q", got)
	}
	p.expect(finBit|opPong, "now")
}

// TestStartAfterEnd starts connections that were closed before.
func TestStartAfterEnd(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Config{})
	for _, ended := range []bool{false, true} {
		c, p := pipe(t, s)
		c.Close(4401, "token expired")
		p.expectCloseFrame(4401, "token expired")
		if ended {
			_ = p.Close()
			eventually(t, "the connection ends", func() bool { return s.Len() == 0 })
		}
		v := newViewer(t)
		v.conn = c
		c.Start(v)
		if !ended {
			p.write(text("too late"))
			_ = p.Close()
		}
		if got := v.cause(); got.Kind != ClosedByServer || got.Code != 4401 {
			t.Errorf("cause %v", got)
		}
		v.send([]byte("never fetched"))
		if len(v.got) > 0 {
			t.Error("a message after Close")
		}
	}
}

// TestFlushBeforeStart: what is asked for before Start is written by it.
func TestFlushBeforeStart(t *testing.T) {
	t.Parallel()
	s := newTestServer(t, Config{})
	c, p := pipe(t, s)
	v := newViewer(t)
	v.conn = c
	v.send(plain("welcome"))
	c.Start(v)
	p.expect(finBit|opText, "welcome")
}
